//! The details of a [`ChainError`](super::error::ChainError), each with its text.

use std::io;
use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::Value;
use serde_json::error::Category;
use solana_sdk::pubkey::Pubkey;
use thiserror::Error;

use crate::domain::{BaseUnits, TxSignature};

/// The reason for which no answer came. Never reqwest's own text: it holds the URL, which may hold an access key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoAnswer {
    #[error("HTTP status {0}")]
    HttpStatus(u16),
    #[error("time-out")]
    TimedOut,
    #[error("no answer within {} s", .0.as_secs())]
    NotWithin(Duration),
    #[error("connection refused or failed")]
    ConnectFailed,
    #[error("the connection broke")]
    ConnectionBroke,
    #[error("{0}")]
    Io(io::ErrorKind),
}

/// The evidence that an endpoint is behind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Lag {
    /// The endpoint reports it itself.
    #[error("{message}")]
    Reported { slots: Option<u64>, message: String },
    /// It shows accounts of an older slot than the one that is known to be final.
    #[error("it shows accounts as of slot {slot}, and slot {finalized_slot} is final")]
    OldAccounts { slot: u64, finalized_slot: u64 },
    /// Its newest finalized block is older than what is known to be final.
    #[error("its finalized slot is {slot}, and slot {finalized_slot} is final")]
    OldHead { slot: u64, finalized_slot: u64 },
}

impl Lag {
    /// By how many slots, if that is known.
    pub fn slots(&self) -> Option<u64> {
        match self {
            Lag::Reported { slots, .. } => *slots,
            Lag::OldAccounts {
                slot,
                finalized_slot,
            }
            | Lag::OldHead {
                slot,
                finalized_slot,
            } => Some(finalized_slot.saturating_sub(*slot)),
        }
    }
}

/// A fault of the account at the mint's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MintProblem {
    #[error("does not exist on this chain")]
    Missing,
    #[error("is not a mint of the token program")]
    NotAMint,
    #[error("has {found} decimals, TOKENIZATION_DECIMALS says {configured}")]
    Decimals { found: u8, configured: u8 },
    #[error("can no longer be minted by our authority {authority}")]
    Authority { authority: Pubkey },
}

/// A fault that makes the answer to a call unreadable.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallProblem {
    /// HTML of a proxy or a maintenance page, or a connection that ended early.
    #[error("something that is not JSON")]
    NotJson,
    #[error("null where a value is due")]
    Null,
    #[error("JSON of another shape than the method's")]
    Shape,
    /// JSON-RPC of a kind that the client does not understand; the text holds no URL.
    #[error("JSON-RPC that cannot be understood: {0}")]
    NotRpc(String),
    #[error("something that the client failed to handle")]
    ClientFailed,
}

impl CallProblem {
    /// The fault of a value that is not the expected one.
    pub fn of_value(value: &Value) -> CallProblem {
        if value.is_null() {
            CallProblem::Null
        } else {
            CallProblem::Shape
        }
    }

    pub(super) fn of_json(error: &serde_json::Error) -> CallProblem {
        match error.classify() {
            Category::Io | Category::Syntax | Category::Eof => CallProblem::NotJson,
            Category::Data if error.to_string().contains("null") => CallProblem::Null,
            Category::Data => CallProblem::Shape,
        }
    }
}

/// A fault that makes an answer useless: it contradicts itself, or the request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnusableAnswer {
    #[error("{requested} {items} were requested, {answered} answered")]
    WrongCount {
        /// Accounts or signatures.
        items: &'static str,
        requested: usize,
        answered: usize,
    },
    /// The answer to this method cannot be read at all.
    #[error("to {method} it answered {problem}")]
    Call {
        method: &'static str,
        problem: CallProblem,
    },
    #[error("it is on another chain, with genesis hash {found}")]
    OtherChain { found: String },
    #[error("the supply {0} is not an amount")]
    Supply(String),
    #[error("it does not report what a signature costs")]
    NoFee,
    #[error("an account's data cannot be decoded")]
    AccountData,
    #[error("it lists {0}, which is not a signature")]
    NoSignature(String),
    #[error("its list goes from slot {from_slot} up to {to_slot}, newest must come first")]
    HistoryOrder { from_slot: u64, to_slot: u64 },
    #[error("it lists {0} again and nothing below it, so the rest of its list cannot be read")]
    HistoryRepeats(String),
    /// Each one is stored with its own problem.
    #[error(
        "the authority's history has transactions that cannot be read, the oldest in slot {slot}; status names each with its problem"
    )]
    UnreadableHistory { slot: u64 },
    #[error("its list breaks off after {0}, which it no longer shows")]
    HistoryBreaksOff(TxSignature),
    /// It lacks the oldest transactions of the mint.
    #[error(
        "it does not show the history of the mint {mint} from its creation on, so what was paid before is not known; \
         add an RPC endpoint with full history"
    )]
    HistoryWithoutCreation { mint: Pubkey },
    /// It lacks blocks above the slot up to which the history was read before.
    #[error(
        "its history begins at slot {oldest_slot}, after slot {watermark_slot} up to which the authority's history was walked; \
         add an RPC endpoint with full history"
    )]
    HistoryBeginsLate {
        oldest_slot: u64,
        watermark_slot: u64,
    },
    #[error(
        "the mint has a supply of {supply} base units, and its finalized history shows mints of {known} by our authority; \
         add an RPC endpoint with full history, or name a mint from which only this authority has minted"
    )]
    SupplyAboveHistory { supply: BaseUnits, known: Decimal },
    #[error(
        "its list of the authority's history lacks {number} transactions that the ledger holds as finalized, the oldest {oldest} in \
         slot {slot}; the scan begins again at the head: if this lasts, replace this RPC endpoint"
    )]
    HistoryLacks {
        number: u64,
        oldest: TxSignature,
        slot: u64,
    },
    #[error("it lists {0} but does not show that transaction")]
    TransactionNotShown(TxSignature),
    #[error("transaction {signature}{} {problem}", in_slot(.slot))]
    Transaction {
        signature: TxSignature,
        /// `None` where no list names it.
        slot: Option<u64>,
        problem: TransactionProblem,
    },
    #[error("the mint cannot be described: {0}")]
    MintInstruction(String),
    #[error("{what} did not appear within {limit:?}")]
    NotAppeared { what: &'static str, limit: Duration },
}

fn in_slot(slot: &Option<u64>) -> String {
    slot.map_or_else(String::new, |slot| format!(" in slot {slot}"))
}

/// A fault of a transaction as an endpoint shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TransactionProblem {
    #[error("cannot be decoded")]
    Undecodable,
    #[error("was answered with another one")]
    AnotherOne,
    #[error("comes without its outcome")]
    NoOutcome,
    #[error("has instructions or addresses that cannot be decoded")]
    UndecodableInstructions,
    /// Another program may have minted on the authority's behalf.
    #[error(
        "comes without the instructions that its programs called, so what it minted is not known; add an RPC endpoint that \
         records them"
    )]
    NoInnerInstructions,
    #[error("has a version that this program does not know: a newer program is needed")]
    NewerVersion,
}
