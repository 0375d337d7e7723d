//! A difference as a sentence.

use std::fmt;

use uuid::Uuid;

use super::difference::Difference;
use crate::domain::TxSignature;

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
                "transaction {signature} minted {base_units} base units by our authority in slot {slot}, and the ledger has no reading for it (memo: {}): by this amount more was minted than readings and booked mints are worth",
                memo.as_deref().unwrap_or("none")
            ),
            Difference::DeadButLanded {
                signature,
                number,
                slot,
                base_units,
            } => write!(
                formatter,
                "mint transaction {number} ({signature}) is dead in the ledger, but landed in slot {slot} and paid {base_units} base units: by this amount more was minted than readings and booked mints are worth"
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
                "mint transaction {number} ({signature}) has landed in the ledger, but it failed on chain in slot {slot}: {base_units} base units are not paid"
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
                "wallet {wallet} is owed {base_units_ledger} base units for the readings {} of transaction {signature}, but its token account {token_account} received {base_units_chain}",
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
            Difference::WrongOwner {
                signature,
                token_account,
                wallet,
                owner,
                readings,
            } => write!(
                formatter,
                "transaction {signature} paid the readings {} of wallet {wallet} to its token account {token_account}, which belonged to {owner} by then",
                listed(readings)
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
                "reading {reading_id} is {}, but the ledger has no mint transaction that could pay it: it would wait indefinitely",
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
                signatures
                    .iter()
                    .map(TxSignature::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            Difference::Overlap { reading_id, other } => write!(
                formatter,
                "readings {reading_id} and {other} of one meter are both paid, and their intervals share time"
            ),
            Difference::CheckpointDiffers {
                first_number,
                last_number,
                transactions_checkpoint,
                transactions_ledger,
                base_units_checkpoint,
                base_units_ledger,
            } => write!(
                formatter,
                "mint transactions up to number {last_number}, from {first_number} on, are not the rows that an earlier audit compared: it found {transactions_checkpoint} of {base_units_checkpoint} base units, and there are {transactions_ledger} of {base_units_ledger}; run a full audit, which names what changed"
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

/// Readings that a sentence names; the report's fields contain all of them.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::total::Total;
    use crate::domain::BaseUnits;

    #[test]
    fn a_difference_names_its_kind_its_fields_and_a_sentence() {
        let signature = TxSignature::from_bytes([7; 64]);
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
}
