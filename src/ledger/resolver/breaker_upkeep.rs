//! Keeps the ledger breaker in line with the evidence: opens it when the database changed, scans the authority's history, and
//! closes it when it may be closed (rule 7).

use std::time::Duration;

use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;
use tokio::time::sleep;

use super::unproven_dead::find_landed;
use crate::chain::Endpoints;
use crate::db::within;
use crate::ledger::breaker::closing::set_closing_height;
use crate::ledger::breaker::heights::{finalized_height, last_possible_height};
use crate::ledger::breaker::history_scan::scan_history;
use crate::ledger::breaker::ledger_row::{LedgerRow, StoredBreaker};
use crate::ledger::breaker::opening::open_if_identity_changed;
use crate::ledger::error::LedgerError;
use crate::periodic::{Periodic, RunError};

/// How often the authority's history is scanned while the ledger breaker is closed.
pub const SCAN_EVERY: Duration = Duration::from_secs(60);
/// A changed database is noticed this soon, also while nothing is signed: the wait that follows it begins then.
const CHECK_IDENTITY_EVERY: Duration = Duration::from_secs(5);
/// An open breaker stops all minting, so it is closed as soon as rule 7 allows.
const CHECK_OPEN_BREAKER_EVERY: Duration = Duration::from_secs(2);

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
}

impl Periodic for BreakerUpkeep {
    async fn run(&mut self) -> Result<(), RunError> {
        self.left = Left::Open;
        self.left = self.round().await?;
        Ok(())
    }

    fn pause(&self) -> Option<Duration> {
        match self.left {
            Left::Open => Some(CHECK_OPEN_BREAKER_EVERY),
            Left::Closed => None,
        }
    }

    /// The database is another one than before, or does not answer, which is how a fail-over begins.
    async fn woken(&mut self) {
        loop {
            sleep(CHECK_IDENTITY_EVERY).await;
            let identity = within(self.limit, open_if_identity_changed(&self.pool)).await;
            if !matches!(identity, Ok(false)) {
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
        if row.breaker == StoredBreaker::Identity {
            let Some(height) = row.breaker_closes_after_height else {
                let height = last_possible_height(endpoints).await?;
                within(limit, set_closing_height(pool, height)).await?;
                return Ok(Left::Open);
            };
            // A scan before that could not close it.
            if finalized_height(endpoints).await? <= height.get() {
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
