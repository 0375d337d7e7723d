//! Whether an endpoint's list is the whole history: each check refuses one that hides a part.

use std::time::Duration;

use sqlx::PgPool;

use super::scan_progress::{self, ScanProgress};
use crate::chain::{ChainError, Endpoint, UnusableAnswer};
use crate::db::within;
use crate::domain::BaseUnits;
use crate::ledger::error::LedgerError;

/// The walk counts only if it listed what the ledger holds as finalized: an endpoint that lists nothing, or a part, hides what
/// the ledger lacks, too.
pub(super) async fn check_listed(
    pool: &PgPool,
    limit: Duration,
    endpoint: &Endpoint,
    progress: &ScanProgress,
) -> Result<(), LedgerError> {
    let Some(missing) = within(limit, progress.not_listed(pool)).await? else {
        return Ok(());
    };
    within(limit, scan_progress::restart(pool)).await?;
    Err(LedgerError::Chain(ChainError::Unusable {
        endpoint: endpoint.name().to_owned(),
        reason: UnusableAnswer::HistoryLacks {
            number: missing.number.unsigned_abs(),
            oldest: missing.signature,
            slot: missing.slot.get(),
        },
    }))
}

/// Holders may burn tokens, so there may be fewer than were minted, never more.
pub(super) async fn check_supply(
    pool: &PgPool,
    endpoint: &Endpoint,
    supply: BaseUnits,
) -> Result<(), LedgerError> {
    let known = scan_progress::accounted_for(pool).await?;
    if supply.to_decimal() <= known {
        return Ok(());
    }
    // Another endpoint may show more: the next scan begins at the head, and anew in search of the mint's creation.
    scan_progress::restart(pool).await?;
    Err(LedgerError::Chain(ChainError::Unusable {
        endpoint: endpoint.name().to_owned(),
        reason: UnusableAnswer::SupplyAboveHistory { supply, known },
    }))
}

/// A node that has lost blocks above the watermark would show a history without the transactions in them.
pub(super) async fn check_history(
    endpoint: &Endpoint,
    watermark_slot: u64,
) -> Result<(), ChainError> {
    let oldest = endpoint.first_available_slot().await?;
    if oldest <= watermark_slot + 1 {
        return Ok(());
    }
    Err(ChainError::Unusable {
        endpoint: endpoint.name().to_owned(),
        reason: UnusableAnswer::HistoryBeginsLate {
            oldest_slot: oldest,
            watermark_slot,
        },
    })
}
