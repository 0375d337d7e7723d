//! A stored reading, and what its caller is answered.

use uuid::Uuid;

use crate::domain::{BaseUnits, Interval, Kwh, ReadingState};

/// The answer for a reading that is stored, now or before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub reading_id: Uuid,
    /// It was stored before.
    pub duplicate: bool,
    pub state: ReadingState,
    pub base_units: BaseUnits,
}

/// A reading that is stored, or will be if its batch commits.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) id: Uuid,
    pub(super) interval: Interval,
    pub(super) kwh: Kwh,
    pub(super) state: ReadingState,
    pub(super) base_units: BaseUnits,
}

impl Stored {
    /// The answer to the submission that is stored by this batch.
    pub(super) fn as_new(&self) -> Accepted {
        Accepted {
            reading_id: self.id,
            duplicate: false,
            state: self.state,
            base_units: self.base_units,
        }
    }

    /// The answer to a submission that repeats this reading.
    pub(super) fn as_duplicate(&self) -> Accepted {
        Accepted {
            duplicate: true,
            ..self.as_new()
        }
    }
}
