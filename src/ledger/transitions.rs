//! What the chain said about recorded transactions, written down: confirmed, finalized, forked, dead, quarantined.
//!
//! Invariant: every change is compare-and-set on the transaction's state, and only the writer whose change was made
//! writes its events. Two Resolvers, or one that was asleep for minutes, can therefore never tell a thing twice, nor undo
//! what another has done.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use solana_sdk::signature::Signature;
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use super::guard::{mint_transaction_guard, reading_guard};
use super::transition_metrics::Paid;
use super::{LedgerError, transition_metrics};
use crate::chain::TOKEN_ACCOUNT_RENT_LAMPORTS;
use crate::domain::{BaseUnits, Kwh, MeterSerial, MintTransactionEvent, ReadingEvent, Wallet};
use crate::outbox::{self, Event, EventFields, EventType, MintReading, NewJob, Topic};

/// A transaction that was seen on chain without an error.
#[derive(Clone, Copy, Debug)]
pub struct Landed {
    pub number: i64,
    pub slot: u64,
}

/// Landed and confirmed: its readings are `minted`, their owners are told. Returns the readings that changed.
pub async fn confirm(pool: &PgPool, landed: &[Landed]) -> Result<u64, LedgerError> {
    let mut transaction = pool.begin().await?;
    let confirmed = confirm_in(&mut transaction, landed, MintTransactionEvent::Confirmed).await?;
    crate::failpoint!("ledger.before_confirm_commit");
    transaction.commit().await?;
    confirmed.report();
    crate::failpoint!("ledger.confirmed");
    Ok(confirmed.readings.len() as u64)
}

/// What was confirmed, to be counted once that is committed.
#[derive(Debug)]
pub(super) struct Confirmed {
    pub transactions: usize,
    paid: Paid,
    pub readings: Vec<ChangedReading>,
}

impl Confirmed {
    pub fn report(&self) {
        transition_metrics::report_confirmed(self.transactions, self.paid, &self.readings);
    }
}

/// The same in the caller's transaction. `event`: the chain has shown it, or a person has said and the chain shown it.
pub(super) async fn confirm_in(
    transaction: &mut PgConnection,
    landed: &[Landed],
    event: MintTransactionEvent,
) -> Result<Confirmed, LedgerError> {
    let guard = mint_transaction_guard(event);
    let numbers: Vec<i64> = landed.iter().map(|landed| landed.number).collect();
    let slots: Vec<i64> = landed.iter().map(|landed| landed.slot as i64).collect();
    let changed: Vec<(i64, i64, i64, i32)> = sqlx::query_as(
        "UPDATE mint_transactions AS mint_transaction
         SET state = $3, slot = landed.slot, confirmed_at = now(), sent_at = COALESCE(sent_at, now())
         FROM UNNEST($1::BIGINT[], $2::BIGINT[]) AS landed (number, slot)
         WHERE mint_transaction.number = landed.number
           AND mint_transaction.state = ANY($4)
         RETURNING mint_transaction.number, mint_transaction.fee_lamports,
                   mint_transaction.priority_fee_lamports, mint_transaction.account_creations",
    )
    .bind(numbers)
    .bind(slots)
    .bind(guard.to)
    .bind(guard.from)
    .fetch_all(&mut *transaction)
    .await?;
    let numbers: Vec<i64> = changed.iter().map(|(number, ..)| *number).collect();
    let readings = move_readings(transaction, &numbers, event.for_readings()).await?;
    publish_for(transaction, EventType::TokensMinted, &readings).await?;
    let mut paid = Paid::default();
    for (_, fee, priority_fee, creations) in &changed {
        paid.base_fee += (fee - priority_fee) as u64;
        paid.priority_fee += *priority_fee as u64;
        paid.rent += *creations as u64 * TOKEN_ACCOUNT_RENT_LAMPORTS;
    }
    Ok(Confirmed {
        transactions: changed.len(),
        paid,
        readings,
    })
}

