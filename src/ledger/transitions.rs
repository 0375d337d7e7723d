//! Changes of a mint transaction's state: confirmed, finalized, forked, dead, quarantined.
//!
//! Invariant: every change is compare-and-set on the transaction's state, and only the writer whose change took effect
//! writes its events. Two Resolvers, or one that was suspended for minutes, can therefore never publish an event twice, nor
//! undo what another has done.

use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use super::changed_readings::{ChangedReading, move_readings, publish_for};
use super::guard::mint_transaction_guard;
use super::transition_metrics::{self, Paid, TransactionOutcome};
use crate::chain::BLOCKHASH_LIFE;
use crate::db::{self, BigInt};
use crate::domain::{MintNumber, MintTransactionEvent, ReadingEvent, Wallet};
use crate::outbox::{self, EventType, MintReading, NewJob, Topic};

/// A transaction that landed without an error.
#[derive(Clone, Copy, Debug)]
pub struct Landed {
    pub number: MintNumber,
    pub slot: u64,
}

/// Landed and confirmed: its readings become `minted`, and their owners are notified. Returns how many readings changed.
pub async fn confirm(pool: &PgPool, landed: &[Landed]) -> sqlx::Result<usize> {
    let mut transaction = db::begin(pool).await?;
    let confirmed = confirm_in(&mut transaction, landed, MintTransactionEvent::Confirmed).await?;
    crate::failpoint!("ledger.before_confirm_commit");
    transaction.commit().await?;
    confirmed.report();
    crate::failpoint!("ledger.confirmed");
    Ok(confirmed.readings.len())
}

/// Confirmed transactions and readings, to be reported to the metrics after the commit.
#[derive(Debug)]
pub struct Confirmed {
    pub transactions: usize,
    paid: Paid,
    pub readings: Vec<ChangedReading>,
}

impl Confirmed {
    pub fn report(&self) {
        transition_metrics::report_confirmed(self.transactions, self.paid, &self.readings);
    }
}

#[derive(FromRow)]
struct ConfirmedRow {
    number: MintNumber,
    fee_lamports: BigInt,
    priority_fee_lamports: BigInt,
    rent_lamports: BigInt,
}

/// [`confirm`] in the caller's transaction. `event`: the resolver found it on chain, or a person resolved it as landed and the
/// chain shows it.
pub async fn confirm_in(
    transaction: &mut PgConnection,
    landed: &[Landed],
    event: MintTransactionEvent,
) -> sqlx::Result<Confirmed> {
    let guard = mint_transaction_guard(event);
    let numbers: Vec<MintNumber> = landed.iter().map(|landed| landed.number).collect();
    let slots: Vec<BigInt> = landed.iter().map(|landed| landed.slot.into()).collect();
    let changed: Vec<ConfirmedRow> = sqlx::query_as(
        "UPDATE mint_transactions AS mint_transaction
         SET state = $3, slot = landed.slot, confirmed_at = now(), sent_at = COALESCE(sent_at, now())
         FROM UNNEST($1::BIGINT[], $2::BIGINT[]) AS landed (number, slot)
         WHERE mint_transaction.number = landed.number
           AND mint_transaction.state = ANY($4)
         RETURNING mint_transaction.number, mint_transaction.fee_lamports,
                   mint_transaction.priority_fee_lamports,
                   booked_rent_lamports(
                       mint_transaction.account_creations,
                       mint_transaction.token_account_rent_lamports
                   ) AS rent_lamports",
    )
    .bind(numbers)
    .bind(slots)
    .bind(guard.to)
    .bind(guard.from)
    .fetch_all(&mut *transaction)
    .await?;
    let numbers: Vec<MintNumber> = changed.iter().map(|row| row.number).collect();
    let readings = move_readings(transaction, &numbers, event.for_readings()).await?;
    publish_for(transaction, EventType::TokensMinted, &readings).await?;
    let mut paid = Paid::default();
    for row in &changed {
        let priority_fee = row.priority_fee_lamports.get();
        paid.base_fee += row.fee_lamports.get().saturating_sub(priority_fee);
        paid.priority_fee += priority_fee;
        paid.rent += row.rent_lamports.get();
    }
    Ok(Confirmed {
        transactions: changed.len(),
        paid,
        readings,
    })
}

/// A landed transaction that cannot be rolled back.
#[derive(Clone, Copy, Debug)]
pub struct Final {
    pub landed: Landed,
    /// Seconds since 1970, by the chain; `None` when no endpoint reported it.
    pub block_time: Option<i64>,
}

