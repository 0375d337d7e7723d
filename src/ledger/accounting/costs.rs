//! Adds up the cost of everything that landed.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use sqlx::{FromRow, PgPool};

use crate::db::BigInt;
use crate::domain::{TransactionFormat, signed_bytes};
use crate::ledger::error::LedgerError;

/// Everything that landed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// Mint transactions that are confirmed or finalized.
    pub transactions: u64,
    /// Readings that they pay.
    pub readings: u64,
    /// Their fees, and the rent of the token accounts that they created: as charged, or as booked until the charge was read.
    pub lamports: u64,
    /// Format of the newest of them; `None` before the first.
    pub newest_format: Option<TransactionFormat>,
}

#[derive(FromRow)]
struct Totals {
    transactions: BigInt,
    readings: BigInt,
    fee_lamports: Decimal,
    /// Of the newest transaction's bytes.
    newest_begins: Option<Vec<u8>>,
    rent_lamports_charged: Decimal,
    #[sqlx(flatten)]
    uncharged: UnchargedRent,
}

/// The rent of transactions whose charge was not read yet.
#[derive(Clone, Copy, FromRow)]
struct UnchargedRent {
    rent_lamports_booked: Decimal,
    creations_booked: BigInt,
    /// Wallets that were ever paid, without the accounts whose rent is known to be charged.
    wallets: BigInt,
}

impl UnchargedRent {
    /// Two transactions that were built concurrently may both include the creation of an account, and only one of them paid it:
    /// no more accounts were created than wallets were paid.
    fn lamports(self) -> Decimal {
        let (creations, wallets) = (self.creations_booked.get(), self.wallets.get());
        if creations <= wallets {
            return self.rent_lamports_booked;
        }
        self.rent_lamports_booked * Decimal::from(wallets) / Decimal::from(creations)
    }
}

/// Adds up the whole ledger.
pub async fn costs(pool: &PgPool) -> Result<Costs, LedgerError> {
    let totals: Totals = sqlx::query_as(
        "WITH landed AS MATERIALIZED (
             SELECT number, account_creations, rent_lamports_charged, token_account_rent_lamports,
                    COALESCE(fee_lamports_charged, fee_lamports) AS fee_lamports,
                    booked_rent_lamports(account_creations, token_account_rent_lamports) AS rent_lamports_booked
             FROM mint_transactions
             WHERE state IN ('confirmed', 'finalized')
         ), summed AS (
             SELECT COALESCE(sum(fee_lamports), 0)::NUMERIC AS fee_lamports,
                    COALESCE(sum(rent_lamports_charged), 0)::NUMERIC AS rent_lamports_charged,
                    COALESCE(sum(rent_lamports_charged / NULLIF(token_account_rent_lamports, 0)), 0)::BIGINT
                        AS creations_charged,
                    COALESCE(sum(rent_lamports_booked) FILTER (WHERE rent_lamports_charged IS NULL), 0)::NUMERIC
                        AS rent_lamports_booked,
                    COALESCE(sum(account_creations) FILTER (WHERE rent_lamports_charged IS NULL), 0)::BIGINT
                        AS creations_booked
             FROM landed
         ), paid AS (
             SELECT count(DISTINCT landed.number) AS transactions, count(reading.id) AS readings,
                    count(DISTINCT reading.wallet) AS wallets
             FROM landed
             JOIN mint_transaction_readings AS link
               ON link.transaction = landed.number
              AND link.live
             JOIN readings AS reading ON reading.id = link.reading
         )
         SELECT summed.*, paid.transactions, paid.readings,
                GREATEST(paid.wallets - summed.creations_charged, 0) AS wallets,
                (
                    SELECT substr(wire, 1, 1)
                    FROM mint_transactions
                    WHERE state IN ('confirmed', 'finalized')
                    ORDER BY number DESC
                    LIMIT 1
                ) AS newest_begins
         FROM summed
         CROSS JOIN paid",
    )
    .fetch_one(pool)
    .await?;
    let rent = totals.rent_lamports_charged + totals.uncharged.lamports();
    let lamports = totals.fee_lamports + rent;
    Ok(Costs {
        transactions: totals.transactions.get(),
        readings: totals.readings.get(),
        // More lamports than exist do not occur.
        lamports: lamports.to_u64().unwrap_or(u64::MAX),
        newest_format: totals
            .newest_begins
            .map(|begins| signed_bytes::format_of(&begins)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_two_transactions_include_is_paid_once() {
        let uncharged = |creations: u64, wallets: u64| UnchargedRent {
            rent_lamports_booked: Decimal::from(creations * 1_000),
            creations_booked: creations.into(),
            wallets: wallets.into(),
        };
        assert_eq!(uncharged(0, 0).lamports(), Decimal::ZERO);
        assert_eq!(uncharged(3, 7).lamports(), Decimal::from(3_000));
        assert_eq!(uncharged(9, 7).lamports(), Decimal::from(7_000));
    }
}
