//! `TriggerBatch`: run one slice of a batch that an admin requested.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::job::{Job, NewJob};

/// Everything else is in the batch's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerBatch {
    pub batch_id: Uuid,
}

impl Job for TriggerBatch {
    const NAME: &'static str = "TriggerBatch";
}

impl TriggerBatch {
    /// The job of one slice; the run that ends a slice enqueues the next slice's job. `batches::requeue_stranded` finds the job of a
    /// batch by the same key.
    pub fn slice(batch_id: Uuid, slice: i32) -> NewJob {
        NewJob::new(&TriggerBatch { batch_id }, format!("{batch_id}:{slice}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_bytes_do_not_change() {
        let job = TriggerBatch::slice(Uuid::from_u128(7), 0);
        assert_eq!(job.job_type(), "TriggerBatch");
        assert_eq!(job.key(), "00000000-0000-0000-0000-000000000007:0");
        assert_eq!(
            job.payload(),
            br#"{"batch_id":"00000000-0000-0000-0000-000000000007"}"#
        );
    }
}
