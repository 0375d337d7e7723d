//! Rule 7: the ledger breaker, one row that all processes share. While it is open nothing new is signed.
//!
//! Invariant: a mint transaction is recorded only in a database that the ledger knows, and only while the breaker is closed;
//! both are read in the very transaction that records it. It opens by itself when the database is another one than before or
//! its server was restarted (the ledger may lack what an earlier one has sent), or when a landed mint is found that the ledger
//! lacks or holds as dead.
//!
//! After a change of the database it closes by itself, once nothing that was signed before can land any more and everything
//! that landed is known. After a mismatch a person has to deal with each foreign mint first.

use std::time::Duration;

use chrono::{DateTime, Utc};
use solana_commitment_config::CommitmentConfig;
use solana_sdk::pubkey::Pubkey;
use sqlx::{FromRow, PgConnection, PgExecutor, PgPool};
use thiserror::Error;

use super::LedgerError;
use super::identity::DatabaseIdentity;
use super::{history_scan, unproven_dead};
use crate::chain::{BLOCKHASH_LIFE, ChainError, Endpoints};
use crate::db::within;
use crate::outbox::{self, Event, EventFields, EventType, Topic};

/// Whether new mint transactions may be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
}

/// Why nothing may be signed now.
#[derive(Debug, Error)]
pub enum SigningRefused {
    #[error("the ledger breaker is open: {reason}")]
    Open { reason: String },
    /// The caller ends its transaction and calls [`open_if_identity_changed`].
    #[error("the database is not the one that the ledger knows")]
    IdentityChanged,
    /// A database that was lost knows of nothing, and would pay again what meters report again.
    #[error(
        "the authority's history was not walked yet, so what was paid before this database is not known: {reason}"
    )]
    NeverWalked { reason: String },
    #[error("the ledger is not bound to any chain")]
    Unbound,
    #[error("whether signing is allowed could not be read: {0}")]
    Database(#[from] sqlx::Error),
}

/// Rule 1's transaction asks here. Until it ends, nobody can open the breaker; whoever comes after an opening sees it.
pub async fn check_may_sign(transaction: &mut PgConnection) -> Result<(), SigningRefused> {
    let row: Option<(String, Option<String>, bool, bool)> = sqlx::query_as(
        "SELECT ledger.breaker, ledger.breaker_reason,
                (ledger.system_identifier, ledger.timeline, ledger.incarnation, ledger.server_start)
                    = (identity.system_identifier, identity.timeline, identity.incarnation, identity.server_start),
                ledger.watermark_slot > 0
         FROM ledger, database_identity() AS identity
         -- An opening waits for whoever has shared the row, or is about to: see LedgerRow::lock.
         FOR KEY SHARE OF ledger",
    )
    .fetch_optional(transaction)
    .await?;
    match row {
        None => Err(SigningRefused::Unbound),
        Some((breaker, reason, ..)) if breaker != "closed" => Err(SigningRefused::Open {
            reason: reason.unwrap_or(breaker),
        }),
        Some((_, _, false, _)) => Err(SigningRefused::IdentityChanged),
        Some((_, reason, true, false)) => Err(never_walked(reason)),
        Some((_, _, true, true)) => Ok(()),
    }
}

/// `reason`: why the last walk failed, as [`note_never_walked`] has stored it.
pub(super) fn never_walked(reason: Option<String>) -> SigningRefused {
    SigningRefused::NeverWalked {
        reason: reason.unwrap_or_else(|| "the first walk is under way".to_owned()),
    }
}

/// Why nothing can be signed yet, for whoever asks; it goes with the first walk that comes to its end.
pub(super) async fn note_never_walked(pool: &PgPool, reason: &str) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE ledger
         SET breaker_reason = $1
         WHERE watermark_slot = 0
           AND breaker = 'closed'
           AND breaker_reason IS DISTINCT FROM $1",
    )
    .bind(reason)
    .execute(pool)
    .await?;
    Ok(())
}

/// The ledger's one row, as far as the breaker and the walk read it.
#[derive(Clone, Debug, FromRow)]
pub(super) struct LedgerRow {
    #[sqlx(try_from = "String")]
    pub breaker: Breaker,
    pub breaker_opened_at: Option<DateTime<Utc>>,
    pub breaker_closes_after_height: Option<i64>,
    pub watermark_slot: i64,
    pub genesis_hash: String,
    #[sqlx(flatten)]
    identity: DatabaseIdentity,
}

/// The column `breaker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breaker {
    Closed,
    /// The database is another one than before, or its server was restarted.
    Identity,
    /// A landed mint that the ledger lacks or holds as dead.
    Mismatch,
}

impl Breaker {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Breaker::Closed => "closed",
            Breaker::Identity => "identity",
            Breaker::Mismatch => "mismatch",
        }
    }
}

impl TryFrom<String> for Breaker {
    type Error = String;

    fn try_from(text: String) -> Result<Breaker, String> {
        [Breaker::Closed, Breaker::Identity, Breaker::Mismatch]
            .into_iter()
            .find(|breaker| breaker.as_str() == text)
            .ok_or_else(|| format!("{text} is no state of the ledger breaker"))
    }
}

