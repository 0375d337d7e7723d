//! The differences that an audit can find, one sentence each.

use std::fmt;

use serde::{Serialize, Serializer};
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signature;
use uuid::Uuid;

use super::report::Total;
use crate::admin::LogNumber;
use crate::domain::{BaseUnits, MintTransactionState, ReadingState};

/// Where ledger and chain do not agree. `kind` and the fields are stable; the sentence is for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Difference {
    /// A mint of our token by our authority's signature that the ledger lacks and nobody has booked.
    UnknownMint {
        #[serde(serialize_with = "text")]
        signature: Signature,
        slot: u64,
        base_units: Total,
        memo: Option<String>,
    },
    /// The ledger gave it up, but it landed: its readings may have been paid again.
    DeadButLanded {
        #[serde(serialize_with = "text")]
        signature: Signature,
        number: i64,
        slot: u64,
        base_units: Total,
    },
    /// The ledger calls it landed, but no endpoint shows it.
    NotOnChain {
        #[serde(serialize_with = "text")]
        signature: Signature,
        number: i64,
        state: MintTransactionState,
        base_units: Total,
    },
    /// The ledger calls it landed, but it landed with an error and paid nothing.
    FailedOnChain {
        #[serde(serialize_with = "text")]
        signature: Signature,
        number: i64,
        slot: u64,
        base_units: Total,
    },
    /// A token account got something else than its readings are worth.
    WrongAmount {
        #[serde(serialize_with = "text")]
        signature: Signature,
        #[serde(serialize_with = "text")]
        token_account: Pubkey,
        /// `None`: no reading of the transaction pays this account.
        #[serde(serialize_with = "optional_text")]
        wallet: Option<Pubkey>,
        readings: Vec<Uuid>,
        base_units_ledger: Total,
        base_units_chain: Total,
    },
    /// The amount stored with the transaction is not that of its readings.
    WrongSum {
        #[serde(serialize_with = "text")]
        signature: Signature,
        number: i64,
        base_units_stored: BaseUnits,
        base_units_readings: Total,
    },
    /// The memo is missing, not ours, or has another number.
    WrongMemo {
        #[serde(serialize_with = "text")]
        signature: Signature,
        number: i64,
        memo: Option<String>,
    },
    /// The memo's Merkle root is not that of the ledger's readings.
    WrongRoot {
        #[serde(serialize_with = "text")]
        signature: Signature,
        number: i64,
        readings: Vec<Uuid>,
        /// Hexadecimal.
        root_ledger: String,
        root_chain: String,
    },
    /// A stored reading that cannot be what it was when it was paid.
    UnreadableReading {
        reading_id: Uuid,
        #[serde(serialize_with = "text")]
        signature: Signature,
        reason: String,
    },
    /// A reading's state contradicts that of the transaction that pays it.
    WrongState {
        reading_id: Uuid,
        #[serde(serialize_with = "text")]
        signature: Signature,
        state: String,
        transaction_state: MintTransactionState,
    },
    /// It landed in another slot than the ledger says.
    WrongSlot {
        #[serde(serialize_with = "text")]
        signature: Signature,
        number: i64,
        slot_ledger: u64,
        slot_chain: u64,
    },
    /// A reading that waits for a mint transaction which the ledger does not hold: nobody would ever pay it.
    Stranded {
        reading_id: Uuid,
        state: ReadingState,
    },
    /// A transaction that pays it has landed or may still land, but the ledger would let another one pay it too.
    Released {
        reading_id: Uuid,
        #[serde(serialize_with = "text")]
        signature: Signature,
    },
    /// A reading with more than one landed mint transaction.
    PaidTwice {
        reading_id: Uuid,
        signatures: Vec<String>,
    },
    /// A reading that is called paid, without a landed mint transaction.
    NotPaid {
        reading_id: Uuid,
        state: ReadingState,
        base_units: BaseUnits,
    },
    /// More tokens exist than our authority has minted.
    SupplyTooLarge {
        token_supply: BaseUnits,
        minted: Total,
    },
    /// The sums of both sides, booked foreign mints included.
    SumsDiffer {
        base_units_ledger: Total,
        base_units_foreign: Total,
        base_units_chain: Total,
    },
    /// The admin log is not what was written: its first entry that does not fit.
    AdminLogBroken { number: LogNumber, reason: String },
}

