//! The progress of the history scan: one row, so that a scan survives a provider's limit, a restart and a change of holder.
//!
//! Invariant: everything between the scan's head and its cursor was read, and what the ledger does not know of it is stored. The
//! cursor moves only after that, and by compare-and-set, so that two scanners never skip a page for each other. Each step compares
//! the scan's number: one that was given up changes nothing. Times decide nothing: `began_at` is only compared for
//! equality.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::{FromRow, PgPool};

use super::ledger_row::{BreakerSnapshot, LedgerRow};
use crate::chain::HistoryCursor;
use crate::db::{self, BigInt};
use crate::domain::{BaseUnits, TxSignature};

/// Zero means that the history was never scanned. The mint itself is created in a later slot than this, so up to here there is
/// nothing to find.
pub(super) const FIRST_WATERMARK_SLOT: u64 = 1;

/// A scan under way.
#[derive(Clone, Debug, FromRow)]
pub(super) struct ScanProgress {
    /// Its number.
    scan: i64,
    /// With the number it identifies the scan: a fail-over may lose a scan whose number is then given again.
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
    /// The last request for a scan before anything else was read.
    pub covers: i64,
    pub floor_slot: u64,
    /// The newest finalized block before the list was read.
    pub head_slot: u64,
    /// Its height, if the breaker waits for one; else 0.
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
            "SELECT scan, began_at, floor_slot, head_slot, head_height, breaker, breaker_opened_at, breaker_closes_after_height,
                    supply, cursor_signature, cursor_slot, listed, mint_cursor_signature, mint_cursor_slot, mint_created_by
             FROM history_scan
             WHERE began_at IS NOT NULL",
        )
        .fetch_optional(pool)
        .await
    }

    /// Begins one, unless another process just did. What the ledger holds as finalized up to
    /// `listed_up_to` must be listed; nodes list what is above a little later.
    pub async fn begin(
        pool: &PgPool,
        before: &LedgerRow,
        start: &ScanStart,
        listed_up_to: u64,
    ) -> sqlx::Result<()> {
        let breaker = &before.snapshot;
        let mut transaction = db::begin(pool).await?;
        let scan: Option<i64> = sqlx::query_scalar(
            "UPDATE history_scan
             SET scan = scan + 1, covers = $8, began_at = clock_timestamp(),
                 floor_slot = $1, head_slot = $2, head_height = $3, supply = $4,
                 breaker = $5, breaker_opened_at = $6, breaker_closes_after_height = $7,
                 cursor_signature = NULL, cursor_slot = NULL, listed = 0
             WHERE began_at IS NULL
             RETURNING scan",
        )
        .bind(BigInt::from(start.floor_slot))
        .bind(BigInt::from(start.head_slot))
        .bind(BigInt::from(start.head_height))
        .bind(start.supply)
        .bind(breaker.breaker.as_str())
        .bind(breaker.breaker_opened_at)
        .bind(breaker.breaker_closes_after_height)
        .bind(start.covers)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(scan) = scan else {
            return Ok(());
        };
        sqlx::query("DELETE FROM history_scan_expected")
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "INSERT INTO history_scan_expected (signature, slot, scan)
             SELECT signature, slot, $1
             FROM mint_transactions
             WHERE state = 'finalized'
               AND slot > $2
               AND slot <= $3",
        )
        .bind(scan)
        // A new ledger's first watermark: below, there is nothing.
        .bind(BigInt::from(start.floor_slot.max(FIRST_WATERMARK_SLOT)))
        .bind(BigInt::from(listed_up_to))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
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
             SET cursor_signature = $3, cursor_slot = $4, listed = listed + $5,
                 failures = CASE WHEN cursor_signature IS DISTINCT FROM $3 THEN 0 ELSE failures END
             WHERE scan = $1
               AND began_at IS NOT NULL
               AND cursor_signature IS NOT DISTINCT FROM $2",
        )
        .bind(self.scan)
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
             SET mint_cursor_signature = $2, mint_cursor_slot = $3,
                 failures = CASE WHEN mint_cursor_signature IS DISTINCT FROM $2 THEN 0 ELSE failures END
             WHERE scan = $1
               AND began_at IS NOT NULL",
        )
        .bind(self.scan)
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
             SET mint_created_by = $2
             WHERE scan = $1
               AND began_at IS NOT NULL",
        )
        .bind(self.scan)
        .bind(signature)
        .execute(pool)
        .await?;
        Ok(())
    }

    /// These were listed: what the ledger expects of the scan is less by them.
    pub async fn note_listed(&self, pool: &PgPool, listed: &[TxSignature]) -> sqlx::Result<()> {
        sqlx::query(
            "DELETE FROM history_scan_expected
             WHERE scan = $1
               AND signature = ANY($2)",
        )
        .bind(self.scan)
        .bind(listed)
        .execute(pool)
        .await?;
        Ok(())
    }

    /// Finalized transactions of the ledger in the scan's range that it did not list: how many, and the oldest one.
    pub async fn not_listed(&self, pool: &PgPool) -> sqlx::Result<Option<NotListed>> {
        sqlx::query_as(
            "SELECT signature, slot, count(*) OVER () AS number
             FROM history_scan_expected
             WHERE scan = $1
             ORDER BY slot, signature
             LIMIT 1",
        )
        .bind(self.scan)
        .fetch_optional(pool)
        .await
    }

    /// The scan reached its floor and read everything that can be read. Processes may sign as those do that run already; the age
    /// of what is known does not change. A first scan covers nothing.
    pub async fn end_with_unreadable(&self, pool: &PgPool) -> sqlx::Result<()> {
        sqlx::query(
            "UPDATE history_scan
             SET began_at = NULL, floor_slot = NULL, head_slot = NULL,
                 known = CASE WHEN supply IS NULL THEN GREATEST(known, covers) ELSE known END
             WHERE scan = $1
               AND began_at = $2
               AND cursor_signature IS NOT DISTINCT FROM $3",
        )
        .bind(self.scan)
        .bind(self.began_at)
        .bind(self.cursor_signature)
        .execute(pool)
        .await?;
        Ok(())
    }

    /// The scan reached its floor and read everything.
    pub async fn finish(&self, pool: &PgPool) -> sqlx::Result<()> {
        sqlx::query(
            "UPDATE history_scan
             SET began_at = NULL, floor_slot = NULL, head_slot = NULL,
                 known = GREATEST(known, covers), known_as_of = began_at, finished_at = now(), failures = 0, error = NULL
             WHERE scan = $1
               AND began_at = $2
               AND cursor_signature IS NOT DISTINCT FROM $3",
        )
        .bind(self.scan)
        .bind(self.began_at)
        .bind(self.cursor_signature)
        .execute(pool)
        .await?;
        Ok(())
    }

    /// Compare-and-set: a scan that another one has overtaken, or a database that is another one than before, changes nothing.
    pub async fn raise_watermark(&self, pool: &PgPool, scanned: u64) -> sqlx::Result<Moved> {
        if scanned <= self.floor_slot() {
            return Ok(Moved::ByThis);
        }
        let raised = sqlx::query(
            "UPDATE ledger
             SET watermark_slot = $2,
                 -- A closed one has a reason only while the history was never scanned.
                 breaker_reason = CASE WHEN breaker <> 'closed' THEN breaker_reason END
             FROM database_identity() AS identity
             WHERE watermark_slot = $1
               AND (ledger.system_identifier, ledger.timeline, ledger.incarnation, ledger.server_start)
                   = (identity.system_identifier, identity.timeline, identity.incarnation, identity.server_start)
               AND EXISTS (
                   SELECT
                   FROM history_scan
                   WHERE scan = $3
                     AND began_at = $4
                     AND cursor_signature IS NOT DISTINCT FROM $5
               )",
        )
        .bind(self.floor_slot)
        .bind(BigInt::from(scanned))
        .bind(self.scan)
        .bind(self.began_at)
        .bind(self.cursor_signature)
        .execute(pool)
        .await?;
        Ok(match raised.rows_affected() {
            0 => Moved::ByAnother,
            _ => Moved::ByThis,
        })
    }

    /// The lowest slot of an unreadable transaction above the floor, up to `listed_up_to`: the next scan lists those above again.
    pub async fn unreadable(&self, pool: &PgPool, listed_up_to: u64) -> sqlx::Result<Option<u64>> {
        let lowest: Option<BigInt> = sqlx::query_scalar(
            "SELECT min(slot)
             FROM history_transactions
             WHERE problem IS NOT NULL
               AND slot > $1
               AND slot <= $2",
        )
        .bind(self.floor_slot)
        .bind(BigInt::from(listed_up_to))
        .fetch_one(pool)
        .await?;
        Ok(lowest.map(BigInt::get))
    }
}