/// Finalized: the payment cannot be rolled back. From here on the wallets' token accounts are known to exist.
pub async fn finalize(pool: &PgPool, ended: &[Final]) -> sqlx::Result<usize> {
    let guard = mint_transaction_guard(MintTransactionEvent::Finalized);
    let numbers: Vec<MintNumber> = ended.iter().map(|ended| ended.landed.number).collect();
    let slots: Vec<BigInt> = ended.iter().map(|ended| ended.landed.slot.into()).collect();
    let block_times: Vec<Option<i64>> = ended.iter().map(|ended| ended.block_time).collect();
    let mut transaction = db::begin(pool).await?;
    let changed: Vec<MintNumber> = sqlx::query_scalar(
        "UPDATE mint_transactions AS mint_transaction
         SET state = $4, finalized_at = now(), ended_at = now(), slot = final.slot,
             block_time = to_timestamp(final.block_time)
         FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[]) AS final (number, slot, block_time)
         WHERE mint_transaction.number = final.number
           AND mint_transaction.state = ANY($5)
         RETURNING mint_transaction.number",
    )
    .bind(numbers)
    .bind(slots)
    .bind(block_times)
    .bind(guard.to)
    .bind(guard.from)
    .fetch_all(&mut *transaction)
    .await?;
    let readings = move_readings(&mut transaction, &changed, ReadingEvent::Finalized).await?;
    let wallets: Vec<Wallet> = readings.iter().map(|reading| reading.wallet).collect();
    sqlx::query(
        "INSERT INTO token_accounts (wallet)
         SELECT DISTINCT wallet
         FROM UNNEST($1::BYTEA[]) AS paid (wallet)
         ORDER BY wallet
         ON CONFLICT DO NOTHING",
    )
    .bind(wallets)
    .execute(&mut *transaction)
    .await?;
    publish_for(&mut transaction, EventType::MintFinalized, &readings).await?;
    crate::failpoint!("ledger.before_finalize_commit");
    transaction.commit().await?;
    transition_metrics::report_finalized(changed.len(), &readings);
    crate::failpoint!("ledger.finalized");
    Ok(readings.len())
}

/// A confirmed transaction vanished before finality: it becomes `recorded` again, and the same bytes are sent again.
pub async fn fork(pool: &PgPool, numbers: &[MintNumber]) -> sqlx::Result<usize> {
    let guard = mint_transaction_guard(MintTransactionEvent::Forked);
    let mut transaction = db::begin(pool).await?;
    let changed: Vec<MintNumber> = sqlx::query_scalar(
        "UPDATE mint_transactions
         SET state = $2, slot = NULL, confirmed_at = NULL
         WHERE number = ANY($1)
           AND state = ANY($3)
         RETURNING number",
    )
    .bind(numbers)
    .bind(guard.to)
    .bind(guard.from)
    .fetch_all(&mut *transaction)
    .await?;
    let readings = move_readings(&mut transaction, &changed, ReadingEvent::Forked).await?;
    transaction.commit().await?;
    transition_metrics::count_transactions(TransactionOutcome::Forked, changed.len());
    Ok(readings.len())
}

/// Proven absent from every block that could hold it: its readings become due at once for another transaction. Returns how many
/// those are; `None` when the transaction had already ended.
///
/// The statement that decides checks the stored proof: a run of this endpoint over the whole life ([`BlockRun::covers`], in SQL)
/// and no block with the signature. Without it nothing is written, and the result is `None` too.
///
/// [`BlockRun::covers`]: crate::chain::BlockRun::covers
pub async fn mark_dead_expired(
    pool: &PgPool,
    number: MintNumber,
    fingerprint: &str,
) -> sqlx::Result<Option<usize>> {
    let event = MintTransactionEvent::Dead;
    let guard = mint_transaction_guard(event);
    let mut transaction = db::begin(pool).await?;
    let changed = sqlx::query(
        "UPDATE mint_transactions AS mint_transaction
         SET state = $2, error = 'expired: none of the finalized blocks of its life holds it', ended_at = now()
         WHERE number = $1
           AND state = ANY($3)
           AND NOT EXISTS (
               SELECT FROM scanned_signatures AS found
               WHERE found.signature = mint_transaction.signature
           )
           AND EXISTS (
               SELECT FROM scanned_runs AS run
               WHERE run.endpoint = $4
                 AND run.first_slot <= mint_transaction.blockhash_slot
                 AND run.first_height + $5 <= mint_transaction.last_valid_block_height
                 AND run.last_height > mint_transaction.last_valid_block_height
           )",
    )
    .bind(number)
    .bind(guard.to)
    .bind(guard.from)
    .bind(fingerprint)
    .bind(BigInt::from(BLOCKHASH_LIFE))
    .execute(&mut *transaction)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(None);
    }
    let readings = release_readings(&mut transaction, number, event).await?;
    requeue(&mut transaction, &readings).await?;
    crate::failpoint!("ledger.before_dead_commit");
    transaction.commit().await?;
    transition_metrics::count_transactions(TransactionOutcome::Dead, 1);
    crate::failpoint!("ledger.dead");
    Ok(Some(readings.len()))
}