/// The sentence.
impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::UnknownMint {
                signature,
                slot,
                base_units,
                memo,
            } => write!(
                formatter,
                "transaction {signature} minted {base_units} base units by our authority in slot {slot}, and the ledger has no reading for it (memo: {})",
                memo.as_deref().unwrap_or("none")
            ),
            Difference::DeadButLanded {
                signature,
                number,
                slot,
                base_units,
            } => write!(
                formatter,
                "mint transaction {number} ({signature}) is dead in the ledger, but landed in slot {slot} and paid {base_units} base units"
            ),
            Difference::NotOnChain {
                signature,
                number,
                state,
                base_units,
            } => write!(
                formatter,
                "mint transaction {number} ({signature}) of {base_units} base units is {} in the ledger, but no RPC endpoint shows it on chain",
                state.as_str()
            ),
            Difference::FailedOnChain {
                signature,
                number,
                slot,
                base_units,
            } => write!(
                formatter,
                "mint transaction {number} ({signature}) is landed in the ledger, but it failed on chain in slot {slot}: {base_units} base units are not paid"
            ),
            Difference::WrongAmount {
                signature,
                token_account,
                wallet: Some(wallet),
                readings,
                base_units_ledger,
                base_units_chain,
            } => write!(
                formatter,
                "wallet {wallet} is owed {base_units_ledger} base units for the readings {} of transaction {signature}, but its token account {token_account} got {base_units_chain}",
                listed(readings)
            ),
            Difference::WrongAmount {
                signature,
                token_account,
                wallet: None,
                base_units_chain,
                ..
            } => write!(
                formatter,
                "transaction {signature} paid {base_units_chain} base units to the token account {token_account}, which belongs to no wallet of its readings"
            ),
            Difference::WrongSum {
                signature,
                number,
                base_units_stored,
                base_units_readings,
            } => write!(
                formatter,
                "mint transaction {number} ({signature}) is stored with {base_units_stored} base units, but its readings are worth {base_units_readings}"
            ),
            Difference::WrongMemo {
                signature,
                number,
                memo,
            } => write!(
                formatter,
                "transaction {signature} is number {number} in the ledger, but its memo on chain is {}",
                memo.as_deref().unwrap_or("missing")
            ),
            Difference::WrongRoot {
                signature,
                number,
                readings,
                root_ledger,
                root_chain,
            } => write!(
                formatter,
                "the {} readings ({}) of mint transaction {number} ({signature}) have the Merkle root {root_ledger}, but the memo on chain has {root_chain}: a reading was changed, added or removed since it was paid",
                readings.len(),
                listed(readings)
            ),
            Difference::UnreadableReading {
                reading_id,
                signature,
                reason,
            } => write!(
                formatter,
                "reading {reading_id}, paid by transaction {signature}, cannot be read: {reason}"
            ),
            Difference::WrongState {
                reading_id,
                signature,
                state,
                transaction_state,
            } => write!(
                formatter,
                "reading {reading_id} is {state}, but transaction {signature} that pays it is {}",
                transaction_state.as_str()
            ),
            Difference::WrongSlot {
                signature,
                number,
                slot_ledger,
                slot_chain,
            } => write!(
                formatter,
                "mint transaction {number} ({signature}) is in slot {slot_ledger} in the ledger, but landed in slot {slot_chain}"
            ),
            Difference::Stranded { reading_id, state } => write!(
                formatter,
                "reading {reading_id} is {}, but the ledger holds no mint transaction that could pay it: it would wait for ever",
                state.as_str()
            ),
            Difference::Released {
                reading_id,
                signature,
            } => write!(
                formatter,
                "reading {reading_id} is paid by transaction {signature}, which has landed or may still land, but the ledger has released it: it could be paid again"
            ),
            Difference::PaidTwice {
                reading_id,
                signatures,
            } => write!(
                formatter,
                "reading {reading_id} is paid by {} landed transactions: {}",
                signatures.len(),
                signatures.join(", ")
            ),
            Difference::NotPaid {
                reading_id,
                state,
                base_units,
            } => write!(
                formatter,
                "reading {reading_id} of {base_units} base units is {}, but no landed transaction pays it",
                state.as_str()
            ),
            Difference::SupplyTooLarge {
                token_supply,
                minted,
            } => write!(
                formatter,
                "the token's supply is {token_supply} base units, but our authority minted only {minted}: another authority minted, or this one before the history that the RPC endpoint shows"
            ),
            Difference::SumsDiffer {
                base_units_ledger,
                base_units_foreign,
                base_units_chain,
            } => write!(
                formatter,
                "the ledger's paid readings are worth {base_units_ledger} base units and booked foreign mints {base_units_foreign}, but {base_units_chain} were minted on chain"
            ),
            Difference::AdminLogBroken { number, reason } => {
                write!(formatter, "entry {number} of the admin log {reason}")
            }
        }
    }
}

