//! The readings that a mint transaction pays: moves them to their next state and publishes the events of those that moved.
//!
//! Invariant: a reading's state changes only through the guard of its event, so an event is written once, by the transaction
//! that made the change.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::guard::reading_guard;
use crate::db::BigInt;
use crate::domain::{BaseUnits, Kwh, MeterSerial, MintNumber, ReadingEvent, TxSignature, Wallet};
use crate::outbox::{self, Event, EventFields, EventType, Topic};

/// A reading whose state changed, with the fields of its event.
#[derive(Debug, FromRow)]
pub struct ChangedReading {
    pub id: Uuid,
    pub owner: String,
    pub serial: MeterSerial,
    pub wallet: Wallet,
    pub kwh: Kwh,
    pub base_units: BaseUnits,
    pub accepted_at: DateTime<Utc>,
    /// Refusals since an admin last retried it; 0 in a statement that does not select it.
    #[sqlx(default)]
    pub attempts: i32,
    /// Since when its owner waits for the service: its acceptance, or a later change of the auto-mint setting, which may
    /// have released it.
    /// `None`: the toggle or the roll-out holds its meter back, so only a trigger minted it; or the statement does not
    /// select it.
    #[sqlx(default)]
    pub waiting_since: Option<DateTime<Utc>>,
    /// Of the transaction that pays it, after the change, like the three below; `None` in a statement that does not select
    /// them.
    #[sqlx(default)]
    pub signature: Option<TxSignature>,
    #[sqlx(default)]
    pub recorded_at: Option<DateTime<Utc>>,
    #[sqlx(default)]
    pub confirmed_at: Option<DateTime<Utc>>,
    #[sqlx(default)]
    pub slot: Option<BigInt>,
}

impl ChangedReading {
    pub fn event_fields(&self) -> EventFields {
        EventFields::of_reading(self.id, &self.owner, &self.serial, self.wallet, self.kwh)
    }
}

/// Moves the readings that these transactions pay through the domain's state machine. Returns those that changed.
pub async fn move_readings(
    transaction: &mut PgConnection,
    numbers: &[MintNumber],
    event: ReadingEvent,
) -> sqlx::Result<Vec<ChangedReading>> {
    let guard = reading_guard(event);
    sqlx::query_as(
        "UPDATE readings AS reading
         SET state = $2, revision = reading.revision + 1,
             -- It said why the reading was quarantined, which is over.
             last_error = CASE WHEN reading.state <> 'quarantined' THEN reading.last_error END
         FROM mint_transaction_readings AS link, mint_transactions AS mint_transaction, meters AS meter
         WHERE link.transaction = ANY($1)
           AND link.live
           AND mint_transaction.number = link.transaction
           AND reading.id = link.reading
           -- An array, so that the planner never scans all readings for a few rows, whatever the statistics claim about
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

/// Writes one event for each reading, and one wake-up for all.
pub async fn publish_for(
    transaction: &mut PgConnection,
    event_type: EventType,
    readings: &[ChangedReading],
) -> sqlx::Result<()> {
    if readings.is_empty() {
        return Ok(());
    }
    let events: Vec<Event> = readings
        .iter()
        .map(|reading| {
            let fields = EventFields {
                tokens_minted: Some(reading.base_units),
                transaction_signature: reading.signature.map(|signature| signature.to_string()),
                ..reading.event_fields()
            };
            Event::new(event_type, &fields)
        })
        .collect();
    outbox::publish(transaction, &events).await?;
    outbox::notify(transaction, Topic::Outbox).await
}
