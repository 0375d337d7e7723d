//! Requests for a scan of the history, numbered: a process that has just started signs once a scan that began after its request
//! is finished.
//!
//! Invariant: a scan notes the last request before it reads the chain, and covers that one and those before it. No time is
//! compared: a clock that jumps lets no process sign early.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::sleep;

/// A scan of a short history takes some calls, that is about a second.
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// The number of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct ScanRequest(i64);

/// Requests a scan from the holder of the resolver's lock.
pub(super) async fn request_scan(pool: &PgPool) -> sqlx::Result<ScanRequest> {
    sqlx::query_scalar(
        "UPDATE history_scan
         SET wanted = wanted + 1
         RETURNING wanted",
    )
    .fetch_one(pool)
    .await
}

/// Whether a process waits for a scan that no finished one covers.
pub async fn scan_is_wanted(pool: &PgPool) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT wanted > known FROM history_scan")
        .fetch_one(pool)
        .await
}

impl ScanRequest {
    /// Returns once a scan that began after it is finished, or while the database does not answer, once it does and says so.
    pub async fn until_covered(self, pool: &PgPool) {
        loop {
            match self.is_covered(pool).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "whether the history was scanned could not be read");
                }
            }
            sleep(CHECK_EVERY).await;
        }
    }

    /// Whether a scan that began after it is finished. A database that went back in time has lost the request: it is made again.
    pub(super) async fn is_covered(self, pool: &PgPool) -> sqlx::Result<bool> {
        let (known, wanted): (i64, i64) = sqlx::query_as("SELECT known, wanted FROM history_scan")
            .fetch_one(pool)
            .await?;
        if wanted < self.0 {
            sqlx::query("UPDATE history_scan SET wanted = $1 WHERE wanted < $1")
                .bind(self.0)
                .execute(pool)
                .await?;
        }
        Ok(known >= self.0)
    }
}
