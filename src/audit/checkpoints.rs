//! The stored checkpoints: what need not be compared again.
//!
//! Invariant: a checkpoint covers a transaction only if it was final on chain at or below the slot of its run, finalized in the
//! ledger, and without a difference. Checkpoints are completed after all checks of an audit, together with its slot, and only if it
//! found no difference at all; the record of an audit that found one discards them, so that the next one compares everything. So what an audit
//! lists above the slot is not covered, and what is below is covered, left out by name, or not a mint of ours.
//!
//! An incremental audit compares signed bytes, which name token accounts and not their owners: the owner of an account that was
//! paid is compared when the transaction is read from the chain, by a full audit or in a sample.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{FromRow, PgConnection, PgPool};

use super::error::AuditError;
use super::segment::{self, Covered, Digested};
use super::total::Total;
use crate::db::{self, BigInt};
use crate::domain::{Hash32, TxSignature};

/// The checkpoints of one run, added up.
#[derive(Clone, Debug)]
pub(super) struct Baseline {
    pub run: i64,
    /// `None` while the run is under way.
    pub slot: Option<u64>,
    /// The highest number of the range.
    pub through: i64,
    pub transactions: u64,
    pub readings: u64,
    pub base_units: Total,
    /// Numbers in the range that no checkpoint covers yet.
    pub pending: BTreeSet<i64>,
    pub chain_hash: Hash32,
    pub foreign: ForeignSum,
    /// The newest checkpoint; 0 before the first.
    newest: i64,
}

/// What a finished audit stores if it found no difference.
pub(super) struct Prepared {
    pub baseline: Baseline,
    pub covered: BTreeMap<i64, Covered>,
    /// The history was walked up to here.
    pub slot: u64,
}

impl Prepared {
    /// Stores the checkpoints and completes the run.
    pub async fn store(mut self, pool: &PgPool) -> Result<(), AuditError> {
        let slot = self.slot.max(self.baseline.slot.unwrap_or_default());
        let mut transaction = db::begin(pool).await?;
        self.baseline.lock(&mut transaction).await?;
        while !self.covered.is_empty() {
            let covered = segment::split_first(&mut self.covered);
            self.baseline.extend(&mut transaction, &covered).await?;
        }
        self.baseline.complete(&mut transaction, slot).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// Booked foreign mints up to a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromRow)]
pub(super) struct ForeignSum {
    pub foreign_mints: BigInt,
    pub base_units_foreign: Total,
}

#[derive(FromRow)]
struct RunRow {
    id: i64,
    slot: Option<BigInt>,
    #[sqlx(flatten)]
    foreign: ForeignSum,
    through: Option<i64>,
    transactions: BigInt,
    readings: BigInt,
    base_units: Total,
    left_out: Vec<i64>,
    late: Vec<i64>,
    chain_hash: Option<Vec<u8>>,
    newest: i64,
}

/// The run that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The newest complete one.
    Complete,
    /// A full audit that was interrupted.
    UnderWay,
}

impl Baseline {
    pub async fn read(pool: &PgPool, which: Which) -> sqlx::Result<Option<Baseline>> {
        let row: Option<RunRow> = sqlx::query_as(
            "SELECT run.id, run.slot, run.foreign_mints, run.base_units_foreign,
                    max(checkpoint.last_number) AS through,
                    COALESCE(sum(checkpoint.transactions), 0)::BIGINT AS transactions,
                    COALESCE(sum(checkpoint.readings), 0)::BIGINT AS readings,
                    COALESCE(sum(checkpoint.base_units), 0) AS base_units,
                    ARRAY(SELECT unnest(left_out) FROM audit_checkpoints WHERE audit_checkpoints.run = run.id) AS left_out,
                    ARRAY(SELECT unnest(late) FROM audit_checkpoints WHERE audit_checkpoints.run = run.id) AS late,
                    (array_agg(checkpoint.chain_hash ORDER BY checkpoint.id DESC))[1] AS chain_hash,
                    COALESCE(max(checkpoint.id), 0) AS newest
             FROM audit_runs AS run
             LEFT JOIN audit_checkpoints AS checkpoint ON checkpoint.run = run.id
             WHERE (run.completed_at IS NOT NULL) = $1
             GROUP BY run.id
             ORDER BY run.id DESC
             LIMIT 1",
        )
        .bind(which == Which::Complete)
        .fetch_optional(pool)
        .await?;
        Ok(row.map(Baseline::from))
    }

