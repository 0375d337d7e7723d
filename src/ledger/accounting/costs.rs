//! What everything that landed has cost.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use sqlx::{FromRow, PgPool};

use crate::chain::TOKEN_ACCOUNT_RENT_LAMPORTS;
use crate::db::BigInt;
use crate::ledger::error::LedgerError;

/// Everything that landed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// Mint transactions that are confirmed or finalized.
    pub transactions: u64,
    /// Readings that they pay.
    pub readings: u64,
    /// Their fees, and the rent of the token accounts that they created.
    pub lamports: u64,
}

#[derive(FromRow)]
struct Totals {
    transactions: BigInt,
    readings: BigInt,
    fee_lamports: Decimal,
    account_creations: BigInt,
}

/// Adds up the whole ledger.
pub async fn costs(pool: &PgPool) -> Result<Costs, LedgerError> {
    let totals: Totals = sqlx::query_as(
        // Two transactions that were built concurrently may both include the creation of an account: only one of them paid it.
        "SELECT count(DISTINCT mint_transaction.number) AS transactions,
                count(reading.id) AS readings,
                (
                    SELECT COALESCE(sum(landed.fee_lamports), 0)::NUMERIC
                    FROM mint_transactions AS landed
                    WHERE landed.state IN ('confirmed', 'finalized')
                ) AS fee_lamports,
                LEAST(
                    (
                        SELECT COALESCE(sum(landed.account_creations), 0)
                        FROM mint_transactions AS landed
                        WHERE landed.state IN ('confirmed', 'finalized')
                    ),
                    count(DISTINCT reading.wallet)
                ) AS account_creations
         FROM mint_transactions AS mint_transaction
         JOIN mint_transaction_readings AS link
           ON link.transaction = mint_transaction.number
          AND link.live
         JOIN readings AS reading ON reading.id = link.reading
         WHERE mint_transaction.state IN ('confirmed', 'finalized')",
    )
    .fetch_one(pool)
    .await?;
    let rent =
        Decimal::from(totals.account_creations.get()) * Decimal::from(TOKEN_ACCOUNT_RENT_LAMPORTS);
    let lamports = totals.fee_lamports + rent;
    Ok(Costs {
        transactions: totals.transactions.get(),
        readings: totals.readings.get(),
        // More lamports than exist do not occur.
        lamports: lamports.to_u64().unwrap_or(u64::MAX),
    })
}
