//! Runs of finalized blocks, and our own signatures in them, as the database holds them.
//!
//! Invariant: a run and the signatures that were found in its blocks are written in one transaction, so that a reader who sees a
//! run also sees what was found in it.

use std::time::Duration;

use solana_sdk::hash::Hash;
use sqlx::{FromRow, PgConnection, PgExecutor, PgPool};

use crate::chain::{
    BLOCKHASH_LIFE, BlockRun, BlockRuns, BlockhashLife, FinalizedBlock, ListedTransaction,
    RunChange, RunStore, Saved,
};
use crate::db::{self, BigInt, within};
use crate::domain::{MintNumber, TxSignature};

/// Transactions that one look finds at most.
const ABSENT_MAX: i64 = 1_000;

/// The runs of one endpoint.
pub struct EndpointRuns<'a> {
    pub pool: &'a PgPool,
    /// Of the endpoint.
    pub fingerprint: &'a str,
    /// Bounds one transaction of the database.
    pub limit: Duration,
}

#[derive(FromRow)]
struct RunRow {
    first_slot: BigInt,
    first_height: BigInt,
    first_parent_slot: BigInt,
    first_parent_hash: [u8; 32],
    last_slot: BigInt,
    last_height: BigInt,
    last_hash: [u8; 32],
}

impl From<RunRow> for BlockRun {
    fn from(row: RunRow) -> BlockRun {
        BlockRun {
            first_slot: row.first_slot.get(),
            first_height: row.first_height.get(),
            first_parent_slot: row.first_parent_slot.get(),
            first_parent_hash: Hash::new_from_array(row.first_parent_hash),
            last_slot: row.last_slot.get(),
            last_height: row.last_height.get(),
            last_hash: Hash::new_from_array(row.last_hash),
        }
    }
}

impl EndpointRuns<'_> {
    pub async fn load(&self) -> sqlx::Result<BlockRuns> {
        let rows = sqlx::query_as(
            "SELECT first_slot, first_height, first_parent_slot, first_parent_hash, last_slot, last_height, last_hash
             FROM scanned_runs
             WHERE endpoint = $1",
        )
        .bind(self.fingerprint)
        .fetch_all(self.pool);
        let rows: Vec<RunRow> = within(self.limit, rows).await?;
        Ok(BlockRuns::new(
            rows.into_iter().map(BlockRun::from).collect(),
        ))
    }

    async fn write(
        &self,
        change: &RunChange,
        found: &[TxSignature],
        slot: u64,
    ) -> sqlx::Result<Saved> {
        let mut transaction = db::begin(self.pool).await?;
        // Compare and set: another leader may have read on from the same ends.
        if remove(&mut transaction, self.fingerprint, &change.replaced).await?
            != change.replaced.len()
            || !insert(&mut transaction, self.fingerprint, &change.run).await?
        {
            return Ok(Saved::Stale);
        }
        store_found(&mut transaction, found, slot, self.fingerprint).await?;
        crate::failpoint!("ledger.before_scanned_block_commit");
        transaction.commit().await?;
        Ok(Saved::Stored)
    }
}

impl RunStore for EndpointRuns<'_> {
    type Error = sqlx::Error;

    async fn save(&mut self, block: &FinalizedBlock, change: &RunChange) -> sqlx::Result<Saved> {
        // Looked up after the block was answered: see the page of this wing.
        let found = within(self.limit, ours_among(self.pool, &block.signatures)).await?;
        within(self.limit, self.write(change, &found, block.slot)).await
    }

    async fn forget(&mut self) -> sqlx::Result<()> {
        let deleted = sqlx::query("DELETE FROM scanned_runs WHERE endpoint = $1")
            .bind(self.fingerprint)
            .execute(self.pool);
        within(self.limit, deleted).await?;
        Ok(())
    }
}

/// Those that belong to open transactions.
async fn ours_among(pool: &PgPool, signatures: &[TxSignature]) -> sqlx::Result<Vec<TxSignature>> {
    sqlx::query_scalar(
        // Not by slot or height, which an endpoint may count differently. Materialized: the open ones are few, and the planner
        // must not search the index of all signatures for each of a block's thousands.
        "WITH open AS MATERIALIZED (
             SELECT signature
             FROM mint_transactions
             WHERE state IN ('recorded', 'confirmed', 'quarantined')
         )
         SELECT DISTINCT signature
         FROM open
         JOIN UNNEST($1::BYTEA[]) AS block (signature) USING (signature)",
    )
    .bind(signatures)
    .fetch_all(pool)
    .await
}

/// Stores that these signatures were found in a finalized block: they are never proven dead.
pub async fn store_found(
    transaction: &mut PgConnection,
    signatures: &[TxSignature],
    slot: u64,
    fingerprint: &str,
) -> sqlx::Result<()> {
    if signatures.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO scanned_signatures (signature, slot, endpoint)
         SELECT DISTINCT signature, $2::BIGINT, $3
         FROM UNNEST($1::BYTEA[]) AS found (signature)
         ORDER BY signature
         ON CONFLICT DO NOTHING",
    )
    .bind(signatures)
    .bind(BigInt::from(slot))
    .bind(fingerprint)
    .execute(transaction)
    .await?;
    Ok(())
}

