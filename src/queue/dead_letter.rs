//! Dead letters: jobs that can never run end visibly, with status `Killed`, the reason in `last_result`, and a count by reason.
//!
//! Most of them reach a handler, which ends them ([`dead_letter`]). A row that apalis cannot even read (an id that is not a
//! ULID, a time before 1970, a metadata key without a value) ends every worker that fetches it, together with the jobs
//! fetched together with it. [`reject_unreadable_rows`] takes such rows out of the queue before a worker starts, so also before a
//! worker that ended because of one starts again.

use apalis::prelude::BoxDynError;
use apalis_core::error::AbortError;
use sqlx::PgPool;

use crate::telemetry::names;

/// The reason for which a job can never run: the values of the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeadLetterReason {
    UnreadableRow,
    UnreadablePayload,
    UnknownReading,
}

impl DeadLetterReason {
    fn label(self) -> &'static str {
        match self {
            DeadLetterReason::UnreadableRow => "unreadable_row",
            DeadLetterReason::UnreadablePayload => "unreadable_payload",
            DeadLetterReason::UnknownReading => "unknown_reading",
        }
    }

    fn count(self, jobs: u64) {
        metrics::counter!(names::QUEUE_DEAD_JOBS, "cause" => self.label()).increment(jobs);
    }
}

/// Ends a job permanently: apalis stores it as `Killed` with this detail.
pub(super) fn dead_letter(
    job_type: &'static str,
    job: &str,
    reason: DeadLetterReason,
    detail: &str,
) -> BoxDynError {
    tracing::error!(
        kind = job_type,
        job,
        reason = detail,
        "job dead-lettered: it can never run"
    );
    reason.count(1);
    Box::new(AbortError::new(detail))
}

/// Ends the rows of one queue that apalis cannot read, and replaces their unreadable values so that the rows can be shown;
/// the stored reason says what was wrong. Returns their number.
pub(super) async fn reject_unreadable_rows(
    pool: &PgPool,
    job_type: &'static str,
) -> sqlx::Result<u64> {
    let reasons: Vec<String> = sqlx::query_scalar(
        "UPDATE apalis.jobs AS job
         SET status = 'Killed',
             id = CASE WHEN odd.id_is_odd THEN apalis.generate_ulid() ELSE job.id END,
             run_at = GREATEST(job.run_at, TIMESTAMPTZ 'epoch'),
             done_at = now(),
             metadata = CASE WHEN odd.metadata_is_odd THEN NULL ELSE job.metadata END,
             lock_by = NULL,
             lock_at = NULL,
             last_result = jsonb_build_object('Err', 'the queue cannot read this row: ' || odd.reason)
         FROM (
             SELECT id,
                    id_is_odd,
                    metadata_is_odd,
                    CASE
                        WHEN id_is_odd THEN 'its id ' || to_json(left(id, 80))::TEXT || ' is not a ULID'
                        WHEN metadata_is_odd THEN 'its metadata has a key without a value'
                        WHEN run_at < TIMESTAMPTZ 'epoch' THEN 'its run_at lies before 1970'
                        WHEN done_at < TIMESTAMPTZ 'epoch' THEN 'its done_at lies before 1970'
                    END AS reason
             FROM (
                 SELECT id, run_at, done_at,
                        id !~* '^[0-9A-HJKMNP-TV-Z]{26}$' AS id_is_odd,
                        EXISTS (SELECT FROM each(metadata) AS pair WHERE pair.value IS NULL) AS metadata_is_odd
                 FROM apalis.jobs
                 WHERE job_type = $1
                   -- The predicate of the index idx_apalis_jobs_fetch_partial: what a worker would fetch.
                   AND (status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts))
             ) AS waiting
         ) AS odd
         WHERE job.id = odd.id
           AND odd.reason IS NOT NULL
           AND job.status IN ('Pending', 'Failed')
         RETURNING odd.reason",
    )
    .bind(job_type)
    .fetch_all(pool)
    .await?;
    for reason in &reasons {
        tracing::error!(
            kind = job_type,
            reason,
            "job dead-lettered: the queue cannot read its row"
        );
    }
    let rejected = u64::try_from(reasons.len()).unwrap_or(u64::MAX);
    DeadLetterReason::UnreadableRow.count(rejected);
    Ok(rejected)
}
