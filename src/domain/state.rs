//! The two state machines of the ledger: of a reading, and of the transaction that pays it.
//!
//! Invariant: what was confirmed is never paid again. From `minted` the only way back to `pending` leads through
//! [`ReadingEvent::Forked`] and then a proof of death; from `finalized` there is no way anywhere. An event that a state
//! does not know is a defect of the caller, not a no-op.
//!
//! ```text
//!  reading:  pending ─▶ submitted ─▶ minted ─▶ finalized        mint transaction: recorded ─▶ confirmed ─▶ finalized
//!              ▲  ▲        │  ▲        │                                            │  ▲          │
//!              │  └─ dead ─┘  └─ fork ─┘                                            ▼  └── fork ──┘
//!              └─ failed ◀─ pending    submitted ─▶ quarantined ─▶ minted | pending     dead · quarantined
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::excerpt::excerpt;

/// Where a reading is on its way to being paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadingState {
    /// No live mint transaction pays it: it may be packed.
    Pending,
    /// A recorded transaction pays it, of which nothing is known yet.
    Submitted,
    /// Confirmed on chain. Users are told now.
    Minted,
    /// Cannot be rolled back. Books are closed now.
    Finalized,
    /// Attempts used up, or refused for good; an admin can retry.
    Failed,
    /// Its transaction is neither found nor proven dead long after its expiry.
    Quarantined,
}

/// What happens to a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadingEvent {
    /// A mint transaction that pays it was recorded.
    Recorded,
    /// Its transaction landed without an error.
    Confirmed,
    /// Its transaction is finalized.
    Finalized,
    /// Its confirmed transaction vanished before finality: the same bytes are sent again.
    Forked,
    /// Its transaction is proven dead: expired and absent, or finalized with an error.
    Dead,
    /// It was refused before anything was recorded; an attempt is used, others are left.
    Refused,
    /// Refused for good, or the last attempt is used.
    GivenUp,
    /// An admin asks for it again, at once.
    Retried,
    /// Its transaction stayed unproven for too long.
    Quarantined,
    /// A person says, and the chain shows, that its transaction landed.
    ResolvedLanded,
    /// A person answers for it that its transaction is dead.
    ResolvedDead,
}

/// Where a mint transaction is: the bytes that were signed to pay some readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MintTransactionState {
    /// Stored; sent or about to be sent; may land at any time.
    Recorded,
    /// Landed without an error, not final yet.
    Confirmed,
    /// Landed and cannot be rolled back.
    Finalized,
    /// Proven never to pay: its readings may be paid by another one.
    Dead,
    /// Neither found nor proven dead long after its expiry.
    Quarantined,
}

/// What happens to a mint transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MintTransactionEvent {
    /// Found on chain without an error.
    Confirmed,
    /// Found at finalized commitment.
    Finalized,
    /// Confirmed once, but no block holds it any more.
    Forked,
    /// Proven: expired and in none of the blocks that could hold it, or finalized with an error.
    Dead,
    /// Unproven for too long.
    Quarantined,
    /// A person says, and the chain shows, that it landed.
    ResolvedLanded,
    /// A person answers for it that it is dead; it stays watched.
    ResolvedDead,
}

/// A change that must not happen. The caller has a defect, or acts on what it read before somebody else's change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a {machine} that is {state} cannot take {event}")]
pub struct IllegalTransition {
    pub machine: &'static str,
    pub state: &'static str,
    pub event: &'static str,
}

/// A text that names no state.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text} is no state of a {machine}: one of {known}")]
pub struct UnknownState {
    text: String,
    machine: &'static str,
    known: String,
}

impl ReadingState {
    pub const ALL: [ReadingState; 6] = [
        ReadingState::Pending,
        ReadingState::Submitted,
        ReadingState::Minted,
        ReadingState::Finalized,
        ReadingState::Failed,
        ReadingState::Quarantined,
    ];

