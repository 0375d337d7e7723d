//! Keeps the ledger breaker in line with the evidence: opens it when the database changed, scans the authority's history, and
//! closes it when it may be closed (rule 7).

use std::time::Duration;

use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;
use tokio::time::sleep;

use super::unproven_dead::find_landed;
use crate::chain::{ChainError, Endpoints};
use crate::db::within;
use crate::domain::Backoff;
use crate::ledger::breaker::closing::set_closing_height;
use crate::ledger::breaker::heights::{finalized_height, last_possible_height};
use crate::ledger::breaker::history_scan::scan_history;
use crate::ledger::breaker::ledger_row::{LedgerRow, StoredBreaker};
use crate::ledger::breaker::opening::open_if_identity_changed;
use crate::ledger::breaker::scan_request::scan_is_wanted;
use crate::ledger::error::LedgerError;
use crate::periodic::{Periodic, RunError};

/// How often the authority's history is scanned while the ledger breaker is closed.
pub const SCAN_EVERY: Duration = Duration::from_secs(60);
/// A changed database is noticed this soon, even while nothing is signed: the wait that follows it begins then.
/// So is a process that waits for a scan before it signs.
const CHECK_DATABASE_EVERY: Duration = Duration::from_secs(2);
/// An open breaker stops all minting, so it is closed as soon as rule 7 allows.
const CHECK_OPEN_BREAKER_EVERY: Duration = Duration::from_secs(2);
/// After a failed scan: an error that lasts is checked ever more rarely, and no less often than a scan is due anyway.
const SCAN_FAILURE_BACKOFF: Backoff = Backoff::doubling(CHECK_OPEN_BREAKER_EVERY, SCAN_EVERY);

/// Checks the database and the breaker, and scans the history when a scan is due.
pub struct BreakerUpkeep {
    pub pool: PgPool,
    pub endpoints: Endpoints,
    pub mint: Pubkey,
    pub authority: Pubkey,
    /// Bounds one transaction of the database; a scan may be long.
    pub limit: Duration,
    /// By the last round. One that failed may have left it open.
    pub left: Left,
}

/// The state in which a round left the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Open,
    Closed,
    /// The scan stopped before its end, so often in a row.
    Failed(u32),
    /// An endpoint's limit interrupted the scan, for this long. It continues where it was, and this is not a failure.
    Paused(Duration),
}

impl Periodic for BreakerUpkeep {
    async fn run(&mut self) -> Result<(), RunError> {
        let outcome = self.round().await;
        self.left = match &outcome {
            Ok(left) => *left,
            Err(LedgerError::Chain(ChainError::RateLimited { wait, .. })) => {
                Left::Paused((*wait).clamp(CHECK_OPEN_BREAKER_EVERY, SCAN_EVERY))
            }
            Err(_) => Left::Failed(match self.left {
                Left::Failed(failures) => failures.saturating_add(1),
                Left::Open | Left::Closed | Left::Paused(_) => 1,
            }),
        };
        outcome?;
        Ok(())
    }

    fn pause(&self) -> Option<Duration> {
        match self.left {
            Left::Open => Some(CHECK_OPEN_BREAKER_EVERY),
            Left::Closed => None,
            Left::Failed(failures) => Some(SCAN_FAILURE_BACKOFF.exact_delay(failures)),
            Left::Paused(pause) => Some(pause),
        }
    }

    /// The database is another one than before, or does not answer, which is how a fail-over begins; or a process that has just
    /// started waits for a scan. That does not cut the pause after a failure short: the scan would fail again.
    async fn woken(&mut self) {
        loop {
            sleep(CHECK_DATABASE_EVERY).await;
            let identity = within(self.limit, open_if_identity_changed(&self.pool)).await;
            if !matches!(identity, Ok(false)) {
                return;
            }
            let wanted = within(self.limit, scan_is_wanted(&self.pool)).await;
            if self.left == Left::Closed && matches!(wanted, Ok(true)) {
                return;
            }
        }
    }
}

impl BreakerUpkeep {
    async fn round(&self) -> Result<Left, LedgerError> {
        let (pool, endpoints, limit) = (&self.pool, &self.endpoints, self.limit);
        within(limit, open_if_identity_changed(pool)).await?;
        let row = within(limit, LedgerRow::read(pool)).await?;
        if row.snapshot.breaker == StoredBreaker::Identity {
            let genesis = row.genesis()?;
            let Some(height) = row.snapshot.breaker_closes_after_height else {
                let height = last_possible_height(endpoints, &genesis).await?;
                within(limit, set_closing_height(pool, height)).await?;
                return Ok(Left::Open);
            };
            // A scan before that could not close it.
            if finalized_height(endpoints, &genesis).await? <= height.get() {
                return Ok(Left::Open);
            }
        }
        let (mint, authority) = (&self.mint, &self.authority);
        let found_dead = find_landed(pool, endpoints, mint, authority, limit).await;
        let scanned = scan_history(pool, endpoints, mint, authority, limit).await?;
        found_dead?;
        Ok(if scanned.breaker.is_closed() {
            Left::Closed
        } else {
            Left::Open
        })
    }
}
