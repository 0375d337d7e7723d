//! `MintReading`: mint one reading.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::job::{Job, NewJob};

/// Runs at least once for each reading; the ledger decides whether there is anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MintReading {
    pub reading_id: Uuid,
}

impl Job for MintReading {
    const NAME: &'static str = "MintReading";
}

impl MintReading {
    /// The reading's own job, due at once.
    pub fn now(reading_id: Uuid) -> NewJob {
        MintReading::due(reading_id, None)
    }

    /// The reading's own job. Its key is the reading's id, so a reading has one such job at a time. `run_at`: `None` is now.
    pub fn due(reading_id: Uuid, run_at: Option<DateTime<Utc>>) -> NewJob {
        NewJob::new(&MintReading { reading_id }, reading_id.to_string()).due(run_at)
    }

    /// A job beside the reading's own, due at once. `cause` says why and occurs once for a reading. The reading's own job may
    /// be running now, or wait for a backoff that no longer counts; the ledger accepts the reading once.
    pub fn because(reading_id: Uuid, cause: &str) -> NewJob {
        NewJob::new(&MintReading { reading_id }, format!("{reading_id}:{cause}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_bytes_do_not_change() {
        let reading_id = Uuid::from_u128(7);
        let own = MintReading::now(reading_id);
        assert_eq!(own.job_type(), "MintReading");
        assert_eq!(own.key(), "00000000-0000-0000-0000-000000000007");
        assert_eq!(
            own.payload(),
            br#"{"reading_id":"00000000-0000-0000-0000-000000000007"}"#
        );
        let beside = MintReading::because(reading_id, "retry-3");
        assert_eq!(beside.key(), "00000000-0000-0000-0000-000000000007:retry-3");
        assert_eq!(beside.payload(), own.payload());
    }
}