    /// Every change of a reading's state goes through here.
    pub fn next(self, event: ReadingEvent) -> Result<ReadingState, IllegalTransition> {
        use ReadingEvent as Event;
        use ReadingState::{Failed, Finalized, Minted, Pending, Quarantined, Submitted};
        match (self, event) {
            (Pending, Event::Recorded) => Ok(Submitted),
            (Pending, Event::Refused | Event::Retried) => Ok(Pending),
            (Pending, Event::GivenUp) => Ok(Failed),
            (Failed, Event::Retried) => Ok(Pending),
            // A quarantined transaction is still sent, looked for and scanned for: proof ends it as if it had come in time.
            (Submitted | Quarantined, Event::Confirmed | Event::ResolvedLanded) => Ok(Minted),
            (Submitted | Quarantined, Event::Dead | Event::ResolvedDead) => Ok(Pending),
            (Submitted, Event::Quarantined) => Ok(Quarantined),
            (Minted, Event::Finalized) => Ok(Finalized),
            (Minted, Event::Forked) => Ok(Submitted),
            (
                Pending,
                Event::Confirmed
                | Event::Finalized
                | Event::Forked
                | Event::Dead
                | Event::Quarantined
                | Event::ResolvedLanded
                | Event::ResolvedDead,
            )
            | (
                Submitted,
                Event::Recorded
                | Event::Finalized
                | Event::Forked
                | Event::Refused
                | Event::GivenUp
                | Event::Retried,
            )
            | (
                Minted,
                Event::Recorded
                | Event::Confirmed
                | Event::Dead
                | Event::Refused
                | Event::GivenUp
                | Event::Retried
                | Event::Quarantined
                | Event::ResolvedLanded
                | Event::ResolvedDead,
            )
            | (
                Finalized,
                Event::Recorded
                | Event::Confirmed
                | Event::Finalized
                | Event::Forked
                | Event::Dead
                | Event::Refused
                | Event::GivenUp
                | Event::Retried
                | Event::Quarantined
                | Event::ResolvedLanded
                | Event::ResolvedDead,
            )
            | (
                Failed,
                Event::Recorded
                | Event::Confirmed
                | Event::Finalized
                | Event::Forked
                | Event::Dead
                | Event::Refused
                | Event::GivenUp
                | Event::Quarantined
                | Event::ResolvedLanded
                | Event::ResolvedDead,
            )
            | (
                Quarantined,
                Event::Recorded
                | Event::Finalized
                | Event::Forked
                | Event::Refused
                | Event::GivenUp
                | Event::Retried
                | Event::Quarantined,
            ) => Err(IllegalTransition {
                machine: "reading",
                state: self.as_str(),
                event: event.as_str(),
            }),
        }
    }

    /// Whether the owner still waits for the tokens: all that is not minted or finalized.
    pub fn is_unminted(self) -> bool {
        match self {
            ReadingState::Pending
            | ReadingState::Submitted
            | ReadingState::Failed
            | ReadingState::Quarantined => true,
            ReadingState::Minted | ReadingState::Finalized => false,
        }
    }

    /// As the database and the API write it.
    pub fn as_str(self) -> &'static str {
        match self {
            ReadingState::Pending => "pending",
            ReadingState::Submitted => "submitted",
            ReadingState::Minted => "minted",
            ReadingState::Finalized => "finalized",
            ReadingState::Failed => "failed",
            ReadingState::Quarantined => "quarantined",
        }
    }
}

impl ReadingEvent {
    pub const ALL: [ReadingEvent; 11] = [
        ReadingEvent::Recorded,
        ReadingEvent::Confirmed,
        ReadingEvent::Finalized,
        ReadingEvent::Forked,
        ReadingEvent::Dead,
        ReadingEvent::Refused,
        ReadingEvent::GivenUp,
        ReadingEvent::Retried,
        ReadingEvent::Quarantined,
        ReadingEvent::ResolvedLanded,
        ReadingEvent::ResolvedDead,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ReadingEvent::Recorded => "recorded",
            ReadingEvent::Confirmed => "confirmed",
            ReadingEvent::Finalized => "finalized",
            ReadingEvent::Forked => "forked",
            ReadingEvent::Dead => "dead",
            ReadingEvent::Refused => "refused",
            ReadingEvent::GivenUp => "given_up",
            ReadingEvent::Retried => "retried",
            ReadingEvent::Quarantined => "quarantined",
            ReadingEvent::ResolvedLanded => "resolved_landed",
            ReadingEvent::ResolvedDead => "resolved_dead",
        }
    }
}

impl MintTransactionState {
    pub const ALL: [MintTransactionState; 5] = [
        MintTransactionState::Recorded,
        MintTransactionState::Confirmed,
        MintTransactionState::Finalized,
        MintTransactionState::Dead,
        MintTransactionState::Quarantined,
    ];