/// A list showed these transactions as landed and final. Those of them that the ledger holds as open are never proven dead, and are
/// looked up at once.
pub async fn note_landed(
    pool: &PgPool,
    shown: &[ListedTransaction],
    fingerprint: &str,
) -> sqlx::Result<()> {
    if shown.is_empty() {
        return Ok(());
    }
    let signatures: Vec<TxSignature> = shown.iter().map(|shown| shown.signature).collect();
    let slots: Vec<BigInt> = shown.iter().map(|shown| BigInt::from(shown.slot)).collect();
    sqlx::query(
        "WITH open AS (
             SELECT mint.number, shown.signature, shown.slot
             FROM UNNEST($1::BYTEA[], $2::BIGINT[]) AS shown (signature, slot)
             JOIN mint_transactions AS mint ON mint.signature = shown.signature
             WHERE mint.state IN ('recorded', 'quarantined')
         ), looked_up AS (
             UPDATE late_transactions AS late
             SET look_up_at = now()
             FROM open
             WHERE late.number = open.number
         )
         INSERT INTO scanned_signatures (signature, slot, endpoint)
         SELECT signature, slot, $3
         FROM open
         ORDER BY signature
         ON CONFLICT DO NOTHING",
    )
    .bind(&signatures)
    .bind(&slots)
    .bind(fingerprint)
    .execute(pool)
    .await?;
    Ok(())
}

/// Returns how many of these runs were still as they are given here.
async fn remove(
    transaction: &mut PgConnection,
    fingerprint: &str,
    runs: &[BlockRun],
) -> sqlx::Result<usize> {
    let mut removed = 0;
    for run in runs {
        let deleted = sqlx::query(
            "DELETE FROM scanned_runs
             WHERE endpoint = $1
               AND first_slot = $2
               AND first_parent_hash = $3
               AND last_slot = $4
               AND last_hash = $5",
        )
        .bind(fingerprint)
        .bind(BigInt::from(run.first_slot))
        .bind(run.first_parent_hash.as_ref())
        .bind(BigInt::from(run.last_slot))
        .bind(run.last_hash.as_ref())
        .execute(&mut *transaction)
        .await?;
        removed += usize::try_from(deleted.rows_affected()).unwrap_or_default();
    }
    Ok(removed)
}

/// False: another run touches or overlaps this one.
async fn insert(
    transaction: &mut PgConnection,
    fingerprint: &str,
    run: &BlockRun,
) -> sqlx::Result<bool> {
    let inserted = sqlx::query(
        "INSERT INTO scanned_runs (endpoint, first_slot, first_height, first_parent_slot, last_slot, last_height,
                                   first_parent_hash, last_hash)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8
         WHERE NOT EXISTS (
             SELECT
             FROM scanned_runs
             WHERE endpoint = $1
               AND first_parent_slot <= $5
               AND last_slot >= $4
         )
         ON CONFLICT DO NOTHING",
    )
    .bind(fingerprint)
    .bind(BigInt::from(run.first_slot))
    .bind(BigInt::from(run.first_height))
    .bind(BigInt::from(run.first_parent_slot))
    .bind(BigInt::from(run.last_slot))
    .bind(BigInt::from(run.last_height))
    .bind(run.first_parent_hash.as_ref())
    .bind(run.last_hash.as_ref())
    .execute(transaction)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// A transaction whose signature was found in no finalized block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct Absent {
    pub number: MintNumber,
    pub signature: TxSignature,
    #[sqlx(try_from = "BigInt")]
    pub blockhash_slot: u64,
    #[sqlx(try_from = "BigInt")]
    pub last_valid_block_height: u64,
}

impl Absent {
    pub fn life(&self) -> BlockhashLife {
        BlockhashLife {
            slot: self.blockhash_slot,
            last_valid_block_height: self.last_valid_block_height,
        }
    }
}

/// Candidates for a proof by this run, which must have been stored before: those that [`BlockRun::covers`] confirms. The statement
/// that marks them dead checks all of it once more.
pub async fn absent_from(pool: &PgPool, run: &BlockRun) -> sqlx::Result<Vec<Absent>> {
    sqlx::query_as(
        "SELECT number, signature, blockhash_slot, last_valid_block_height
         FROM mint_transactions AS mint_transaction
         WHERE state IN ('recorded', 'quarantined')
           AND last_valid_block_height BETWEEN $1 AND $2
           AND blockhash_slot >= $3
           AND NOT EXISTS (
               SELECT FROM scanned_signatures AS found
               WHERE found.signature = mint_transaction.signature
           )
         ORDER BY last_valid_block_height, number
         LIMIT $4",
    )
    .bind(BigInt::from(run.first_height + BLOCKHASH_LIFE))
    .bind(BigInt::from(run.last_height.saturating_sub(1)))
    .bind(BigInt::from(run.first_slot))
    .bind(ABSENT_MAX)
    .fetch_all(pool)
    .await
}

/// The slot of the finalized block in which this signature was found.
pub async fn found_in<'c>(
    executor: impl PgExecutor<'c>,
    signature: &TxSignature,
) -> sqlx::Result<Option<u64>> {
    let slot: Option<BigInt> =
        sqlx::query_scalar("SELECT slot FROM scanned_signatures WHERE signature = $1")
            .bind(signature)
            .fetch_optional(executor)
            .await?;
    Ok(slot.map(BigInt::get))
}

/// Deletes the runs in which no open transaction could be, and what was found of transactions that have ended.
pub async fn prune(pool: &PgPool) -> sqlx::Result<()> {
    let mut transaction = db::begin(pool).await?;
    sqlx::query(
        "DELETE FROM scanned_runs AS run
         WHERE NOT EXISTS (
             SELECT FROM mint_transactions
             WHERE state IN ('recorded', 'confirmed', 'quarantined')
               AND last_valid_block_height BETWEEN run.first_height - 2 AND run.last_height + $1
         )",
    )
    .bind(BigInt::from(2 * BLOCKHASH_LIFE))
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "DELETE FROM scanned_signatures AS found
         USING mint_transactions AS mint_transaction
         WHERE mint_transaction.signature = found.signature
           AND mint_transaction.state IN ('finalized', 'dead')",
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}
