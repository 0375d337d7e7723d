//! The differences that an audit can find.

use std::fmt;

use serde::{Serialize, Serializer};
use solana_sdk::pubkey::Pubkey;
use uuid::Uuid;

use super::total::Total;
use super::unreadable::UnreadableReading;
use crate::admin_log::{BrokenEntryReason, LogNumber};
use crate::domain::{BaseUnits, MintTransactionState, ReadingState, TxSignature};

/// A disagreement between ledger and chain. `kind` and the fields are stable; the sentence of `Display` is for people.
///
/// The `number` of a transaction and the `state` of a wrong state are what the ledger's row holds, valid or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Difference {
    /// A mint of our token, signed by our authority, that the ledger lacks and no admin has booked.
    UnknownMint {
        signature: TxSignature,
        slot: u64,
        base_units: Total,
        memo: Option<String>,
    },
    /// The ledger marked it dead, but it landed: its readings may have been paid again.
    DeadButLanded {
        signature: TxSignature,
        number: i64,
        slot: u64,
        base_units: Total,
    },
    /// The ledger says that it landed, but no endpoint shows it.
    NotOnChain {
        signature: TxSignature,
        number: i64,
        state: MintTransactionState,
        base_units: Total,
    },
    /// The ledger says that it landed, but it failed on chain and paid nothing.
    FailedOnChain {
        signature: TxSignature,
        number: i64,
        slot: u64,
        base_units: Total,
    },
    /// A token account received another amount than its readings are worth.
    WrongAmount {
        signature: TxSignature,
        #[serde(serialize_with = "text")]
        token_account: Pubkey,
        /// `None`: no reading of the transaction pays this account.
        #[serde(serialize_with = "optional_text")]
        wallet: Option<Pubkey>,
        readings: Vec<Uuid>,
        base_units_ledger: Total,
        base_units_chain: Total,
    },
    /// The token account was paid, and belonged to another owner when it was: its owner gave it away after it was checked.
    WrongOwner {
        signature: TxSignature,
        #[serde(serialize_with = "text")]
        token_account: Pubkey,
        #[serde(serialize_with = "text")]
        wallet: Pubkey,
        #[serde(serialize_with = "text")]
        owner: Pubkey,
        readings: Vec<Uuid>,
    },
    /// The amount stored with the transaction is not the sum of its readings.
    WrongSum {
        signature: TxSignature,
        number: i64,
        base_units_stored: BaseUnits,
        base_units_readings: Total,
    },
    /// The memo is missing, is not ours, or carries another number.
    WrongMemo {
        signature: TxSignature,
        number: i64,
        memo: Option<String>,
    },
    /// The memo's Merkle root is not the root of the ledger's readings.
    WrongRoot {
        signature: TxSignature,
        number: i64,
        readings: Vec<Uuid>,
        /// Hexadecimal.
        root_ledger: String,
        root_chain: String,
    },
    /// A stored reading with values that it cannot have had when it was paid.
    UnreadableReading {
        reading_id: Uuid,
        signature: TxSignature,
        #[serde(serialize_with = "text")]
        reason: UnreadableReading,
    },
    /// A reading's state contradicts the state of the transaction that pays it.
    WrongState {
        reading_id: Uuid,
        signature: TxSignature,
        state: String,
        transaction_state: MintTransactionState,
    },
    /// It landed in another slot than the ledger says.
    WrongSlot {
        signature: TxSignature,
        number: i64,
        slot_ledger: u64,
        slot_chain: u64,
    },
    /// A reading that waits for a mint transaction which the ledger does not have: it would never be paid.
    Stranded {
        reading_id: Uuid,
        state: ReadingState,
    },
    /// A transaction that pays it has landed or may still land, but the ledger would let another one pay it again.
    Released {
        reading_id: Uuid,
        signature: TxSignature,
    },
    /// A reading with more than one landed mint transaction.
    PaidTwice {
        reading_id: Uuid,
        signatures: Vec<TxSignature>,
    },
    /// A paid reading whose interval shares time with that of another paid reading of its meter.
    Overlap { reading_id: Uuid, other: Uuid },
    /// The ledger's rows are not those that an earlier audit compared.
    CheckpointDiffers {
        first_number: i64,
        last_number: i64,
        transactions_checkpoint: u64,
        transactions_ledger: u64,
        base_units_checkpoint: Total,
        base_units_ledger: Total,
    },
    /// A reading that is minted or finalized in the ledger, without a landed mint transaction.
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
    /// The sums of ledger and chain, booked foreign mints included.
    SumsDiffer {
        base_units_ledger: Total,
        base_units_foreign: Total,
        base_units_chain: Total,
    },
    /// The first entry of the admin log that does not fit its chain.
    AdminLogBroken {
        number: LogNumber,
        #[serde(serialize_with = "text")]
        reason: BrokenEntryReason,
    },
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
