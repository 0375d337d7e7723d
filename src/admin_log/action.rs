//! What an admin can do, as the admin log tells it.

use serde_json::{Value, json};
use uuid::Uuid;

/// One action. Its name and details are stored for ever, so neither changes its meaning later.
#[derive(Clone, Debug, PartialEq)]
pub enum AdminAction {
    /// Minting without a trigger was switched on or off.
    ToggleAutoMint { enabled: bool },
    /// The share of meters whose readings are minted without a trigger, 0 to 100.
    SetAutoMintPercentage { percentage: u8 },
    /// Unminted readings were handed to the Minter; `filters` as they were asked for.
    TriggerBatch { batch_id: Uuid, filters: Value },
    /// A reading was made due again, perhaps for another wallet.
    RetryReading {
        reading_id: Uuid,
        wallet_address: Option<String>,
        reason: Option<String>,
    },
    /// A person decided what became of a quarantined mint transaction: `landed` or `dead`.
    ResolveTransaction {
        signature: String,
        outcome: String,
        reason: String,
    },
    /// A landed mint that the ledger lacked was booked for the readings that it paid.
    AdoptMint {
        signature: String,
        number: u64,
        readings: u64,
    },
    /// A landed mint that the ledger lacks was booked without a reading. Base units.
    BookForeignMint {
        signature: String,
        base_units: String,
        reason: String,
    },
    /// What all processes log, for so many minutes; `None`: each by its own configuration again.
    SetLogLevel {
        level: Option<String>,
        minutes: Option<u32>,
    },
}

impl AdminAction {
    /// The name, snake_case.
    pub fn name(&self) -> &'static str {
        match self {
            AdminAction::ToggleAutoMint { .. } => "toggle_auto_mint",
            AdminAction::SetAutoMintPercentage { .. } => "set_auto_mint_percentage",
            AdminAction::TriggerBatch { .. } => "trigger_batch",
            AdminAction::RetryReading { .. } => "retry_reading",
            AdminAction::ResolveTransaction { .. } => "resolve_transaction",
            AdminAction::AdoptMint { .. } => "adopt_mint",
            AdminAction::BookForeignMint { .. } => "book_foreign_mint",
            AdminAction::SetLogLevel { .. } => "set_log_level",
        }
    }

    /// A JSON object in its one form: members ordered by name, no white space.
    pub fn details(&self) -> String {
        let details = match self {
            AdminAction::ToggleAutoMint { enabled } => json!({ "enabled": enabled }),
            AdminAction::SetAutoMintPercentage { percentage } => {
                json!({ "percentage": percentage })
            }
            AdminAction::TriggerBatch { batch_id, filters } => {
                json!({ "batch_id": batch_id, "filters": filters })
            }
            AdminAction::RetryReading {
                reading_id,
                wallet_address,
                reason,
            } => json!({
                "reading_id": reading_id,
                "wallet_address": wallet_address,
                "reason": reason,
            }),
            AdminAction::ResolveTransaction {
                signature,
                outcome,
                reason,
            } => json!({ "signature": signature, "outcome": outcome, "reason": reason }),
            AdminAction::AdoptMint {
                signature,
                number,
                readings,
            } => json!({ "signature": signature, "number": number, "readings": readings }),
            AdminAction::BookForeignMint {
                signature,
                base_units,
                reason,
            } => json!({ "signature": signature, "base_units": base_units, "reason": reason }),
            AdminAction::SetLogLevel { level, minutes } => {
                json!({ "level": level, "minutes": minutes })
            }
        };
        canonical(details).to_string()
    }
}

/// Members ordered by name at every depth, also where the map of `serde_json` keeps the order of insertion.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> = members.into_iter().collect();
            members.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
            members
                .into_iter()
                .map(|(name, value)| (name, canonical(value)))
                .collect()
        }
        Value::Array(items) => items.into_iter().map(canonical).collect(),
        scalar => scalar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_have_one_form() {
        let retry = AdminAction::RetryReading {
            reading_id: Uuid::nil(),
            wallet_address: None,
            reason: Some("new \"wallet\"".to_owned()),
        };
        assert_eq!(
            retry.details(),
            r#"{"reading_id":"00000000-0000-0000-0000-000000000000","reason":"new \"wallet\"","wallet_address":null}"#
        );
        let trigger = AdminAction::TriggerBatch {
            batch_id: Uuid::nil(),
            filters: json!({"user_id": "b", "before": [{"z": 1, "a": 2}]}),
        };
        assert_eq!(
            trigger.details(),
            r#"{"batch_id":"00000000-0000-0000-0000-000000000000","filters":{"before":[{"a":2,"z":1}],"user_id":"b"}}"#
        );
    }
}
