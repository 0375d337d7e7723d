//! What was paid for how much.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use sqlx::{FromRow, PgPool};

use super::LedgerError;
use super::settle::TOKEN_ACCOUNT_RENT_LAMPORTS;

/// Everything that landed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// Mint transactions that are confirmed or finalized.
    pub transactions: u64,
    /// Readings that they pay.
    pub readings: u64,
    /// Their fees, and the rent of the token accounts that they were built to create.
    pub lamports: u64,
}

#[derive(FromRow)]
struct Totals {
    transactions: i64,
    readings: i64,
    fee_lamports: Decimal,
    account_creations: i64,
}

/// Adds up the whole ledger.
pub async fn costs(pool: &PgPool) -> Result<Costs, LedgerError> {
    let totals: Totals = sqlx::query_as(
        "SELECT count(*) AS transactions,
                COALESCE(sum(paid.readings), 0)::BIGINT AS readings,
                COALESCE(sum(mint_transaction.fee_lamports), 0)::NUMERIC AS fee_lamports,
                COALESCE(sum(mint_transaction.account_creations), 0)::BIGINT AS account_creations
         FROM mint_transactions AS mint_transaction
         CROSS JOIN LATERAL (
             SELECT count(*) AS readings
             FROM mint_transaction_readings AS link
             WHERE link.transaction = mint_transaction.number AND link.live
         ) AS paid
         WHERE mint_transaction.state IN ('confirmed', 'finalized')",
    )
    .fetch_one(pool)
    .await?;
    let rent = Decimal::from(totals.account_creations) * Decimal::from(TOKEN_ACCOUNT_RENT_LAMPORTS);
    let lamports = totals.fee_lamports + rent;
    Ok(Costs {
        transactions: totals.transactions.unsigned_abs(),
        readings: totals.readings.unsigned_abs(),
        // More lamports than exist do not occur.
        lamports: lamports.to_u64().unwrap_or(u64::MAX),
    })
}
