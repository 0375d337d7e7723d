//! The progress of the history scan: one row, so that a scan survives a provider's limit, a restart and a change of holder.
//!
//! Invariant: everything between the scan's head and its cursor was read, and what the ledger does not know of it is stored. The
//! cursor moves only after that, and by compare-and-set, so that two scanners never skip a page for each other.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::{FromRow, PgExecutor, PgPool};

use super::ledger_row::{BreakerSnapshot, LedgerRow};
use crate::chain::HistoryCursor;
use crate::db::BigInt;
use crate::domain::{BaseUnits, TxSignature};

/// A scan under way.
#[derive(Clone, Debug, FromRow)]
pub(super) struct ScanProgress {
    began_at: DateTime<Utc>,
    floor_slot: BigInt,
    head_slot: BigInt,
    head_height: BigInt,
    #[sqlx(flatten)]
    pub breaker: BreakerSnapshot,
    /// Of a first scan.
    supply: Option<BaseUnits>,
    cursor_signature: Option<TxSignature>,
    cursor_slot: Option<BigInt>,
    listed: BigInt,
    mint_cursor_signature: Option<TxSignature>,
    mint_cursor_slot: Option<BigInt>,
    /// Of a first scan: the transaction that created the mint, once it was found.
    pub mint_created_by: Option<TxSignature>,
}

/// What a new scan begins with.
pub(super) struct ScanStart {
    /// The database's time before anything else was read.
    pub began_at: DateTime<Utc>,
    pub floor_slot: u64,
    pub head_slot: u64,
    pub head_height: u64,
    pub supply: Option<BaseUnits>,
}

/// Whether this scanner's step counted, or another one has moved the scan meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    ByThis,
    ByAnother,
}

impl ScanProgress {
    /// `None`: no scan is under way.
    pub async fn under_way(pool: &PgPool) -> sqlx::Result<Option<ScanProgress>> {
        sqlx::query_as(
            "SELECT began_at, floor_slot, head_slot, head_height, breaker, breaker_opened_at, breaker_closes_after_height,
                    supply, cursor_signature, cursor_slot, listed, mint_cursor_signature, mint_cursor_slot, mint_created_by
             FROM history_scan
             WHERE began_at IS NOT NULL",
        )
        .fetch_optional(pool)
        .await
    }

    /// Begins one, unless another process just did.
    pub async fn begin(pool: &PgPool, before: &LedgerRow, start: &ScanStart) -> sqlx::Result<()> {
        let breaker = &before.snapshot;
        sqlx::query(
            "UPDATE history_scan
             SET began_at = $8, floor_slot = $1, head_slot = $2, head_height = $3, supply = $4,
                 breaker = $5, breaker_opened_at = $6, breaker_closes_after_height = $7,
                 cursor_signature = NULL, cursor_slot = NULL, listed = 0
             WHERE began_at IS NULL",
        )
        .bind(BigInt::from(start.floor_slot))
        .bind(BigInt::from(start.head_slot))
        .bind(BigInt::from(start.head_height))
        .bind(start.supply)
        .bind(breaker.breaker.as_str())
        .bind(breaker.breaker_opened_at)
        .bind(breaker.breaker_closes_after_height)
        .bind(start.began_at)
        .execute(pool)
        .await?;
        Ok(())
    }

    pub fn floor_slot(&self) -> u64 {
        self.floor_slot.get()
    }

    pub fn head_slot(&self) -> u64 {
        self.head_slot.get()
    }

    pub fn head_height(&self) -> u64 {
        self.head_height.get()
    }

    pub fn supply(&self) -> Option<BaseUnits> {
        self.supply
    }

    /// Transactions that mention the authority, from the head to the cursor.
    pub fn listed(&self) -> u64 {
        self.listed.get()
    }

    pub fn cursor(&self) -> Option<HistoryCursor> {
        cursor(self.cursor_signature, self.cursor_slot)
    }

    pub fn mint_cursor(&self) -> Option<HistoryCursor> {
        cursor(self.mint_cursor_signature, self.mint_cursor_slot)
    }

    /// Everything down to `to` is read and stored: the scan continues below it.
    pub async fn advance(
        &mut self,
        pool: &PgPool,
        to: Option<HistoryCursor>,
        listed: usize,
    ) -> sqlx::Result<Moved> {
        let (signature, slot) = (
            to.map(|to| to.signature),
            to.map(|to| BigInt::from(to.slot)),
        );
        let moved = sqlx::query(
            "UPDATE history_scan
             SET cursor_signature = $3, cursor_slot = $4, listed = listed + $5, failures = 0
             WHERE began_at = $1
               AND cursor_signature IS NOT DISTINCT FROM $2",
        )
        .bind(self.began_at)
        .bind(self.cursor_signature)
        .bind(signature)
        .bind(slot)
        .bind(BigInt::from(listed))
        .execute(pool)
        .await?;
        if moved.rows_affected() == 0 {
            return Ok(Moved::ByAnother);
        }
        self.cursor_signature = signature;
        self.cursor_slot = slot;
        self.listed = BigInt::from(self.listed.get() + BigInt::from(listed).get());
        Ok(Moved::ByThis)
    }

