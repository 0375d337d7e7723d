//! Records the capabilities of an endpoint, as probes found them, for status and metrics. They decide nothing about what is true
//! of the chain.

use std::fmt;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::chain::error::ChainError;

/// A capability changes with a provider's plan or a node's restart, not from minute to minute.
const PROBED_EVERY: Duration = Duration::from_secs(3_600);
/// An endpoint whose capabilities could not be probed, since it did not answer, is probed again after this.
const RETRIED_AFTER: Duration = Duration::from_secs(60);
/// Slots of history that a proof of death needs: the blocks of a blockhash's life, and the time that an endpoint, a restart or a
/// person may take.
pub(in crate::chain) const SLOTS_FOR_PROOF: u64 = 1_000;

/// Whether an endpoint can do something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ability {
    /// Not probed yet, or the probe got no answer.
    #[default]
    Unknown,
    Yes,
    No(Box<ChainError>),
}

impl Ability {
    /// The word for it in the admin status.
    pub fn label(&self) -> &'static str {
        match self {
            Ability::Unknown => "unknown",
            Ability::Yes => "yes",
            Ability::No(_) => "no",
        }
    }

    /// By the answer to a call that needs it. An endpoint that does not answer, or not now, says nothing about what it can do.
    pub(in crate::chain) fn of<T>(answer: Result<T, ChainError>) -> Ability {
        match answer {
            Ok(_) => Ability::Yes,
            Err(
                ChainError::Unreachable { .. }
                | ChainError::RateLimited { .. }
                | ChainError::Behind { .. },
            ) => Ability::Unknown,
            Err(error) => Ability::No(Box::new(error)),
        }
    }

    /// A newer finding, unless it found nothing out.
    fn or_before(self, before: &Ability) -> Ability {
        match self {
            Ability::Unknown => before.clone(),
            found => found,
        }
    }
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ability::Unknown => f.write_str("unknown"),
            Ability::Yes => f.write_str("yes"),
            Ability::No(error) => write!(f, "no: {error}"),
        }
    }
}

/// The capabilities of one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// It lists and shows finalized blocks.
    pub blocks: Ability,
    /// It lists the transactions that mention an address.
    pub history: Ability,
    /// The oldest slot whose block it has.
    pub first_available_slot: Option<u64>,
    /// The newest finalized slot at the time.
    pub finalized_slot: Option<u64>,
    pub probed_at: Option<DateTime<Utc>>,
}

impl Capabilities {
    /// Whether it can prove that a transaction of the last minutes did not land. `None`: unknown.
    pub fn proves_deaths(&self) -> Option<bool> {
        match (&self.blocks, self.first_available_slot, self.finalized_slot) {
            (Ability::No(_), _, _) => Some(false),
            (Ability::Yes, Some(first), Some(newest)) => {
                Some(first <= newest.saturating_sub(SLOTS_FOR_PROOF))
            }
            _ => None,
        }
    }

    /// These findings, with gaps filled from `before`.
    pub(super) fn after(self, before: &Capabilities) -> Capabilities {
        Capabilities {
            blocks: self.blocks.or_before(&before.blocks),
            history: self.history.or_before(&before.history),
            first_available_slot: self.first_available_slot.or(before.first_available_slot),
            finalized_slot: self.finalized_slot.or(before.finalized_slot),
            probed_at: self.probed_at.or(before.probed_at),
        }
    }
}

/// Decides when the next probe of the capabilities is due.
#[derive(Debug, Default)]
pub(super) struct CapabilityClock(Option<(Instant, Duration)>);

impl CapabilityClock {
    /// `healthy_since`: an endpoint that has recovered may have lost its history, so it is probed again.
    pub fn is_due(&self, healthy_since: Option<Instant>, now: Instant) -> bool {
        self.0.is_none_or(|(at, every)| {
            now.duration_since(at) >= every || healthy_since.is_some_and(|since| since > at)
        })
    }

    /// A probe found this.
    pub fn probed(&mut self, found: &Capabilities, now: Instant) {
        let every = match found.blocks {
            Ability::Unknown => RETRIED_AFTER,
            Ability::Yes | Ability::No(_) => PROBED_EVERY,
        };
        self.0 = Some((now, every));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::error_reason::{NoAnswer, UnusableAnswer};

    fn strange() -> ChainError {
        ChainError::Unusable {
            endpoint: "rpc-1".to_owned(),
            reason: UnusableAnswer::AccountData,
        }
    }

    fn shows_from(first: u64) -> Capabilities {
        Capabilities {
            blocks: Ability::Yes,
            first_available_slot: Some(first),
            finalized_slot: Some(10_000),
            ..Capabilities::default()
        }
    }

    #[test]
    fn a_death_is_provable_where_blocks_are_shown_far_enough_back() {
        assert_eq!(Capabilities::default().proves_deaths(), None);
        assert_eq!(shows_from(0).proves_deaths(), Some(true));
        assert_eq!(shows_from(9_000).proves_deaths(), Some(true));
        assert_eq!(shows_from(9_001).proves_deaths(), Some(false));
        let off = Capabilities {
            blocks: Ability::No(Box::new(strange())),
            ..shows_from(0)
        };
        assert_eq!(off.proves_deaths(), Some(false));
        let young = Capabilities {
            finalized_slot: Some(40),
            ..shows_from(0)
        };
        assert_eq!(young.proves_deaths(), Some(true));
    }

    #[test]
    fn no_answer_leaves_what_is_known() {
        let silent = ChainError::Unreachable {
            endpoint: "rpc-1".to_owned(),
            method: "getBlock",
            reason: NoAnswer::TimedOut,
        };
        assert_eq!(Ability::of::<()>(Err(silent)), Ability::Unknown);
        assert_eq!(Ability::of::<()>(Err(strange())).label(), "no");
        let known = shows_from(7);
        assert_eq!(Capabilities::default().after(&known), known);
    }

    #[test]
    fn they_are_probed_at_start_after_a_recovery_and_hourly() {
        let (mut clock, now) = (CapabilityClock::default(), Instant::now());
        assert!(clock.is_due(None, now));
        clock.probed(&shows_from(0), now);
        assert!(!clock.is_due(Some(now), now));
        let later = now + Duration::from_secs(60);
        assert!(!clock.is_due(Some(now), later));
        assert!(clock.is_due(Some(later), later));
        assert!(clock.is_due(Some(now), now + PROBED_EVERY));
        clock.probed(&Capabilities::default(), now);
        assert!(clock.is_due(None, now + RETRIED_AFTER));
    }
}
