//! The states of a mint transaction: of bytes that were signed to pay some readings.
//!
//! Invariant: `dead` and `finalized` are ends, and only a proof (or a person who answers for it) leads to `dead`. Until
//! then the transaction is live, and the readings it pays belong to it alone.
//!
//! ```text
//!  recorded ─▶ confirmed ─▶ finalized
//!    │  ▲          │
//!    │  └── fork ──┘
//!    └─▶ dead (expired | failed on chain) · quarantined ─▶ confirmed | dead
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::excerpt::excerpt;
use super::reading_state::{ReadingEvent, ReadingState};
use super::transition::{IllegalTransition, UnknownState};

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

impl fmt::Display for MintTransactionState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_and_finalized_are_ends() {
        for end in [MintTransactionState::Dead, MintTransactionState::Finalized] {
            for event in MintTransactionEvent::ALL {
                assert!(end.next(event).is_err(), "{end} took {event:?}");
            }
        }
    }

    #[test]
    fn only_dead_lets_its_readings_go() {
        for state in MintTransactionState::ALL {
            assert_eq!(state.is_live(), state != MintTransactionState::Dead);
            assert_eq!(state.is_live(), state.reading_state().is_some());
        }
    }

    #[test]
    fn a_confirmed_one_forks_or_finalizes_and_never_dies_at_once() {
        let ways: Vec<_> = MintTransactionEvent::ALL
            .into_iter()
            .filter_map(|event| MintTransactionState::Confirmed.next(event).ok())
            .collect();
        assert_eq!(
            ways,
            [
                MintTransactionState::Finalized,
                MintTransactionState::Recorded
            ]
        );
    }

    /// The two machines move in step: what a transaction may do, its readings may do, and they end in the state that belongs to its.
    #[test]
    fn readings_follow_their_transaction() {
        for state in MintTransactionState::ALL {
            let Some(readings) = state.reading_state() else {
                continue;
            };
            for event in MintTransactionEvent::ALL {
                match (state.next(event), readings.next(event.for_readings())) {
                    (Ok(next), Ok(readings_next)) => {
                        let expected = next.reading_state().unwrap_or(ReadingState::Pending);
                        assert_eq!(readings_next, expected, "{state} and {event:?}");
                    }
                    (Err(_), Err(_)) => {}
                    (transaction, readings) => {
                        panic!("{state} and {event:?}: {transaction:?}, but {readings:?}")
                    }
                }
            }
        }
    }

    #[test]
    fn text_and_json_are_the_same_word() {
        for state in MintTransactionState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(
                serde_json::to_string(&state).unwrap(),
                format!("\"{state}\"")
            );
        }
        assert!("pending".parse::<MintTransactionState>().is_err());
    }
}
