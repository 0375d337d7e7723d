//! The play of `make run`: a year of one real household's solar energy, reported by as many meters as the year has days.
//!
//! Invariant: every reading of the data file that has energy in it is reported once, as the digits of the file say, for an
//! interval that never changes. The clock of the file is moved by one offset that is kept with the data directory, and the
//! meters' keys are drawn from a seed that is kept there too: a later start reports the same readings again, is answered
//! `duplicate`, and counts them as accepted.
//!
//! The play is a client like any other. It reports over REST, one reading a request, and learns over the event feed what
//! became of it; nothing here touches the database or the chain.
//!
//! `submit_to_minted` is the time from the first call of `submit-reading` for a reading to the moment that its
//! `TokensMinted` event names, retries included: when the service wrote down that the chain had confirmed it. A reading
//! that an earlier run had reported already is not measured.

mod data_file;
mod performance;
mod schedule;
mod screen;
mod service;
mod tally;
mod wallets;

pub use data_file::{DataFileError, Day, PlannedReading, readings_of};
pub use performance::{Outcome, Play, PlayError, STALL_LIMIT, Stage};
pub use schedule::{Calendar, Speed};
pub use service::{Service, ServiceError};
pub use tally::{Counts, LatencyMs};

/// Owner of the play's meters and subject of its tokens.
pub const PLAYER: &str = "ausgrid-12";
