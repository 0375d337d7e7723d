//! Transactions that are late: when each is looked up in the endpoints' histories, and when a proof is searched for.
//!
//! They are apart from the transactions that are in time, so that any number of them delays no confirmation. What one look-up or
//! search does not bring to an end is due again after a pause that grows, is stored, and so outlives the process. No pause is longer
//! than 15 minutes: what is due in more than 20 was stored before the database's clock was set back, and is due now.

use sqlx::{FromRow, PgConnection, PgPool};

use crate::db::BigInt;
use crate::domain::{MintNumber, TxSignature};
use crate::ledger::resolver::open_transactions::OpenTransaction;

/// Late transactions looked up in one round: ten calls to each endpoint at most.
const LOOK_UPS_PER_ROUND: i64 = 2_560;
/// Searches for a proof in one round: the others are due in the next.
const PROOFS_PER_ROUND: i64 = 1_000;

/// A transaction whose look-up is due.
#[derive(Clone, Debug, FromRow)]
pub struct DueLookUp {
    #[sqlx(flatten)]
    pub open: OpenTransaction,
    /// So far.
    #[sqlx(try_from = "i32")]
    pub look_ups: Count,
}

/// A count in an INTEGER column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u32);

impl From<i32> for Count {
    fn from(count: i32) -> Count {
        Count(count.unsigned_abs())
    }
}

/// An expired transaction for which a proof is due.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct DueProof {
    pub number: MintNumber,
    pub signature: TxSignature,
    #[sqlx(try_from = "BigInt")]
    pub blockhash_slot: u64,
    #[sqlx(try_from = "BigInt")]
    pub last_valid_block_height: u64,
    /// So far.
    #[sqlx(try_from = "i32")]
    pub proofs_failed: Count,
}

/// A pause until the next look-up or search of a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    pub number: MintNumber,
    pub secs: f64,
}

/// From now on the look-ups of these are scheduled here; those that have ended meanwhile are left out.
pub async fn hand_over(pool: &PgPool, numbers: &[MintNumber]) -> sqlx::Result<()> {
    sqlx::query(
        "WITH late AS (
             UPDATE mint_transactions
             SET late = TRUE
             WHERE number = ANY($1)
               AND state IN ('recorded', 'confirmed')
             RETURNING number
         )
         INSERT INTO late_transactions (number)
         SELECT number
         FROM late
         ON CONFLICT DO NOTHING",
    )
    .bind(numbers)
    .execute(pool)
    .await?;
    Ok(())
}

/// Recent ones first, because they may still land or become final; then those that were looked up least often, and of these the
/// newest.
pub async fn due_for_look_up(pool: &PgPool) -> sqlx::Result<Vec<DueLookUp>> {
    sqlx::query_as(
        "SELECT number, signature, state, last_valid_block_height, endpoint,
                (EXTRACT(EPOCH FROM now() - recorded_at) * 1000)::BIGINT AS age_ms, look_ups
         FROM late_transactions
         JOIN mint_transactions USING (number)
         WHERE (look_up_at <= now() OR look_up_at > now() + INTERVAL '20 min')
           AND state IN ('recorded', 'confirmed', 'quarantined')
         ORDER BY recorded_at < now() - INTERVAL '10 min', look_ups, number DESC
         LIMIT $1",
    )
    .bind(LOOK_UPS_PER_ROUND)
    .fetch_all(pool)
    .await
}

/// The next look-up is due at once: a person has changed its state.
pub async fn look_up_now(transaction: &mut PgConnection, number: MintNumber) -> sqlx::Result<()> {
    sqlx::query("UPDATE late_transactions SET look_up_at = now() WHERE number = $1")
        .bind(number)
        .execute(transaction)
        .await?;
    Ok(())
}