/// Readings in one sentence; the report's fields hold them all.
const SHOWN_READINGS: usize = 5;

fn listed(readings: &[Uuid]) -> String {
    let mut shown = readings
        .iter()
        .take(SHOWN_READINGS)
        .map(Uuid::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    match readings.len() {
        0 => shown.push_str("(none)"),
        all if all > SHOWN_READINGS => shown.push_str(", …"),
        _ => {}
    }
    shown
}

fn text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn optional_text<S: Serializer>(value: &Option<Pubkey>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// What was found, of which only so many are kept: a ledger that is wrong from end to end must not fill the memory.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub listed: Vec<Difference>,
    pub beyond: u64,
}

const LISTED_MAX: usize = 1_000;

impl Findings {
    pub fn add(&mut self, differences: impl IntoIterator<Item = Difference>) {
        for difference in differences {
            if self.listed.len() < LISTED_MAX {
                self.listed.push(difference);
            } else {
                self.beyond += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_its_kind_its_fields_and_a_sentence() {
        let signature = Signature::from([7; 64]);
        let unknown = Difference::UnknownMint {
            signature,
            slot: 12,
            base_units: Total::from(BaseUnits::new(1 << 60)),
            memo: None,
        };
        let json = serde_json::to_value(&unknown).unwrap();
        assert_eq!(json["kind"], "unknown_mint");
        assert_eq!(json["signature"], signature.to_string());
        assert_eq!(json["base_units"], (1_u64 << 60).to_string());
        let sentence = unknown.to_string();
        assert!(sentence.contains(&signature.to_string()) && !sentence.contains('\n'));
    }

    #[test]
    fn many_readings_are_shortened_in_the_sentence_only() {
        let readings: Vec<Uuid> = (0..20).map(Uuid::from_u128).collect();
        let shown = listed(&readings);
        assert!(shown.ends_with(", …"), "{shown}");
        assert_eq!(shown.matches(", ").count(), SHOWN_READINGS);
        assert_eq!(listed(&readings[..1]), readings[0].to_string());
    }

    #[test]
    fn what_is_not_kept_is_counted() {
        let mut findings = Findings::default();
        let released = |number| Difference::Released {
            reading_id: Uuid::from_u128(number),
            signature: Signature::default(),
        };
        findings.add((0..LISTED_MAX as u128 + 7).map(released));
        assert_eq!((findings.listed.len(), findings.beyond), (LISTED_MAX, 7));
    }
}