/// Finalized: the books are closed. The wallets' token accounts are known to exist from here on.
///
/// `block_times` are seconds since 1970, one for each.
pub async fn finalize(
    pool: &PgPool,
    landed: &[Landed],
    block_times: &[Option<i64>],
) -> Result<u64, LedgerError> {
    let guard = mint_transaction_guard(MintTransactionEvent::Finalized);
    let numbers: Vec<i64> = landed.iter().map(|landed| landed.number).collect();
    let slots: Vec<i64> = landed.iter().map(|landed| landed.slot as i64).collect();
    let mut transaction = pool.begin().await?;
    let changed: Vec<i64> = sqlx::query_scalar(
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
    sqlx::query(
        "INSERT INTO token_accounts (wallet)
         SELECT DISTINCT wallet
         FROM UNNEST($1::BYTEA[]) AS paid (wallet)
         ORDER BY wallet
         ON CONFLICT DO NOTHING",
    )
    .bind(
        readings
            .iter()
            .map(|reading| reading.wallet.clone())
            .collect::<Vec<_>>(),
    )
    .execute(&mut *transaction)
    .await?;
    publish_for(&mut transaction, EventType::MintFinalized, &readings).await?;
    crate::failpoint!("ledger.before_finalize_commit");
    transaction.commit().await?;
    transition_metrics::report_finalized(changed.len(), &readings);
    crate::failpoint!("ledger.finalized");
    Ok(readings.len() as u64)
}

/// No payment of the ledger is known to be final in a later slot; 0 if none is. An endpoint whose finalized slot is below has not
/// seen all of them.
pub async fn newest_finalized_slot(pool: &PgPool) -> Result<u64, LedgerError> {
    let slot: Option<i64> = sqlx::query_scalar(
        "SELECT max(slot)
         FROM mint_transactions
         WHERE state = 'finalized'",
    )
    .fetch_one(pool)
    .await?;
    Ok(slot.unwrap_or_default().max(0) as u64)
}

/// A confirmed transaction vanished before finality: it is `recorded` again, and the same bytes will be sent again.
pub async fn fork(pool: &PgPool, numbers: &[i64]) -> Result<u64, LedgerError> {
    let guard = mint_transaction_guard(MintTransactionEvent::Forked);
    let mut transaction = pool.begin().await?;
    let changed: Vec<i64> = sqlx::query_scalar(
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
    transition_metrics::count_transactions("forked", changed.len());
    Ok(readings.len() as u64)
}

/// Proven absent from every block that could hold it: its readings may be paid by another transaction, at once.
pub async fn mark_dead_expired(pool: &PgPool, number: i64) -> Result<u64, LedgerError> {
    let mut transaction = pool.begin().await?;
    let readings = mark_dead_in(
        &mut transaction,
        number,
        MintTransactionEvent::Dead,
        "expired: none of the finalized blocks of its life holds it",
    )
    .await?;
    let Some(readings) = readings else {
        return Ok(0);
    };
    crate::failpoint!("ledger.before_dead_commit");
    transaction.commit().await?;
    transition_metrics::count_transactions("dead", 1);
    crate::failpoint!("ledger.dead");
    Ok(readings)
}

/// Marks the transaction dead and lets its readings go, which are due at once, in the caller's transaction. Returns how
/// many those are; `None` when somebody else has ended it.
pub(super) async fn mark_dead_in(
    transaction: &mut PgConnection,
    number: i64,
    event: MintTransactionEvent,
    reason: &str,
) -> Result<Option<u64>, LedgerError> {
    let guard = mint_transaction_guard(event);
    if !mark_dead(transaction, number, &guard, reason).await? {
        return Ok(None);
    }
    let readings = move_readings(transaction, &[number], event.for_readings()).await?;
    release_links(transaction, number).await?;
    let jobs: Vec<NewJob> = readings
        .iter()
        .map(|reading| MintReading::now(reading.id))
        .collect();
    outbox::enqueue(transaction, &jobs).await?;
    outbox::notify(transaction, Topic::OutboxAndJobs).await?;
    Ok(Some(readings.len() as u64))
}

/// Unproven for too long after its expiry. Rules 2 and 3 go on.
pub async fn quarantine(pool: &PgPool, number: i64) -> Result<u64, LedgerError> {
    let guard = mint_transaction_guard(MintTransactionEvent::Quarantined);
    let mut transaction = pool.begin().await?;
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
    crate::failpoint!("ledger.before_quarantine_commit");
    transaction.commit().await?;
    transition_metrics::count_transactions("quarantined", 1);
    crate::failpoint!("ledger.quarantined");
    Ok(readings.len() as u64)
}

/// Marks the transaction dead; false when somebody else has ended it.
pub(super) async fn mark_dead(
    transaction: &mut PgConnection,
    number: i64,
    guard: &super::guard::Guard,
    reason: &str,
) -> sqlx::Result<bool> {
    let changed = sqlx::query(
        "UPDATE mint_transactions
         SET state = $2, error = $4, ended_at = now()
         WHERE number = $1
           AND state = ANY($3)",
    )
    .bind(number)
    .bind(guard.to)
    .bind(&guard.from)
    .bind(reason)
    .execute(transaction)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// The readings of a dead transaction may have another live one.
pub(super) async fn release_links(transaction: &mut PgConnection, number: i64) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE mint_transaction_readings
         SET live = FALSE
         WHERE transaction = $1",
    )
    .bind(number)
    .execute(transaction)
    .await?;
    Ok(())
}

/// A reading that changed, with what its event tells.
#[derive(Debug, FromRow)]
pub(super) struct ChangedReading {
    pub id: Uuid,
    pub owner: String,
    pub serial: String,
    pub wallet: Vec<u8>,
    pub kwh: Decimal,
    pub base_units: Decimal,
    pub signature: Vec<u8>,
    pub accepted_at: DateTime<Utc>,
    /// That were refused, since an admin last asked for it again; of no use to a statement that did not ask.
    #[sqlx(default)]
    pub attempts: i32,
    /// From here on its owner waits for the service: its acceptance, or a later change of the auto-mint setting, which may
    /// have released it.
    /// `None`: the toggle or the roll-out holds its meter back, so only a trigger minted it; or the statement did not ask.
    #[sqlx(default)]
    pub waiting_since: Option<DateTime<Utc>>,
    /// Of the transaction that pays it, as it is now; of no use to a statement that did not ask.
    #[sqlx(default)]
    pub recorded_at: Option<DateTime<Utc>>,
    #[sqlx(default)]
    pub confirmed_at: Option<DateTime<Utc>>,
    #[sqlx(default)]
    pub slot: Option<i64>,
}

/// Moves the readings that these transactions pay through the domain's state machine.
pub(super) async fn move_readings(
    transaction: &mut PgConnection,
    numbers: &[i64],
    event: ReadingEvent,
) -> sqlx::Result<Vec<ChangedReading>> {
    let guard = reading_guard(event);
    sqlx::query_as(
        "UPDATE readings AS reading
         SET state = $2, revision = reading.revision + 1
         FROM mint_transaction_readings AS link, mint_transactions AS mint_transaction, meters AS meter
         WHERE link.transaction = ANY($1)
           AND link.live
           AND mint_transaction.number = link.transaction
           AND reading.id = link.reading
           -- An array, so that the books are never read from end to end for a few rows, whatever the statistics say of
           -- a state that is rare.
           AND reading.id = ANY (ARRAY(SELECT reading FROM mint_transaction_readings WHERE transaction = ANY($1)))
           AND reading.state = ANY($3)
           AND meter.id = reading.meter
         RETURNING reading.id, meter.owner, meter.serial, reading.wallet, reading.kwh,
                   reading.base_units, mint_transaction.signature, reading.accepted_at, reading.attempts,
                   mint_transaction.recorded_at, mint_transaction.confirmed_at, mint_transaction.slot,
                   (
                       SELECT GREATEST(reading.accepted_at, changed_at)
                       FROM settings
                       WHERE auto_mint_enabled
                         AND meter.rollout_bucket < auto_mint_percentage
                   ) AS waiting_since",
    )
    .bind(numbers)
    .bind(guard.to)
    .bind(guard.from)
    .fetch_all(transaction)
    .await
}

/// One event for each reading, and one wake-up for all.
pub(super) async fn publish_for(
    transaction: &mut PgConnection,
    event_type: EventType,
    readings: &[ChangedReading],
) -> Result<(), LedgerError> {
    if readings.is_empty() {
        return Ok(());
    }
    let events = readings
        .iter()
        .map(|reading| {
            let mut fields = event_fields(reading)?;
            fields.tokens_minted = Some(base_units_of(&reading.base_units)?);
            fields.transaction_signature = signature_text(&reading.signature);
            Ok(Event::new(event_type, &fields))
        })
        .collect::<Result<Vec<Event>, LedgerError>>()?;
    outbox::publish(transaction, &events).await?;
    outbox::notify(transaction, Topic::Outbox).await?;
    Ok(())
}

pub(super) fn event_fields(reading: &ChangedReading) -> Result<EventFields, LedgerError> {
    Ok(EventFields::of_reading(
        reading.id,
        &reading.owner,
        &MeterSerial::from_stored(reading.serial.clone()),
        wallet_of(&reading.wallet)?,
        Kwh::from_decimal(reading.kwh).map_err(|_| unreadable("an energy amount", &reading.kwh))?,
    ))
}

fn unreadable(what: &'static str, value: &dyn std::fmt::Display) -> LedgerError {
    LedgerError::Unreadable {
        what,
        value: value.to_string(),
    }
}

pub(super) fn base_units_of(stored: &Decimal) -> Result<BaseUnits, LedgerError> {
    BaseUnits::from_decimal(*stored).map_err(|_| unreadable("an amount in base units", stored))
}

pub(super) fn wallet_of(stored: &[u8]) -> Result<Wallet, LedgerError> {
    <[u8; 32]>::try_from(stored)
        .map(Wallet::from_stored)
        .map_err(|_| unreadable("a wallet of another length", &stored.len()))
}

pub(super) fn signature_text(stored: &[u8]) -> Option<String> {
    Signature::try_from(stored)
        .ok()
        .map(|signature| signature.to_string())
}