/// [`mark_dead`], and its readings are due at once. Returns how many those are.
pub async fn mark_dead_and_requeue(
    transaction: &mut PgConnection,
    number: MintNumber,
    event: MintTransactionEvent,
    reason: &str,
) -> sqlx::Result<Option<usize>> {
    let Some(readings) = mark_dead(transaction, number, event, reason).await? else {
        return Ok(None);
    };
    requeue(transaction, &readings).await?;
    Ok(Some(readings.len()))
}

async fn requeue(transaction: &mut PgConnection, readings: &[ChangedReading]) -> sqlx::Result<()> {
    let jobs: Vec<NewJob> = readings
        .iter()
        .map(|reading| MintReading::now(reading.id))
        .collect();
    outbox::enqueue(transaction, &jobs).await?;
    outbox::notify(transaction, Topic::OutboxAndJobs).await
}

/// Marks the transaction dead in the caller's transaction and releases its readings, so that they may have another live one.
/// Returns those readings; `None` when the transaction had already ended.
pub async fn mark_dead(
    transaction: &mut PgConnection,
    number: MintNumber,
    event: MintTransactionEvent,
    reason: &str,
) -> sqlx::Result<Option<Vec<ChangedReading>>> {
    let guard = mint_transaction_guard(event);
    let changed = sqlx::query(
        "UPDATE mint_transactions
         SET state = $2, error = $4, ended_at = now()
         WHERE number = $1
           AND state = ANY($3)",
    )
    .bind(number)
    .bind(guard.to)
    .bind(guard.from)
    .bind(reason)
    .execute(&mut *transaction)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(None);
    }
    Ok(Some(release_readings(transaction, number, event).await?))
}

/// Those of a dead transaction: they may have another live one.
async fn release_readings(
    transaction: &mut PgConnection,
    number: MintNumber,
    event: MintTransactionEvent,
) -> sqlx::Result<Vec<ChangedReading>> {
    let readings = move_readings(transaction, &[number], event.for_readings()).await?;
    sqlx::query(
        "UPDATE mint_transaction_readings
         SET live = FALSE
         WHERE transaction = $1",
    )
    .bind(number)
    .execute(transaction)
    .await?;
    Ok(readings)
}

/// Unproven for too long after its expiry. The search for a proof continues (rule 3). Its readings show the reason. Returns how
/// many readings changed.
pub async fn quarantine(pool: &PgPool, number: MintNumber, reason: &str) -> sqlx::Result<usize> {
    let guard = mint_transaction_guard(MintTransactionEvent::Quarantined);
    let mut transaction = db::begin(pool).await?;
    let changed = sqlx::query(
        "UPDATE mint_transactions
         SET state = $2
         WHERE number = $1
           AND state = ANY($3)",
    )
    .bind(number)
    .bind(guard.to)
    .bind(guard.from)
    .execute(&mut *transaction)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(0);
    }
    let readings = move_readings(&mut transaction, &[number], ReadingEvent::Quarantined).await?;
    show_reason(&mut transaction, &readings, reason).await?;
    crate::failpoint!("ledger.before_quarantine_commit");
    transaction.commit().await?;
    transition_metrics::count_transactions(TransactionOutcome::Quarantined, 1);
    crate::failpoint!("ledger.quarantined");
    Ok(readings.len())
}

async fn show_reason(
    transaction: &mut PgConnection,
    readings: &[ChangedReading],
    reason: &str,
) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = readings.iter().map(|reading| reading.id).collect();
    sqlx::query("UPDATE readings SET last_error = $2 WHERE id = ANY($1)")
        .bind(ids)
        .bind(reason)
        .execute(transaction)
        .await?;
    Ok(())
}
