//! Jobs that can never be run end visibly dead: status `Killed`, the reason in `last_result`, counted by their cause.
//!
//! Most of them reach a handler, which gives up on them ([`give_up`]). A row that apalis cannot even read (an id that is no
//! ULID, a moment before 1970, a key without a value in its metadata) ends every worker that fetches it, together with its
//! batch; [`bury_unreadable_rows`] takes such rows out of the queue before a worker starts, so also after it ended so.

use apalis::prelude::BoxDynError;
use apalis_core::error::AbortError;
use sqlx::PgPool;

use crate::outbox::JobKind;
use crate::telemetry::names;

/// Why a job can never be run: the values of the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CauseOfDeath {
    UnreadableRow,
    UnreadablePayload,
    UnknownReading,
}

impl CauseOfDeath {
    fn label(self) -> &'static str {
        match self {
            CauseOfDeath::UnreadableRow => "unreadable_row",
            CauseOfDeath::UnreadablePayload => "unreadable_payload",
            CauseOfDeath::UnknownReading => "unknown_reading",
        }
    }

    fn count(self, jobs: u64) {
        metrics::counter!(names::QUEUE_DEAD_JOBS, "cause" => self.label()).increment(jobs);
    }
}

/// Ends a job for good: apalis stores it as `Killed`, with this reason.
pub(super) fn give_up(kind: JobKind, job: &str, cause: CauseOfDeath, reason: &str) -> BoxDynError {
    tracing::error!(
        kind = kind.as_str(),
        job,
        reason,
        "a job is dead: it can never be run"
    );
    cause.count(1);
    Box::new(AbortError::new(reason))
}

/// Ends the rows of one queue that apalis cannot read, and puts right what is odd in them, so that they can be shown: the
/// reason tells what it was. Returns their number.
pub(super) async fn bury_unreadable_rows(pool: &PgPool, kind: JobKind) -> sqlx::Result<u64> {
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
                        WHEN id_is_odd THEN 'its id ' || to_json(left(id, 80))::TEXT || ' is no ULID'
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
    .bind(kind.as_str())
    .fetch_all(pool)
    .await?;
    for reason in &reasons {
        tracing::error!(
            kind = kind.as_str(),
            reason,
            "a job is dead: the queue cannot read its row"
        );
    }
    CauseOfDeath::UnreadableRow.count(reasons.len() as u64);
    Ok(reasons.len() as u64)
}