    /// Every change of a mint transaction's state goes through here.
    pub fn next(
        self,
        event: MintTransactionEvent,
    ) -> Result<MintTransactionState, IllegalTransition> {
        use MintTransactionEvent as Event;
        use MintTransactionState::{Confirmed, Dead, Finalized, Quarantined, Recorded};
        match (self, event) {
            (Recorded | Quarantined, Event::Confirmed | Event::ResolvedLanded) => Ok(Confirmed),
            (Recorded | Quarantined, Event::Dead | Event::ResolvedDead) => Ok(Dead),
            (Recorded, Event::Quarantined) => Ok(Quarantined),
            (Confirmed, Event::Finalized) => Ok(Finalized),
            (Confirmed, Event::Forked) => Ok(Recorded),
            (Recorded, Event::Finalized | Event::Forked)
            | (Quarantined, Event::Finalized | Event::Forked | Event::Quarantined)
            | (
                Confirmed,
                Event::Confirmed
                | Event::Dead
                | Event::Quarantined
                | Event::ResolvedLanded
                | Event::ResolvedDead,
            )
            | (
                Finalized | Dead,
                Event::Confirmed
                | Event::Finalized
                | Event::Forked
                | Event::Dead
                | Event::Quarantined
                | Event::ResolvedLanded
                | Event::ResolvedDead,
            ) => Err(IllegalTransition {
                machine: "mint transaction",
                state: self.as_str(),
                event: event.as_str(),
            }),
        }
    }

    /// Whether it pays, or may still pay, its readings: then no other transaction may.
    pub fn is_live(self) -> bool {
        match self {
            MintTransactionState::Recorded
            | MintTransactionState::Confirmed
            | MintTransactionState::Finalized
            | MintTransactionState::Quarantined => true,
            MintTransactionState::Dead => false,
        }
    }

    /// The state that the readings it pays are in; `None` when it pays none any more.
    pub fn reading_state(self) -> Option<ReadingState> {
        match self {
            MintTransactionState::Recorded => Some(ReadingState::Submitted),
            MintTransactionState::Confirmed => Some(ReadingState::Minted),
            MintTransactionState::Finalized => Some(ReadingState::Finalized),
            MintTransactionState::Quarantined => Some(ReadingState::Quarantined),
            MintTransactionState::Dead => None,
        }
    }

    /// As the database writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            MintTransactionState::Recorded => "recorded",
            MintTransactionState::Confirmed => "confirmed",
            MintTransactionState::Finalized => "finalized",
            MintTransactionState::Dead => "dead",
            MintTransactionState::Quarantined => "quarantined",
        }
    }
}

impl MintTransactionEvent {
    pub const ALL: [MintTransactionEvent; 7] = [
        MintTransactionEvent::Confirmed,
        MintTransactionEvent::Finalized,
        MintTransactionEvent::Forked,
        MintTransactionEvent::Dead,
        MintTransactionEvent::Quarantined,
        MintTransactionEvent::ResolvedLanded,
        MintTransactionEvent::ResolvedDead,
    ];

    /// What it means for the readings that the transaction pays.
    pub fn for_readings(self) -> ReadingEvent {
        match self {
            MintTransactionEvent::Confirmed => ReadingEvent::Confirmed,
            MintTransactionEvent::Finalized => ReadingEvent::Finalized,
            MintTransactionEvent::Forked => ReadingEvent::Forked,
            MintTransactionEvent::Dead => ReadingEvent::Dead,
            MintTransactionEvent::Quarantined => ReadingEvent::Quarantined,
            MintTransactionEvent::ResolvedLanded => ReadingEvent::ResolvedLanded,
            MintTransactionEvent::ResolvedDead => ReadingEvent::ResolvedDead,
        }
    }

    pub fn as_str(self) -> &'static str {
        self.for_readings().as_str()
    }
}

impl fmt::Display for ReadingState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Display for MintTransactionState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for ReadingState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<ReadingState, UnknownState> {
        ReadingState::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownState {
                text: excerpt(text),
                machine: "reading",
                known: ReadingState::ALL.map(ReadingState::as_str).join(", "),
            })
    }
}

impl FromStr for MintTransactionState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<MintTransactionState, UnknownState> {
        MintTransactionState::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownState {
                text: excerpt(text),
                machine: "mint transaction",
                known: MintTransactionState::ALL
                    .map(MintTransactionState::as_str)
                    .join(", "),
            })
    }
}
