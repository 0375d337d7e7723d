//! Readings: what a meter reported for one interval, from submission to storage.
//!
//! Invariant: no moment of a meter is paid twice, under any id, of any length, at any time. Three things keep it: a repeated
//! reading is found by meter, start and end, before its age is checked and however old it is; an interval that overlaps a
//! stored one is refused; and the constraints `readings_once` and `metered_once` keep out one of two that arrive at the same
//! moment, because a reading commits only together with its guarded interval.
//!
//! Invariant: an accepted reading commits together with its job and its event, or not at all. [`Intake`] stores up to a
//! batch of readings in one transaction, with one NOTIFY.
//!
//! The amount and the wallet that a reading pays are fixed here. Its state afterwards belongs to the [`ledger`](crate::ledger).
//!
//! | file | holds |
//! |---|---|
//! | `submission`, `parsed` | a reading as it was sent, and with its members parsed |
//! | `rules` | whether a new reading is acceptable (too old, in the future, too much energy), and what it is worth |
//! | `admission` | accepted, duplicate, or in conflict, for a whole batch: pure. New readings are checked by `rules` |
//! | `accepted` | a stored reading, and what its caller is answered |
//! | `readings_table` | the statements of the intake's transaction, and the pruning of guarded intervals |
//! | `batch_commit` | one batch: transaction, races, and finding the one row that the database refuses |
//! | `intake` | group commit for all callers |
//! | `rejection_events` | notifies owners why a reading of their meter was refused |
//! | `view` | readings as callers see them |

mod accepted;
mod admission;
mod batch_commit;
mod error;
mod intake;
mod parsed;
mod readings_table;
mod rejection_events;
mod rules;
mod submission;
mod view;

pub use accepted::Accepted;
pub use error::{Invalid, ReadingError};
pub use intake::Intake;
pub use readings_table::{first_id_at, prune_metered_intervals};
pub use submission::{Member, Submission};
pub use view::{
    READINGS_PER_PAGE_DEFAULT, READINGS_PER_PAGE_MAX, ReadingFilter, ReadingPage, ReadingView,
    find, list,
};
