//! Batches: each run of the sweep, and each trigger of an admin, as a row with its figures and the outcome of each reading.
//!
//! Invariant: a batch counts each reading once, no matter which processes run it and how often. A row of `batch_readings`
//! claims a reading (its key makes the claim unique). The reading is counted when that row changes from open to closed, in a
//! transaction that locks the batch's row and updates its figures. So a run may die at any point and another one continues;
//! two runs at the same time, which a lock normally prevents, share the work. The ledger alone decides what is paid.
//!
//! | file | what it does |
//! |---|---|
//! | `batch` | a batch, its filter and its figures |
//! | `request` | an admin's request for a batch, and the readings for the estimate of a dry run |
//! | `lifecycle` | begins a batch, advances it slice by slice, and ends it |
//! | `unminted` | the query of unminted readings that claims and dry runs share |
//! | `claim_readings` | claims unminted readings, a bounded step at a time |
//! | `outcomes` | stores the outcome of each reading |
//! | `view` | batches as the API shows them, and their results page by page |
//! | `maintenance` | enqueues batches again whose job was lost, deletes old batches |

mod batch;
mod claim_readings;
mod lifecycle;
mod maintenance;
mod outcomes;
mod request;
mod unminted;
mod view;

pub use batch::{Batch, BatchFilter, BatchKind, BatchState, Figures};
pub use claim_readings::{ClaimStep, ClaimedPage, claim};
pub use lifecycle::{
    begin_sweep, begin_trigger, finish, slice_of, start_next_slice, stop_claiming,
};
pub use maintenance::{prune, requeue_stranded};
pub use outcomes::{
    OpenRows, ReadingOutcome, SuccessAt, close, close_open, close_settled, open_pending,
};
pub use request::{BatchRequest, BatchRequestError, BatchTarget, UnmintedReading, preview};
pub use unminted::{ClaimSource, Cursor};
pub use view::{
    BatchResult, BatchView, RESULTS_PER_PAGE_MAX, ResultsPage, find, last_sweep, recent, results,
};
