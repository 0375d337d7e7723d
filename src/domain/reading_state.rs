//! The states of a reading.
//!
//! Invariant: a reading whose payment is confirmed is never paid again. From `minted` the only path back to `pending` leads
//! through [`ReadingEvent::Forked`] and then a proof that the transaction is dead; `finalized` has no exit. An event that a
//! state does not accept is a defect of the caller, not a no-op.
//!
//! ```text
//!  pending ─▶ submitted ─▶ minted ─▶ finalized
//!    ▲  ▲        │  ▲        │
//!    │  └─ dead ─┘  └─ fork ─┘
//!    └─ failed ◀─ pending       submitted ─▶ quarantined ─▶ minted | pending
//! ```
//!
//! When an admin adopts a mint that the ledger lacks, its readings follow the same path: recorded, confirmed, finalized.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::excerpt::excerpt;
use super::transition::{IllegalTransition, UnknownState};

/// The progress of a reading's payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadingState {
    /// No live mint transaction pays it: it may be packed.
    Pending,
    /// A recorded transaction pays it, whose outcome is not known yet.
    Submitted,
    /// Confirmed on chain. Users are notified at this point.
    Minted,
    /// Cannot be rolled back.
    Finalized,
    /// Its attempts are used up, or it was rejected permanently; an admin can retry it.
    Failed,
    /// Its transaction is neither found nor proven dead long after its expiry.
    Quarantined,
}

/// An event in the life of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadingEvent {
    /// A mint transaction that pays it was recorded.
    Recorded,
    /// Its transaction landed without an error.
    Confirmed,
    /// Its transaction is finalized.
    Finalized,
    /// Its confirmed transaction disappeared before finality: the same bytes are sent again.
    Forked,
    /// Its transaction is proven dead: expired and absent, or finalized with an error.
    Dead,
    /// It was rejected before a transaction was recorded; one attempt is used, others are left.
    Refused,
    /// It was rejected permanently, or the last attempt is used.
    GivenUp,
    /// An admin retries it at once.
    Retried,
    /// Its transaction was unproven for too long.
    Quarantined,
    /// An admin states, and the chain shows, that its transaction landed.
    ResolvedLanded,
    /// An admin takes responsibility that its transaction is dead.
    ResolvedDead,
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

    /// Every change of a reading's state goes through this function.
    pub fn next(self, event: ReadingEvent) -> Result<ReadingState, IllegalTransition> {
        use ReadingEvent as Event;
        use ReadingState::{Failed, Finalized, Minted, Pending, Quarantined, Submitted};
        match (self, event) {
            (Pending, Event::Recorded) => Ok(Submitted),
            (Pending, Event::Refused | Event::Retried) => Ok(Pending),
            (Pending, Event::GivenUp) => Ok(Failed),
            (Failed, Event::Retried) => Ok(Pending),
            // A quarantined transaction is still sent and searched for: a late proof has the same effect as an early one.
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

    /// Whether the owner has not received the tokens: every state except minted and finalized.
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

impl fmt::Display for ReadingState {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_path_of_a_reading_that_is_paid() {
        let mut state = ReadingState::Pending;
        for (event, expected) in [
            (ReadingEvent::Recorded, ReadingState::Submitted),
            (ReadingEvent::Confirmed, ReadingState::Minted),
            (ReadingEvent::Forked, ReadingState::Submitted),
            (ReadingEvent::Quarantined, ReadingState::Quarantined),
            (ReadingEvent::Confirmed, ReadingState::Minted),
            (ReadingEvent::Finalized, ReadingState::Finalized),
        ] {
            state = state.next(event).unwrap();
            assert_eq!(state, expected);
        }
    }

    #[test]
    fn nothing_leads_away_from_finalized() {
        for event in ReadingEvent::ALL {
            let refused = ReadingState::Finalized.next(event).unwrap_err();
            assert_eq!(
                (refused.state, refused.event),
                ("finalized", event.as_str())
            );
        }
    }

    #[test]
    fn minted_leads_to_finalized_or_by_a_fork_back_to_submitted() {
        let exits: Vec<_> = ReadingEvent::ALL
            .into_iter()
            .filter_map(|event| Some((event, ReadingState::Minted.next(event).ok()?)))
            .collect();
        assert_eq!(
            exits,
            [
                (ReadingEvent::Finalized, ReadingState::Finalized),
                (ReadingEvent::Forked, ReadingState::Submitted)
            ]
        );
    }

    #[test]
    fn only_pending_can_be_recorded() {
        for state in ReadingState::ALL {
            let recorded = state.next(ReadingEvent::Recorded);
            assert_eq!(recorded.is_ok(), state == ReadingState::Pending, "{state}");
        }
    }

    #[test]
    fn only_failed_and_pending_can_be_retried() {
        for state in ReadingState::ALL {
            let retried = state.next(ReadingEvent::Retried);
            let may = matches!(state, ReadingState::Failed | ReadingState::Pending);
            assert_eq!(retried.is_ok(), may, "{state}");
        }
    }

    #[test]
    fn unminted_is_every_state_except_minted_and_finalized() {
        let unminted: Vec<_> = ReadingState::ALL
            .into_iter()
            .filter(|state| state.is_unminted())
            .map(ReadingState::as_str)
            .collect();
        assert_eq!(unminted, ["pending", "submitted", "failed", "quarantined"]);
    }

    #[test]
    fn text_and_json_are_the_same_word() {
        for state in ReadingState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(json, format!("\"{state}\""));
            assert_eq!(serde_json::from_str::<ReadingState>(&json).unwrap(), state);
        }
        assert_eq!(
            "Minted".parse::<ReadingState>().unwrap_err().to_string(),
            "Minted is not a state of a reading: one of pending, submitted, minted, finalized, failed, quarantined"
        );
    }

    proptest! {
        /// For any sequence of events: a reading is recorded again only after its transaction was marked dead, and a confirmed
        /// payment is not marked dead unless it forked before.
        #[test]
        fn no_second_payment_without_a_death(
            events in prop::collection::vec(prop::sample::select(&ReadingEvent::ALL[..]), 0..200),
        ) {
            let mut state = ReadingState::Pending;
            let (mut live, mut confirmed) = (false, false);
            for event in events {
                let Ok(next) = state.next(event) else { continue };
                match event {
                    ReadingEvent::Recorded => {
                        prop_assert!(!live, "recorded twice");
                        live = true;
                    }
                    ReadingEvent::Confirmed | ReadingEvent::ResolvedLanded => confirmed = true,
                    ReadingEvent::Forked => confirmed = false,
                    ReadingEvent::Dead | ReadingEvent::ResolvedDead => {
                        prop_assert!(live && !confirmed, "a confirmed mint died");
                        live = false;
                    }
                    ReadingEvent::Finalized => prop_assert!(confirmed),
                    ReadingEvent::Refused | ReadingEvent::GivenUp | ReadingEvent::Retried => {
                        prop_assert!(!live);
                    }
                    ReadingEvent::Quarantined => prop_assert!(live && !confirmed),
                }
                state = next;
                let free = matches!(state, ReadingState::Pending | ReadingState::Failed);
                prop_assert_eq!(live, !free);
                prop_assert_eq!(confirmed, !state.is_unminted());
            }
        }
    }
}
