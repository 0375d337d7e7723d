//! Reads what minting needs from the ledger: signing permission, funds in flight, fee payer.

use solana_sdk::pubkey::Pubkey;
use sqlx::{FromRow, PgPool};

use super::fee_payer;
use crate::db::BigInt;
use crate::domain::{LedgerBreakerState, SigningRefused};
use crate::ledger::breaker::ledger_row::StoredBreaker;
use crate::ledger::breaker::scan_request::ScanRequest;
use crate::ledger::breaker::scan_view::HistoryScanView;
use crate::ledger::breaker::signing::{history_not_scanned, scan_pending};
use crate::ledger::error::LedgerError;

/// The conditions of minting at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MintingConditions {
    /// Fees and rent of transactions of all processes that may still land, lamports. Two that create the same account count
    /// both: too much rather than too little.
    pub in_flight_lamports: u64,
    /// Set while the ledger breaker is open, or when the history was never scanned.
    pub signing_refused: Option<SigningRefused>,
    /// The address that pays, if a process that mints has stored it.
    pub fee_payer: Option<Pubkey>,
    /// The reason for which the knowledge of the chain is old, if it is.
    pub stale_history: Option<String>,
}

#[derive(FromRow)]
struct StoredConditions {
    in_flight_lamports: BigInt,
    #[sqlx(try_from = "String")]
    breaker: StoredBreaker,
    breaker_reason: Option<String>,
    history_scanned: bool,
    fee_payer: Option<String>,
}

/// `scan_request`: of this process, if it signs. In flight counts what a balance read at `slot` does not show yet:
/// transactions that have not landed, or landed later.
pub async fn minting_conditions(
    pool: &PgPool,
    slot: u64,
    scan_request: Option<ScanRequest>,
) -> Result<MintingConditions, LedgerError> {
    let row: StoredConditions = sqlx::query_as(
        "SELECT (
                    SELECT COALESCE(
                        sum(fee_lamports + booked_rent_lamports(account_creations, token_account_rent_lamports)), 0
                    )::BIGINT
                    FROM mint_transactions
                    -- The predicate of the index mint_transactions_open.
                    WHERE state IN ('recorded', 'confirmed', 'quarantined')
                      AND (state <> 'confirmed' OR slot > $1)
                ) AS in_flight_lamports,
                breaker, breaker_reason, watermark_slot > 0 AS history_scanned, fee_payer
         FROM ledger",
    )
    .bind(BigInt::from(slot))
    .fetch_one(pool)
    .await?;
    let signing_refused = match row.breaker.state(row.breaker_reason.clone()) {
        LedgerBreakerState::Open { reason } => Some(SigningRefused::BreakerOpen(reason)),
        LedgerBreakerState::Closed if !row.history_scanned => {
            Some(history_not_scanned(row.breaker_reason))
        }
        LedgerBreakerState::Closed => match scan_request {
            Some(scan_request) => scan_pending(pool, scan_request).await?,
            None => None,
        },
    };
    let history = HistoryScanView::read(pool).await?;
    Ok(MintingConditions {
        in_flight_lamports: row.in_flight_lamports.get(),
        signing_refused,
        fee_payer: row.fee_payer.and_then(fee_payer::parse),
        stale_history: history.and_then(|history| history.staleness()),
    })
}

/// The highest slot in which the ledger knows a payment to be final; 0 if there is none. An endpoint whose finalized slot is
/// lower has not seen all of them.
pub async fn newest_finalized_slot(pool: &PgPool) -> Result<u64, LedgerError> {
    let slot: Option<BigInt> = sqlx::query_scalar(
        "SELECT max(slot)
         FROM mint_transactions
         WHERE state = 'finalized'",
    )
    .fetch_one(pool)
    .await?;
    Ok(slot.unwrap_or_default().get())
}
