//! What mint transactions cost: those under way, and those of the last hours.

use chrono::{DateTime, Utc};
use solana_sdk::pubkey::Pubkey;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::breaker::{self, Breaker, SigningRefused};
use super::{LedgerError, fee_payer};
use crate::chain::TOKEN_ACCOUNT_RENT_LAMPORTS;

/// What the ledger says to somebody who is about to mint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MintingConditions {
    /// Fees and rent of transactions of all processes that may still land, lamports. Two that create the same account count
    /// both: too much rather than too little.
    pub in_flight_lamports: u64,
    /// Nothing may be signed, for this reason: the ledger breaker is open, or the history was never walked.
    pub signing_refused: Option<String>,
    /// Who pays, if a process that mints has told it.
    pub fee_payer: Option<Pubkey>,
}

/// Transactions that a balance read at `slot` does not show yet: those that have not landed, or landed later.
pub async fn minting_conditions(
    pool: &PgPool,
    slot: u64,
) -> Result<MintingConditions, LedgerError> {
    type Row = (i64, String, Option<String>, bool, Option<String>);
    let (in_flight, state, reason, walked, payer): Row = sqlx::query_as(
        "SELECT (
                    SELECT COALESCE(sum(fee_lamports + account_creations * $2), 0)::BIGINT
                    FROM mint_transactions
                    -- The predicate of the index mint_transactions_open.
                    WHERE state IN ('recorded', 'confirmed', 'quarantined')
                      AND (state <> 'confirmed' OR slot > $1)
                ),
                breaker, breaker_reason, watermark_slot > 0, fee_payer
         FROM ledger",
    )
    .bind(slot as i64)
    .bind(TOKEN_ACCOUNT_RENT_LAMPORTS as i64)
    .fetch_one(pool)
    .await?;
    let refused = if state != Breaker::Closed.as_str() {
        Some(SigningRefused::Open {
            reason: reason.unwrap_or(state),
        })
    } else {
        (!walked).then(|| breaker::never_walked(reason))
    };
    let signing_refused = refused.map(|refused| refused.to_string());
    Ok(MintingConditions {
        in_flight_lamports: in_flight.max(0) as u64,
        signing_refused,
        fee_payer: payer.and_then(fee_payer::known),
    })
}

/// What landed in the last hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromRow)]
pub struct Spending {
    pub readings: i64,
    /// Fees, and rent of created token accounts.
    pub lamports: i64,
    /// When the first of these transactions was recorded.
    pub since: Option<DateTime<Utc>>,
    /// There were more of them in these hours than were looked at: what was spent was spent since `since`.
    pub only_the_newest: bool,
}

/// Mint transactions that are looked at, the newest: bounds the work, and under a load that makes more of them in these
/// hours the newest tell the present rate better anyway.
const TRANSACTIONS_LOOKED_AT: i64 = 2_000;

/// What was spent in the last six hours.
pub async fn recent_spending(pool: &PgPool) -> sqlx::Result<Spending> {
    sqlx::query_as(
        "WITH newest AS MATERIALIZED (
             SELECT number, recorded_at, fee_lamports, account_creations, state
             FROM mint_transactions
             ORDER BY number DESC
             LIMIT $2
         ), recent AS MATERIALIZED (
             SELECT number, recorded_at, fee_lamports + account_creations * $1 AS lamports
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
                    SELECT count(*) = $2
                           AND COALESCE(min(recorded_at) > now() - INTERVAL '6 hours', FALSE)
                    FROM newest
                ) AS only_the_newest
         FROM recent",
    )
    .bind(TOKEN_ACCOUNT_RENT_LAMPORTS as i64)
    .bind(TRANSACTIONS_LOOKED_AT)
    .fetch_one(pool)
    .await
}

/// Says on these readings why they wait although nothing is wrong with them. Uses no attempt and changes no state.
pub async fn note_waiting(pool: &PgPool, readings: &[Uuid], reason: &str) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE readings
         SET last_error = $2
         WHERE id = ANY($1)
           AND state = 'pending'
           AND last_error IS DISTINCT FROM $2",
    )
    .bind(readings)
    .bind(reason)
    .execute(pool)
    .await?;
    Ok(())
}
