//! Readings: what a meter reported for one interval, on its way into the books.
//!
//! Invariant: no moment of a meter is paid twice, under any id, of any length, at any time. Kept by three things: a
//! reading that is stored already is found again by meter, start and end (for ever, and before its age is judged); an
//! interval that overlaps a stored one is refused; and two that arrive at the same moment are kept apart by the
//! constraints `readings_once` and `metered_once`, since a reading only ever commits together with its guarded interval.
//!
//! Invariant: an accepted reading commits together with its job and its event, or not at all. [`Intake`] stores up to a
//! batch of them in one transaction, with one NOTIFY.
//!
//! What a reading pays, and whom, is fixed here. Its state afterwards is the [`ledger`](crate::ledger)'s.
//!
//! | file | holds |
//! |---|---|
//! | `submission`, `parsed` | a reading as it was sent, and once its members are understood |
//! | `rules` | what an acceptable reading is, and what it is worth |
//! | `admission` | accepted, duplicate, or in conflict, for a whole batch: pure |
//! | `store` | the statements of the intake's transaction, and the pruning of guarded intervals |
//! | `batch_commit` | one batch: transaction, races, and finding the one row that spoils it |
//! | `intake` | the door: group commit for all callers |
//! | `rejection_events` | tells owners why a reading of their meter was refused |
//! | `view` | readings as they are shown |

mod admission;
mod batch_commit;
mod error;
mod intake;
mod parsed;
mod rejection_events;
mod rules;
mod store;
mod submission;
mod view;

pub use error::{Invalid, ReadingError};
pub use intake::{Accepted, Intake};
pub use store::{first_id_at, prune_metered_intervals};
pub use submission::{Member, Submission};
pub use view::{
    READINGS_PER_PAGE_DEFAULT, READINGS_PER_PAGE_MAX, ReadingFilter, ReadingPage, ReadingView,
    find, list,
};
