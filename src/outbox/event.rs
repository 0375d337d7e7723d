//! Builds the events that users and admins follow, and writes them to the outbox.

use chrono::Utc;
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{BaseUnits, Kwh, MeterSerial, Wallet, rfc3339_micros};

/// Version of the event documents; raised when a field changes its meaning.
const EVENT_VERSION: u32 = 1;

/// The types of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum EventType {
    MeterReadingReceived,
    MeterReadingValidationFailed,
    TokensMinted,
    MintFinalized,
    MintFailed,
    BatchMintingCompleted,
    AdminNotification,
    AutoMintToggled,
}

impl EventType {
    pub const ALL: [EventType; 8] = [
        EventType::MeterReadingReceived,
        EventType::MeterReadingValidationFailed,
        EventType::TokensMinted,
        EventType::MintFinalized,
        EventType::MintFailed,
        EventType::BatchMintingCompleted,
        EventType::AdminNotification,
        EventType::AutoMintToggled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            EventType::MeterReadingReceived => "MeterReadingReceived",
            EventType::MeterReadingValidationFailed => "MeterReadingValidationFailed",
            EventType::TokensMinted => "TokensMinted",
            EventType::MintFinalized => "MintFinalized",
            EventType::MintFailed => "MintFailed",
            EventType::BatchMintingCompleted => "BatchMintingCompleted",
            EventType::AdminNotification => "AdminNotification",
            EventType::AutoMintToggled => "AutoMintToggled",
        }
    }
}

/// The fields that an event may carry; those that are `None` are left out of the document.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EventFields {
    /// Owner who may see the event; `None`: admins only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wallet_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meter_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reading_id: Option<Uuid>,
    /// Energy, kWh, exact decimal string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kwh_amount: Option<String>,
    /// Base units, string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_minted: Option<BaseUnits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction_signature: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_readings: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub successful_mints: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_mints: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_mints: Option<u64>,
    /// The state that auto-mint was switched to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_mint_enabled: Option<bool>,
}

impl EventFields {
    /// The fields that every event about one reading carries.
    pub fn of_reading(
        reading_id: Uuid,
        owner: &str,
        serial: &MeterSerial,
        wallet: Wallet,
        kwh: Kwh,
    ) -> EventFields {
        EventFields {
            user_id: Some(owner.to_owned()),
            wallet_address: Some(wallet.to_string()),
            meter_id: Some(serial.as_str().to_owned()),
            reading_id: Some(reading_id),
            kwh_amount: Some(kwh.to_string()),
            ..EventFields::default()
        }
    }
}

/// One event. Its document is serialized once: clients of the feed receive what is stored, with `seq` put in front.
#[derive(Clone, Debug)]
pub struct Event {
    id: Uuid,
    event_type: EventType,
    user_id: Option<String>,
    body: String,
}

impl Event {
    pub fn new(event_type: EventType, fields: &EventFields) -> Event {
        #[derive(Serialize)]
        struct Document<'a> {
            id: Uuid,
            r#type: EventType,
            version: u32,
            timestamp: String,
            #[serde(flatten)]
            fields: &'a EventFields,
        }
        let id = Uuid::now_v7();
        let document = Document {
            id,
            r#type: event_type,
            version: EVENT_VERSION,
            timestamp: rfc3339_micros(Utc::now()),
            fields,
        };
        let body = serde_json::to_string(&document).unwrap_or_else(|error| {
            // Strings and numbers under string keys: serde_json has no way to refuse them.
            unreachable!("an event document is always JSON: {error}")
        });
        Event {
            id,
            event_type,
            user_id: fields.user_id.clone(),
            body,
        }
    }

    pub fn event_type(&self) -> EventType {
        self.event_type
    }

    /// The JSON document without `seq`.
    pub fn body(&self) -> &str {
        &self.body
    }
}

/// Writes events without a number in the caller's transaction. The caller ends the transaction with
/// [`notify`](super::notify).
pub async fn publish(transaction: &mut PgConnection, events: &[Event]) -> sqlx::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    let types: Vec<&str> = events
        .iter()
        .map(|event| event.event_type.as_str())
        .collect();
    let users: Vec<Option<&str>> = events
        .iter()
        .map(|event| event.user_id.as_deref())
        .collect();
    let bodies: Vec<&str> = events.iter().map(|event| event.body.as_str()).collect();
    sqlx::query(
        "INSERT INTO outbox (event_id, event_type, user_id, body)
         SELECT * FROM UNNEST($1::UUID[], $2::TEXT[], $3::TEXT[], $4::TEXT[])",
    )
    .bind(ids)
    .bind(types)
    .bind(users)
    .bind(bodies)
    .execute(transaction)
    .await?;
    Ok(())
}
