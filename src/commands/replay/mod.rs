//! The play of `gridtokenx run`: replays a year of one real household's solar energy, reported by as many meters as the year
//! has days.
//!
//! Invariant: every reading of the data file that has energy in it is reported once, in the digits of the file, for an
//! interval that never changes. The clock of the file is shifted by one offset that is kept with the data directory, and the
//! meters' keys are derived from a seed that is kept there too: a later start reports the same readings again, receives the
//! answer `duplicate`, and counts them as accepted.
//!
//! The replay is a client like any other. It reports over REST, one reading a request, and learns the outcomes from the event
//! feed; nothing here accesses the database or the chain.
//!
//! `submit_to_minted` is the time from the first call of `submit-reading` for a reading to the moment that its `TokensMinted`
//! event names, retries included: when the service recorded that the chain had confirmed it. A reading that an earlier run had
//! reported already is not measured.
//!
//! | file | what it does |
//! |---|---|
//! | `data_file` | the meter data, and which days of it are replayed |
//! | `schedule` | when a reading was metered, and when it is reported |
//! | `wallets` | a wallet for each meter |
//! | `plan` | all of that together: which meter reports what, when |
//! | `api_client` | the service as its clients see it: REST |
//! | `target`, `replay_error` | the system that is replayed against; the errors that end a replay early |
//! | `reading_tracker` | the state of each reading, from answers and events |
//! | `listener` | follows the event feed into the tracker |
//! | `settle` | waits until every accepted reading is final |
//! | `replay_run` | one replay from the first meter to the outcome |
//! | `progress` | shows how far it is |

mod api_client;
mod data_file;
mod listener;
mod plan;
mod progress;
mod reading_tracker;
mod replay_error;
mod replay_run;
mod schedule;
mod settle;
mod target;
mod wallets;

pub use api_client::{ApiClient, ApiError};
pub use data_file::{DataFileError, Day, METER_OWNER, PlannedReading, readings_of};
pub use plan::Replay;
pub use reading_tracker::{Counts, LatencyMs};
pub use replay_error::ReplayError;
pub use replay_run::Outcome;
pub use schedule::{Calendar, Speed};
pub use target::{STALL_LIMIT, Target};
