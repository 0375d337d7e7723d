//! The states of a mint transaction: of bytes that were signed to pay some readings.
//!
//! Invariant: `dead` and `finalized` are terminal, and only a proof (or an admin who takes responsibility) leads to `dead`. Until
//! then the transaction is live, and no other transaction may pay its readings.
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

/// The progress of a mint transaction: of bytes that were signed to pay some readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MintTransactionState {
    /// Stored, and sent or about to be sent: it may land at any time.
    Recorded,
    /// Landed without an error, not final yet.
    Confirmed,
    /// Landed and cannot be rolled back.
    Finalized,
    /// Proven never to pay: another transaction may pay its readings.
    Dead,
    /// Neither found nor proven dead long after its expiry.
    Quarantined,
}

/// An event in the life of a mint transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MintTransactionEvent {
    /// Found on chain without an error.
    Confirmed,
    /// Found at finalized commitment.
    Finalized,
    /// It was confirmed, but no block holds it any more.
    Forked,
    /// Proven: expired and in none of the blocks that could hold it, or finalized with an error.
    Dead,
    /// It was unproven for too long.
    Quarantined,
    /// An admin states, and the chain shows, that it landed.
    ResolvedLanded,
    /// An admin takes responsibility that it is dead; its signature is still checked.
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

    /// Every change of a mint transaction's state goes through this function.
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

    /// Whether it pays its readings or may still pay them; then no other transaction may.
    pub fn is_live(self) -> bool {
        match self {
            MintTransactionState::Recorded
            | MintTransactionState::Confirmed
            | MintTransactionState::Finalized
            | MintTransactionState::Quarantined => true,
            MintTransactionState::Dead => false,
        }
    }

    /// The state of the readings that it pays; `None` when it pays none any more.
    pub fn reading_state(self) -> Option<ReadingState> {
        match self {
            MintTransactionState::Recorded => Some(ReadingState::Submitted),
            MintTransactionState::Confirmed => Some(ReadingState::Minted),
            MintTransactionState::Finalized => Some(ReadingState::Finalized),
            MintTransactionState::Quarantined => Some(ReadingState::Quarantined),
            MintTransactionState::Dead => None,
        }
    }

    /// As the database stores it.
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

    /// The event of the readings that the transaction pays.
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
    fn dead_and_finalized_are_terminal() {
        for end in [MintTransactionState::Dead, MintTransactionState::Finalized] {
            for event in MintTransactionEvent::ALL {
                assert!(end.next(event).is_err(), "{end} took {event:?}");
            }
        }
    }

    #[test]
    fn only_dead_releases_its_readings() {
        for state in MintTransactionState::ALL {
            assert_eq!(state.is_live(), state != MintTransactionState::Dead);
            assert_eq!(state.is_live(), state.reading_state().is_some());
        }
    }

    #[test]
    fn a_confirmed_transaction_forks_or_finalizes_and_does_not_die_directly() {
        let exits: Vec<_> = MintTransactionEvent::ALL
            .into_iter()
            .filter_map(|event| MintTransactionState::Confirmed.next(event).ok())
            .collect();
        assert_eq!(
            exits,
            [
                MintTransactionState::Finalized,
                MintTransactionState::Recorded
            ]
        );
    }

    /// The two machines agree: an event that a transaction accepts is accepted by its readings, and both end in states that belong
    /// together.
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
