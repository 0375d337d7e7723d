//! The actions of admins, with the names and details that the admin log stores.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::domain::{MintNumber, TxSignature};
use crate::ledger::QuarantineOutcome;

/// One action. Its name and details are stored permanently, so neither may change its meaning later.
#[derive(Clone, Debug, PartialEq)]
pub enum AdminAction {
    /// Switched minting without a trigger on or off.
    ToggleAutoMint { enabled: bool },
    /// Set the share of meters whose readings are minted without a trigger, 0 to 100.
    SetAutoMintPercentage { percentage: u8 },
    /// Triggered a batch of unminted readings; `filters` as the admin requested them.
    TriggerBatch { batch_id: Uuid, filters: Value },
    /// Made a reading due again, optionally for another wallet.
    RetryReading {
        reading_id: Uuid,
        wallet_address: Option<String>,
        reason: Option<String>,
    },
    /// Decided the outcome of a quarantined mint transaction.
    ResolveTransaction {
        signature: TxSignature,
        outcome: QuarantineOutcome,
        reason: String,
    },
    /// Assigned a landed mint that the ledger lacked to the readings that it paid.
    AdoptMint {
        signature: TxSignature,
        number: MintNumber,
        readings: u64,
    },
    /// Booked a landed mint that the ledger lacks without a reading.
    BookForeignMint {
        signature: TxSignature,
        base_units: String,
        reason: String,
    },
    /// Set the log level of all processes for a number of minutes; `None`: each process returns to its own configuration.
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

    /// The details as a JSON object in canonical form: members ordered by name, no white space.
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
            } => json!({ "signature": signature, "outcome": outcome.as_str(), "reason": reason }),
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

/// Orders members by name at every depth, even if the map of `serde_json` keeps the order of insertion.
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
    fn details_have_a_canonical_form() {
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