/// What a scan did not list although the ledger holds it as finalized.
#[derive(Clone, Debug, FromRow)]
pub(super) struct NotListed {
    pub signature: TxSignature,
    pub slot: BigInt,
    pub number: i64,
}

fn cursor(signature: Option<TxSignature>, slot: Option<BigInt>) -> Option<HistoryCursor> {
    Some(HistoryCursor {
        signature: signature?,
        slot: slot?.get(),
    })
}

/// The last request for a scan, which one that begins now covers.
pub(super) async fn last_request(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT wanted FROM history_scan")
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

/// Gives up a scan that has read no page yet: its head may be one that no other endpoint reaches.
pub(super) async fn restart_without_page(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE history_scan
         SET began_at = NULL, floor_slot = NULL, head_slot = NULL
         WHERE cursor_signature IS NULL",
    )
    .execute(pool)
    .await?;
    Ok(())
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

/// Sum of what the ledger and the stored unknown mints account for.
pub(super) async fn accounted_for(pool: &PgPool) -> sqlx::Result<Decimal> {
    sqlx::query_scalar(
        "SELECT COALESCE((SELECT sum(base_units) FROM mint_transactions WHERE state <> 'dead'), 0)
              + COALESCE((SELECT sum(base_units) FROM foreign_mints), 0)",
    )
    .fetch_one(pool)
    .await
}