impl LedgerRow {
    pub(super) async fn read<'c>(executor: impl PgExecutor<'c>) -> sqlx::Result<LedgerRow> {
        sqlx::query_as(
            "SELECT breaker, breaker_opened_at, breaker_closes_after_height, watermark_slot,
                    genesis_hash, system_identifier, timeline, incarnation, server_start
             FROM ledger",
        )
        .fetch_one(executor)
        .await
    }

    /// Waits for the transactions that read the breaker closed, and keeps others from reading it until the end of this one.
    ///
    /// By the table, whose locks are given in the order of the requests: a row lock alone waits as long as those who share
    /// the row overlap (10 to 20 s at 20 records of 50 ms side by side), and they go on signing meanwhile.
    pub(super) async fn lock(transaction: &mut PgConnection) -> sqlx::Result<LedgerRow> {
        sqlx::query("LOCK TABLE ledger IN EXCLUSIVE MODE")
            .execute(&mut *transaction)
            .await?;
        sqlx::query_as(
            "SELECT breaker, breaker_opened_at, breaker_closes_after_height, watermark_slot,
                    genesis_hash, system_identifier, timeline, incarnation, server_start
             FROM ledger
             FOR UPDATE",
        )
        .fetch_one(transaction)
        .await
    }

    fn state(&self) -> BreakerState {
        match self.breaker {
            Breaker::Closed => BreakerState::Closed,
            Breaker::Identity | Breaker::Mismatch => BreakerState::Open,
        }
    }

    /// Whether a walk that begins now, at this finalized height, may close the breaker if it finds nothing.
    fn may_close_at(&self, finalized_height: u64) -> bool {
        let has_passed = |height: i64| i128::from(finalized_height) > i128::from(height);
        match (self.breaker, self.breaker_closes_after_height) {
            (Breaker::Closed, _) => false,
            // The height is not fixed yet: no endpoint has answered since.
            (Breaker::Identity, None) => false,
            (Breaker::Identity | Breaker::Mismatch, Some(height)) => has_passed(height),
            (Breaker::Mismatch, None) => true,
        }
    }
}

/// One round: opens the breaker when the database has changed, walks the authority's history, closes the breaker when it
/// may be closed. `limit` is that of one transaction of the database.
pub async fn tend(
    pool: &PgPool,
    endpoints: &Endpoints,
    mint: &Pubkey,
    authority: &Pubkey,
    limit: Duration,
) -> Result<BreakerState, LedgerError> {
    within(limit, open_if_identity_changed(pool)).await?;
    let row = within(limit, LedgerRow::read(pool)).await?;
    if row.breaker == Breaker::Identity {
        let Some(height) = row.breaker_closes_after_height else {
            let height = last_possible_height(endpoints).await?;
            within(limit, fix_closing_height(pool, height)).await?;
            return Ok(BreakerState::Open);
        };
        // A walk before that could not close it.
        if finalized_height(endpoints).await? <= height as u64 {
            return Ok(BreakerState::Open);
        }
    }
    let watched = unproven_dead::find_landed(pool, endpoints, mint, authority, limit).await;
    let walked = history_scan::scan_history(pool, endpoints, mint, authority, limit).await?;
    watched?;
    Ok(walked.breaker)
}

/// Compares the database with the one that the ledger knows. Another one opens the breaker and is known from then on: a
/// second fail-over opens it anew. Needs no chain.
pub async fn open_if_identity_changed(pool: &PgPool) -> sqlx::Result<bool> {
    let mut transaction = pool.begin().await?;
    // Without the lock first: a glance each minute must not stop those who record.
    let glance = LedgerRow::read(&mut *transaction).await?;
    let found = DatabaseIdentity::read(&mut transaction).await?;
    if glance.identity == found {
        return Ok(false);
    }
    let row = LedgerRow::lock(&mut transaction).await?;
    if row.identity == found {
        return Ok(false);
    }
    let reason = format!(
        "{}: nothing is signed until all that was sent before has landed or expired, and is known",
        found.change_since(&row.identity)
    );
    sqlx::query(
        "UPDATE ledger
         SET breaker = $1, breaker_reason = $2, breaker_opened_at = now(), breaker_closes_after_height = NULL,
             system_identifier = $3, timeline = $4, incarnation = $5, server_start = $6",
    )
    .bind(Breaker::Identity.as_str())
    .bind(&reason)
    .bind(found.system_identifier)
    .bind(found.timeline)
    .bind(found.incarnation)
    .bind(found.server_start)
    .execute(&mut *transaction)
    .await?;
    announce(&mut transaction, &reason, None).await?;
    transaction.commit().await?;
    tracing::error!(reason, "the ledger breaker is open");
    Ok(true)
}

/// What was signed before this moment can land in blocks up to this height. The newest block that any endpoint knows counts,
/// not the finalized one: the blockhash may have been the newest.
pub(super) async fn last_possible_height(endpoints: &Endpoints) -> Result<u64, ChainError> {
    Ok(newest_height(endpoints).await? + BLOCKHASH_LIFE)
}