/// One more look-up of each that did not bring it to an end.
pub async fn note_look_ups(pool: &PgPool, pauses: &[Pause]) -> sqlx::Result<()> {
    let (numbers, secs) = columns(pauses);
    sqlx::query(
        "UPDATE late_transactions AS late
         SET look_ups = late.look_ups + 1, look_up_at = now() + make_interval(secs => pause.secs)
         FROM UNNEST($1::BIGINT[], $2::FLOAT8[]) AS pause (number, secs)
         WHERE late.number = pause.number",
    )
    .bind(numbers)
    .bind(secs)
    .execute(pool)
    .await?;
    Ok(())
}

/// Those that were looked up in history before, or could not be for a minute, and whose last valid height is below `height`. Those
/// whose search never failed come first, of these the recent ones, and of these the oldest blockhash, so that blocks are read in
/// their order.
pub async fn due_for_proof(pool: &PgPool, height: u64) -> sqlx::Result<Vec<DueProof>> {
    sqlx::query_as(
        "SELECT number, signature, blockhash_slot, last_valid_block_height, proofs_failed
         FROM late_transactions
         JOIN mint_transactions USING (number)
         WHERE (proof_at <= now() OR proof_at > now() + INTERVAL '20 min')
           AND (look_ups > 0 OR expired_at < now() - INTERVAL '1 min')
           AND state IN ('recorded', 'quarantined')
           AND last_valid_block_height < $1
         ORDER BY proofs_failed > 0, recorded_at < now() - INTERVAL '1 h', proof_at, last_valid_block_height
         LIMIT $2",
    )
    .bind(BigInt::from(height))
    .bind(PROOFS_PER_ROUND)
    .fetch_all(pool)
    .await
}

/// One more search for each that no endpoint could complete, and why.
pub async fn note_failed_proofs(
    pool: &PgPool,
    pauses: &[Pause],
    reasons: &[String],
) -> sqlx::Result<()> {
    let (numbers, secs) = columns(pauses);
    sqlx::query(
        "UPDATE late_transactions AS late
         SET proofs_failed = late.proofs_failed + 1, proof_at = now() + make_interval(secs => pause.secs),
             no_proof = pause.reason
         FROM UNNEST($1::BIGINT[], $2::FLOAT8[], $3::TEXT[]) AS pause (number, secs, reason)
         WHERE late.number = pause.number",
    )
    .bind(numbers)
    .bind(secs)
    .bind(reasons)
    .execute(pool)
    .await?;
    Ok(())
}

/// Deletes the schedules of transactions that have ended.
pub async fn delete_ended(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM late_transactions
         USING mint_transactions AS mint_transaction
         WHERE mint_transaction.number = late_transactions.number
           AND mint_transaction.state IN ('finalized', 'dead')",
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Makes everything due if the endpoints are others than at the last search: what was added may have what the others lack.
pub async fn restart_if_others(pool: &PgPool, endpoints: &str) -> sqlx::Result<()> {
    sqlx::query(
        "WITH changed AS (
             UPDATE proof_clock
             SET endpoints = $1
             WHERE endpoints <> $1
             RETURNING 1
         )
         UPDATE late_transactions
         SET look_up_at = now(), proof_at = now()
         WHERE EXISTS (SELECT FROM changed)
           AND (look_up_at > now() OR proof_at > now())",
    )
    .bind(endpoints)
    .execute(pool)
    .await?;
    Ok(())
}

/// Schedules those that should be here and are not: the previous version quarantines without a schedule.
pub async fn schedule_missing(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query(
        "WITH missing AS (
             UPDATE mint_transactions AS mint_transaction
             SET late = TRUE
             WHERE state IN ('recorded', 'confirmed', 'quarantined')
               AND (late OR state = 'quarantined')
               AND NOT EXISTS (
                   SELECT FROM late_transactions AS schedule
                   WHERE schedule.number = mint_transaction.number
               )
             RETURNING number
         )
         INSERT INTO late_transactions (number)
         SELECT number
         FROM missing
         ON CONFLICT DO NOTHING",
    )
    .execute(pool)
    .await?;
    Ok(())
}

fn columns(pauses: &[Pause]) -> (Vec<MintNumber>, Vec<f64>) {
    pauses
        .iter()
        .map(|pause| (pause.number, pause.secs))
        .unzip()
}
