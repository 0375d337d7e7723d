//! Batches: each run of the sweep, and each trigger of an admin, as a row with its figures and the outcome of each reading.
//!
//! Invariant: a batch counts each reading once, whoever runs it and however often. A reading is claimed by a row of
//! `batch_readings` (its key makes it single), and counted by the change of that row from open to closed, in a transaction
//! that holds the batch's row and changes its figures with it. So a run may die anywhere, and another goes on; two that run
//! at the same time by mistake share the work. What is paid is the ledger's affair alone.
//!
//! | file | what it does |
//! |---|---|
//! | `batch` | a batch, its filter and its figures |
//! | `request` | what an admin asks for, and the estimate of what it would take |
//! | `life` | begins, hands on and ends a batch |
//! | `claim` | claims unminted readings, a bounded step at a time |
//! | `close` | writes down what became of readings |
//! | `by_index` | keeps both quick whatever the statistics say |
//! | `view` | batches as they are shown, a page of results at a time |
//! | `housekeeping` | rescues batches whose job is lost, forgets old ones |

mod batch;
mod by_index;
mod claim;
mod close;
mod housekeeping;
mod life;
mod request;
mod view;

pub use batch::{Batch, BatchFilter, BatchKind, BatchState, Figures};
pub use claim::{Claim, ClaimSource, Cursor, Step, claim};
pub use close::{Outcome, close, close_open, close_settled, open_pending};
pub use housekeeping::{prune, rescue};
pub use life::{begin_sweep, begin_trigger, finish, give_up, hand_on, slice_of};
pub use request::{BatchRequest, BatchRequestError, BatchTarget, UnmintedReading, look};
pub use view::{
    BatchResult, BatchView, RESULTS_PER_PAGE_MAX, ResultsPage, find, last_sweep, recent, results,
};
