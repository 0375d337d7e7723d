//! How far the search for proofs is, for metrics and the status page.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgExecutor};

/// Expired transactions without a proof, and what was read for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromRow)]
pub struct ProofProgress {
    /// Expired, neither found on chain nor proven dead; quarantined ones are included.
    pub unproven: i64,
    /// When the oldest of these expired.
    pub oldest_expired_at: Option<DateTime<Utc>>,
    /// Why the last search for one of them did not complete: of the one that expired last.
    pub no_proof: Option<String>,
    /// Runs of finalized blocks that are kept.
    pub runs: i64,
}

impl ProofProgress {
    pub async fn read<'c>(executor: impl PgExecutor<'c>) -> sqlx::Result<ProofProgress> {
        sqlx::query_as(
            "SELECT count(*) AS unproven, min(expired_at) AS oldest_expired_at,
                    (array_agg(no_proof ORDER BY expired_at DESC) FILTER (WHERE no_proof IS NOT NULL))[1] AS no_proof,
                    (SELECT count(*) FROM scanned_runs) AS runs
             FROM late_transactions
             JOIN mint_transactions USING (number)
             WHERE expired_at IS NOT NULL
               AND state IN ('recorded', 'quarantined')",
        )
        .fetch_one(executor)
        .await
    }
}