    /// Begins a full audit.
    pub async fn begin(pool: &PgPool) -> sqlx::Result<Baseline> {
        let run = sqlx::query_scalar("INSERT INTO audit_runs DEFAULT VALUES RETURNING id")
            .fetch_one(pool)
            .await?;
        Ok(Baseline {
            run,
            slot: None,
            through: i64::MIN,
            transactions: 0,
            readings: 0,
            base_units: Total::ZERO,
            pending: BTreeSet::new(),
            chain_hash: [0; 32],
            foreign: ForeignSum::default(),
            newest: 0,
        })
    }

    /// Locks the run until the transaction ends. Fails if another audit has extended or discarded it since it was read.
    pub async fn lock(&self, connection: &mut PgConnection) -> Result<(), AuditError> {
        let locked: Option<i64> =
            sqlx::query_scalar("SELECT id FROM audit_runs WHERE id = $1 FOR UPDATE")
                .bind(self.run)
                .fetch_optional(&mut *connection)
                .await?;
        // A statement of its own: one that waited for the lock sees the checkpoints as they were before the wait.
        let newest: i64 =
            sqlx::query_scalar("SELECT COALESCE(max(id), 0) FROM audit_checkpoints WHERE run = $1")
                .bind(self.run)
                .fetch_one(connection)
                .await?;
        if locked.is_some() && newest == self.newest {
            return Ok(());
        }
        Err(AuditError::Overtaken)
    }

    /// Stores one checkpoint behind the others. The run is locked.
    pub async fn extend(
        &mut self,
        connection: &mut PgConnection,
        covered: &BTreeMap<i64, Covered>,
    ) -> sqlx::Result<()> {
        let Some(last) = covered.keys().next_back().copied() else {
            return Ok(());
        };
        let first = self.through.saturating_add(1);
        let last_number = last.max(self.through);
        let in_range = numbers_that_may_land(connection, first, last_number).await?;
        let left_out: Vec<i64> = in_range
            .into_iter()
            .filter(|number| !covered.contains_key(number))
            .collect();
        let late: Vec<i64> = covered.range(..first).map(|(number, _)| *number).collect();
        let digested = segment::digest(&self.chain_hash, covered);
        self.newest = sqlx::query_scalar(
            "INSERT INTO audit_checkpoints
                 (run, first_number, last_number, transactions, readings, base_units, left_out, late, chain_hash)
             VALUES ($1, $2, $3, $4, $5, $6::NUMERIC, $7, $8, $9)
             RETURNING id",
        )
        .bind(self.run)
        .bind(first)
        .bind(last_number)
        .bind(BigInt::from(digested.transactions))
        .bind(BigInt::from(digested.readings))
        .bind(digested.base_units.to_string())
        .bind(&left_out)
        .bind(&late)
        .bind(digested.chain_hash)
        .fetch_one(connection)
        .await?;
        self.through = last_number;
        self.transactions += digested.transactions;
        self.readings += digested.readings;
        self.base_units += digested.base_units;
        self.pending.extend(left_out);
        for number in late {
            self.pending.remove(&number);
        }
        self.chain_hash = digested.chain_hash;
        Ok(())
    }

    /// The history was walked up to this slot.
    pub async fn complete(&mut self, connection: &mut PgConnection, slot: u64) -> sqlx::Result<()> {
        let foreign = ForeignSum::up_to(&mut *connection, slot).await?;
        sqlx::query(
            "UPDATE audit_runs
             SET completed_at = now(), slot = $2, foreign_mints = $3, base_units_foreign = $4::NUMERIC
             WHERE id = $1",
        )
        .bind(self.run)
        .bind(BigInt::from(slot))
        .bind(foreign.foreign_mints)
        .bind(foreign.base_units_foreign.to_string())
        .execute(&mut *connection)
        .await?;
        // Earlier runs say nothing more.
        sqlx::query("DELETE FROM audit_runs WHERE id < $1")
            .bind(self.run)
            .execute(connection)
            .await?;
        self.slot = Some(slot);
        self.foreign = foreign;
        Ok(())
    }
}

impl From<RunRow> for Baseline {
    fn from(row: RunRow) -> Baseline {
        let mut pending: BTreeSet<i64> = row.left_out.into_iter().collect();
        for number in &row.late {
            pending.remove(number);
        }
        Baseline {
            run: row.id,
            slot: row.slot.map(u64::from),
            through: row.through.unwrap_or(i64::MIN),
            transactions: row.transactions.get(),
            readings: row.readings.get(),
            base_units: row.base_units,
            pending,
            chain_hash: row
                .chain_hash
                .and_then(|hash| hash.try_into().ok())
                .unwrap_or([0; 32]),
            foreign: row.foreign,
            newest: row.newest,
        }
    }
}

impl ForeignSum {
    pub async fn up_to<'c>(
        executor: impl sqlx::PgExecutor<'c>,
        slot: u64,
    ) -> sqlx::Result<ForeignSum> {
        sqlx::query_as(
            "SELECT count(*) AS foreign_mints, COALESCE(sum(base_units), 0) AS base_units_foreign
             FROM foreign_mints
             WHERE booked_reason IS NOT NULL
               AND slot <= $1",
        )
        .bind(BigInt::from(slot))
        .fetch_one(executor)
        .await
    }
}