async fn fix_closing_height(pool: &PgPool, height: u64) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE ledger
         SET breaker_closes_after_height = $1
         WHERE breaker = 'identity'
           AND breaker_closes_after_height IS NULL",
    )
    .bind(height as i64)
    .execute(pool)
    .await?;
    Ok(())
}

async fn newest_height(endpoints: &Endpoints) -> Result<u64, ChainError> {
    let mut newest = None;
    let mut failure = None;
    for endpoint in endpoints.iter() {
        let height = endpoint
            .rpc()
            .get_block_height_with_commitment(CommitmentConfig::processed())
            .await;
        match height {
            Ok(height) => newest = newest.max(Some(height)),
            Err(error) => failure = Some(ChainError::from_client(endpoint.name(), &error)),
        }
    }
    match (newest, failure) {
        (Some(height), _) => Ok(height),
        (None, Some(error)) => Err(error),
        (None, None) => Err(no_endpoint()),
    }
}

pub(super) async fn finalized_height(endpoints: &Endpoints) -> Result<u64, ChainError> {
    let mut failure = no_endpoint();
    for endpoint in endpoints.iter() {
        match endpoint.finalized_height().await {
            Ok(height) => return Ok(height),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn no_endpoint() -> ChainError {
    ChainError::NoneUsable {
        endpoints: Vec::new(),
    }
}

/// After a walk that began with this row at this finalized height, and found only what is known: closes the breaker, unless
/// something has changed meanwhile or some foreign mint is not dealt with.
pub(super) async fn close_after_walk(
    pool: &PgPool,
    before: &LedgerRow,
    finalized_height: u64,
) -> sqlx::Result<BreakerState> {
    if before.may_close_at(finalized_height) && close(pool, before).await? {
        tracing::info!("the ledger breaker is closed: everything that landed is known");
    }
    Ok(LedgerRow::read(pool).await?.state())
}

/// Compare-and-set: an opening since the walk began, another database, or a foreign mint that nobody dealt with keep it open.
async fn close(pool: &PgPool, before: &LedgerRow) -> sqlx::Result<bool> {
    let closed = sqlx::query(
        "UPDATE ledger
         SET breaker = 'closed', breaker_reason = NULL, breaker_opened_at = NULL, breaker_closes_after_height = NULL
         FROM database_identity() AS identity
         WHERE ledger.breaker = $1
           AND ledger.breaker_opened_at IS NOT DISTINCT FROM $2
           AND ledger.breaker_closes_after_height IS NOT DISTINCT FROM $3
           AND (ledger.system_identifier, ledger.timeline, ledger.incarnation, ledger.server_start)
               = (identity.system_identifier, identity.timeline, identity.incarnation, identity.server_start)
           AND NOT EXISTS (SELECT FROM foreign_mints WHERE booked_reason IS NULL)",
    )
    .bind(before.breaker.as_str())
    .bind(before.breaker_opened_at)
    .bind(before.breaker_closes_after_height)
    .execute(pool)
    .await?;
    Ok(closed.rows_affected() == 1)
}

/// Admins are told in the transaction that opens it: once, however many processes noticed.
pub(super) async fn announce(
    transaction: &mut PgConnection,
    reason: &str,
    signature: Option<&str>,
) -> sqlx::Result<()> {
    let fields = EventFields {
        error_reason: Some(format!("the ledger breaker is open: {reason}")),
        transaction_signature: signature.map(str::to_owned),
        ..EventFields::default()
    };
    let event = Event::new(EventType::AdminNotification, &fields);
    outbox::publish(transaction, &[event]).await?;
    outbox::notify(transaction, Topic::Outbox).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_closes_only_what_it_has_the_right_to_close() {
        use Breaker::{Closed, Identity, Mismatch};
        let cases = [
            (Closed, None, 1_000, false),
            (Closed, Some(10), 1_000, false),
            (Identity, None, 1_000, false),
            (Identity, Some(150), 149, false),
            (Identity, Some(150), 150, false),
            (Identity, Some(150), 151, true),
            (Mismatch, None, 0, true),
            (Mismatch, Some(150), 150, false),
            (Mismatch, Some(150), 151, true),
        ];
        for (breaker, closes_after_height, finalized_height, expected) in cases {
            let row = LedgerRow {
                breaker,
                breaker_opened_at: None,
                breaker_closes_after_height: closes_after_height,
                watermark_slot: 0,
                genesis_hash: "genesis".to_owned(),
                identity: DatabaseIdentity {
                    system_identifier: 1,
                    timeline: 1,
                    incarnation: 1,
                    server_start: 1,
                },
            };
            assert_eq!(
                row.may_close_at(finalized_height),
                expected,
                "{breaker:?} until {closes_after_height:?}, finalized {finalized_height}"
            );
        }
    }

    #[test]
    fn every_stored_state_is_read_back() {
        for breaker in [Breaker::Closed, Breaker::Identity, Breaker::Mismatch] {
            assert_eq!(Breaker::try_from(breaker.as_str().to_owned()), Ok(breaker));
        }
        assert!(Breaker::try_from("ajar".to_owned()).is_err());
    }
}
