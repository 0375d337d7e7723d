//! Adds up the cost of the last six hours.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool};

use crate::db::BigInt;

/// Readings and costs of the last six hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromRow)]
pub struct Spending {
    #[sqlx(try_from = "BigInt")]
    pub readings: u64,
    /// Fees, and rent of created token accounts.
    #[sqlx(try_from = "BigInt")]
    pub lamports: u64,
    /// When the first of these transactions was recorded.
    pub since: Option<DateTime<Utc>>,
    /// There were more transactions in these hours than were read: the sums are those since `since`.
    pub only_the_newest: bool,
}

/// Mint transactions that are read at most, the newest: bounds the work. Under a load that makes more of them in these hours, the
/// newest show the present rate better anyway.
const TRANSACTIONS_MAX: i64 = 2_000;

/// Reads the spending of the last six hours.
pub async fn recent_spending(pool: &PgPool) -> sqlx::Result<Spending> {
    sqlx::query_as(
        "WITH newest AS MATERIALIZED (
             SELECT number, recorded_at, state,
                    -- As charged, or as booked until the charge was read.
                    COALESCE(fee_lamports_charged, fee_lamports)
                        + COALESCE(rent_lamports_charged,
                                   booked_rent_lamports(account_creations, token_account_rent_lamports)) AS lamports
             FROM mint_transactions
             ORDER BY number DESC
             LIMIT $1
         ), recent AS MATERIALIZED (
             SELECT number, recorded_at, lamports
             FROM newest
             WHERE state IN ('confirmed', 'finalized')
               AND recorded_at > now() - INTERVAL '6 hours'
         )
         SELECT (
                    SELECT count(*)
                    FROM mint_transaction_readings AS link
                    JOIN recent ON recent.number = link.transaction
                ) AS readings,
                COALESCE(sum(lamports), 0)::BIGINT AS lamports,
                min(recorded_at) AS since,
                (
                    SELECT count(*) = $1
                           AND COALESCE(min(recorded_at) > now() - INTERVAL '6 hours', FALSE)
                    FROM newest
                ) AS only_the_newest
         FROM recent",
    )
    .bind(TRANSACTIONS_MAX)
    .fetch_one(pool)
    .await
}