/// An audit found a difference: nothing that was compared counts as settled.
pub(super) async fn discard_all(connection: &mut PgConnection) -> sqlx::Result<()> {
    // In the order in which a finished full audit locks its run and the earlier ones: no deadlock.
    sqlx::query("SELECT FROM audit_runs ORDER BY id DESC FOR UPDATE")
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM audit_runs")
        .execute(connection)
        .await?;
    Ok(())
}

/// An interrupted full audit that is older than this is given up: its comparisons are of another time.
pub(super) async fn discard_old(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM audit_runs
         WHERE completed_at IS NULL
           AND began_at < now() - INTERVAL '2 days'",
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// An interrupted full audit is given up.
pub(super) async fn discard_under_way(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM audit_runs WHERE completed_at IS NULL")
        .execute(pool)
        .await?;
    Ok(())
}

async fn numbers_that_may_land(
    connection: &mut PgConnection,
    first: i64,
    last: i64,
) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar(
        "SELECT number
         FROM mint_transactions
         WHERE number BETWEEN $1 AND $2
           AND state <> 'dead'",
    )
    .bind(first)
    .bind(last)
    .fetch_all(connection)
    .await
}

/// A stored checkpoint, and the hash before it.
#[derive(Clone, Debug, FromRow)]
pub(super) struct StoredCheckpoint {
    pub first_number: i64,
    pub last_number: i64,
    transactions: BigInt,
    readings: BigInt,
    base_units: Total,
    left_out: Vec<i64>,
    late: Vec<i64>,
    chain_hash: Hash32,
    previous_hash: Option<Hash32>,
}

impl StoredCheckpoint {
    /// At random, at most this many.
    pub async fn sample(
        pool: &PgPool,
        run: i64,
        count: i64,
    ) -> sqlx::Result<Vec<StoredCheckpoint>> {
        sqlx::query_as(
            "SELECT first_number, last_number, transactions, readings, base_units, left_out, late, chain_hash, previous_hash
             FROM (
                 SELECT *, lag(chain_hash) OVER (ORDER BY id) AS previous_hash
                 FROM audit_checkpoints
                 WHERE run = $1
             ) AS checkpoint
             ORDER BY random()
             LIMIT $2",
        )
        .bind(run)
        .bind(count)
        .fetch_all(pool)
        .await
    }

    pub fn stored(&self) -> Digested {
        Digested {
            transactions: self.transactions.get(),
            readings: self.readings.get(),
            base_units: self.base_units,
            chain_hash: self.chain_hash,
        }
    }

    /// The same from the ledger's rows as they are now.
    pub async fn in_ledger(&self, pool: &PgPool, run: i64) -> sqlx::Result<Digested> {
        let rows: Vec<(i64, TxSignature, Vec<u8>, BigInt, Total)> = sqlx::query_as(
            "SELECT mint_transaction.number, mint_transaction.signature, mint_transaction.merkle_root,
                    (
                        SELECT count(*)
                        FROM mint_transaction_readings AS link
                        WHERE link.transaction = mint_transaction.number
                    ) AS readings,
                    mint_transaction.base_units
             FROM mint_transactions AS mint_transaction
             WHERE mint_transaction.state = 'finalized'
               AND (
                   mint_transaction.number = ANY($3)
                   OR (
                       mint_transaction.number BETWEEN $1 AND $2
                       AND mint_transaction.number <> ALL($4)
                       -- Covered by another checkpoint.
                       AND NOT EXISTS (
                           SELECT
                           FROM audit_checkpoints AS other
                           WHERE other.run = $5
                             AND mint_transaction.number = ANY(other.late)
                       )
                   )
               )
             ORDER BY mint_transaction.number",
        )
        .bind(self.first_number)
        .bind(self.last_number)
        .bind(&self.late)
        .bind(&self.left_out)
        .bind(run)
        .fetch_all(pool)
        .await?;
        let covered: BTreeMap<i64, Covered> = rows
            .into_iter()
            .map(|(number, signature, merkle_root, readings, base_units)| {
                let one = Covered {
                    signature: signature.bytes(),
                    merkle_root,
                    readings: readings.get(),
                    base_units,
                };
                (number, one)
            })
            .collect();
        Ok(segment::digest(
            &self.previous_hash.unwrap_or([0; 32]),
            &covered,
        ))
    }
}