    /// The mint's own history was listed down to here.
    pub async fn advance_mint(&mut self, pool: &PgPool, to: HistoryCursor) -> sqlx::Result<()> {
        self.mint_cursor_signature = Some(to.signature);
        self.mint_cursor_slot = Some(BigInt::from(to.slot));
        sqlx::query(
            "UPDATE history_scan
             SET mint_cursor_signature = $2, mint_cursor_slot = $3, failures = 0
             WHERE began_at = $1",
        )
        .bind(self.began_at)
        .bind(to.signature)
        .bind(BigInt::from(to.slot))
        .execute(pool)
        .await?;
        Ok(())
    }

    /// The mint's history ends with this transaction, which created it.
    pub async fn note_creation(
        &mut self,
        pool: &PgPool,
        signature: TxSignature,
    ) -> sqlx::Result<()> {
        self.mint_created_by = Some(signature);
        sqlx::query(
            "UPDATE history_scan
             SET mint_created_by = $2, failures = 0
             WHERE began_at = $1",
        )
        .bind(self.began_at)
        .bind(signature)
        .execute(pool)
        .await?;
        Ok(())
    }

    /// The scan reached its floor and read everything.
    pub async fn finish(&self, pool: &PgPool) -> sqlx::Result<()> {
        sqlx::query(
            "UPDATE history_scan
             SET began_at = NULL, floor_slot = NULL, head_slot = NULL,
                 known_as_of = $1, finished_at = now(), failures = 0, error = NULL
             WHERE began_at = $1",
        )
        .bind(self.began_at)
        .execute(pool)
        .await?;
        Ok(())
    }

    /// Unreadable transactions of this scan's range, the ones that it did not list any more left out: how many, and the lowest
    /// slot.
    pub async fn unreadable(&self, pool: &PgPool) -> sqlx::Result<Option<u64>> {
        sqlx::query(
            "DELETE FROM history_transactions
             WHERE problem IS NOT NULL
               AND slot BETWEEN $1 AND $2
               AND listed_at < $3",
        )
        .bind(BigInt::from(self.floor_slot() + 1))
        .bind(self.head_slot)
        .bind(self.began_at)
        .execute(pool)
        .await?;
        let lowest: Option<BigInt> = sqlx::query_scalar(
            "SELECT min(slot)
             FROM history_transactions
             WHERE problem IS NOT NULL
               AND slot > $1",
        )
        .bind(self.floor_slot)
        .fetch_one(pool)
        .await?;
        Ok(lowest.map(BigInt::get))
    }
}

fn cursor(signature: Option<TxSignature>, slot: Option<BigInt>) -> Option<HistoryCursor> {
    Some(HistoryCursor {
        signature: signature?,
        slot: slot?.get(),
    })
}

/// The database's time, which dates a scan that begins now.
pub(super) async fn now(pool: &PgPool) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(pool)
        .await
}

/// Gives up the scan under way: the next one begins at the head.
pub(super) async fn restart(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE history_scan
         SET began_at = NULL, floor_slot = NULL, head_slot = NULL,
             mint_cursor_signature = NULL, mint_cursor_slot = NULL, mint_created_by = NULL",
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The scan reached its floor, and some transactions could not be read: the next one begins at the head, below which only those are
/// queried again.
pub(super) async fn restart_below(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE history_scan
         SET began_at = NULL, floor_slot = NULL, head_slot = NULL",
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The way in which a scan stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// A provider's limit: it continues after the time that the provider requests.
    Paused,
    Failed,
}

/// Stores why the scan stopped. Returns the number of failures in a row.
pub(super) async fn note_stop(pool: &PgPool, stop: Stop, error: &str) -> sqlx::Result<i32> {
    sqlx::query_scalar(
        "UPDATE history_scan
         SET failures = failures + $2, failed_at = now(), error = $1
         RETURNING failures",
    )
    .bind(error)
    .bind(match stop {
        Stop::Paused => 0,
        Stop::Failed => 1,
    })
    .fetch_one(pool)
    .await
}

/// Requests a scan from the holder of the resolver's lock. Returns the moment: a scan that began later covers it.
pub(super) async fn request_scan(pool: &PgPool) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar(
        "UPDATE history_scan
         SET wanted_at = clock_timestamp()
         RETURNING wanted_at",
    )
    .fetch_one(pool)
    .await
}

/// Whether a process waits for a scan that no finished one covers.
pub async fn scan_is_wanted(pool: &PgPool) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT COALESCE(wanted_at > COALESCE(known_as_of, '-infinity'), FALSE)
         FROM history_scan",
    )
    .fetch_one(pool)
    .await
}

/// Whether a scan that began after `moment` is finished.
pub(super) async fn is_known_since<'c>(
    executor: impl PgExecutor<'c>,
    moment: DateTime<Utc>,
) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT COALESCE(known_as_of > $1, FALSE) FROM history_scan")
        .bind(moment)
        .fetch_one(executor)
        .await
}

/// Sum of what the ledger and the stored unknown mints account for.
pub(super) async fn accounted_for(pool: &PgPool) -> sqlx::Result<Decimal> {
    sqlx::query_scalar(
        "SELECT COALESCE((SELECT sum(base_units) FROM mint_transactions WHERE state <> 'dead'), 0)
              + COALESCE((SELECT sum(base_units) FROM foreign_mints), 0)",
    )
    .fetch_one(pool)
    .await
}
