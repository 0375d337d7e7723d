//! Holds the chain's charges and its measured speed: both are read from the chain, never assumed.
//!
//! Invariant: a cluster can change each of these figures while this process runs, so none of them is a constant. Before an
//! endpoint has reported what the chain charges nothing is minted, because nothing could be set aside for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::blockhash::BLOCKHASH_LIFE;
use super::slot_clock::{ChainPosition, SlotClock};
use crate::telemetry::{metric_value, names};

/// Period at which the charges are read again: they change with the activation of a feature, a few times a year.
pub const CHARGES_EVERY: Duration = Duration::from_secs(3_600);
/// No wait for the chain is cut shorter than this, whatever was measured: slower answers are common, and a wrong measurement
/// must not make all calls fail.
const WAIT_AT_LEAST: Duration = Duration::from_secs(10);

/// A blockhash is signed on within this fraction of its life: the rest is for recording, sends and sends again.
const SIGNING_SHARE: u32 = 3;

/// The chain's charges, lamports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainCharges {
    /// Rent of a token account: paid once for each wallet, by the fee payer.
    pub token_account_rent: u64,
    /// Rent of an account without data: what the fee payer itself must keep.
    pub fee_payer_minimum: u64,
    /// The base fee for one signature.
    pub per_signature: u64,
}

/// A handle; clones share the figures.
#[derive(Clone, Debug, Default)]
pub struct ChainParameters(Arc<Mutex<MeasuredParameters>>);

#[derive(Debug, Default)]
struct MeasuredParameters {
    charges: Option<(ChainCharges, Instant)>,
    clock: SlotClock,
    /// The limit of a call was reported to outlive a blockhash.
    reported_outliving: bool,
}

impl ChainParameters {
    fn state(&self) -> MutexGuard<'_, MeasuredParameters> {
        // Every change is a single assignment or an addition to one list: a panic leaves no half-made change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` until an endpoint has reported them.
    pub fn charges(&self) -> Option<ChainCharges> {
        self.state().charges.map(|(charges, _)| charges)
    }

    /// Whether they are to be read again.
    pub fn charges_are_due(&self, now: Instant) -> bool {
        self.state().charges.is_none_or(|(_, read_at)| {
            // The task that reads them runs on the same period, and its ticks are not exact.
            now.duration_since(read_at) >= CHARGES_EVERY / 2
        })
    }

    pub fn set_charges(&self, charges: ChainCharges, now: Instant) {
        let before = self.charges();
        self.state().charges = Some((charges, now));
        if before != Some(charges) {
            tracing::info!(
                token_account_rent_lamports = charges.token_account_rent,
                fee_payer_minimum_lamports = charges.fee_payer_minimum,
                signature_lamports = charges.per_signature,
                "new chain charges reported"
            );
        }
        metrics::gauge!(names::TOKEN_ACCOUNT_RENT_LAMPORTS)
            .set(metric_value(charges.token_account_rent));
        metrics::gauge!(names::SIGNATURE_FEE_LAMPORTS).set(metric_value(charges.per_signature));
    }

    /// Records the present slot and height, as a probe found them.
    pub(super) fn record_position(&self, at: Instant, position: ChainPosition) {
        self.state().clock.record(at, position);
        if let Some(slot) = self.slot_length() {
            metrics::gauge!(names::SLOT_SECONDS).set(slot.as_secs_f64());
        }
        if let Some(life) = self.blockhash_life() {
            metrics::gauge!(names::BLOCKHASH_LIFE_SECONDS).set(life.as_secs_f64());
        }
    }

    /// `None` before it was measured.
    pub fn slot_length(&self) -> Option<Duration> {
        self.state().clock.slot_length()
    }

    /// Life of a blockhash from its block on; `None` before it was measured.
    pub fn blockhash_life(&self) -> Option<Duration> {
        let state = self.state();
        let block = state.clock.block_length();
        let block = block.or_else(|| state.clock.slot_length())?;
        Some(block * u32::try_from(BLOCKHASH_LIFE).unwrap_or(u32::MAX))
    }

    /// The limit of a wait that is of no use once a blockhash that was fetched before it has died.
    pub fn within_blockhash_life(&self, limit: Duration) -> Duration {
        match self.blockhash_life() {
            Some(life) => limit.min(life.max(WAIT_AT_LEAST)),
            None => limit,
        }
    }

    /// Whether a blockhash that was fetched this long ago has lost so much of its life that nothing should be signed on it.
    pub fn is_worn(&self, age: Duration) -> bool {
        self.blockhash_life()
            .is_some_and(|life| age > life / SIGNING_SHARE)
    }

    /// Whether a call with this limit may outlive the blockhash that was fetched before it.
    pub fn outlives_blockhash(&self, call_limit: Duration) -> bool {
        self.blockhash_life().is_some_and(|life| call_limit > life)
    }

    /// The same, and true only once.
    pub fn first_outlives_blockhash(&self, call_limit: Duration) -> bool {
        let outlives = self.outlives_blockhash(call_limit);
        outlives && !std::mem::replace(&mut self.state().reported_outliving, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_slots_of(slot_ms: u64) -> ChainParameters {
        let (parameters, mut now) = (ChainParameters::default(), Instant::now());
        for probe in 0..4 {
            let slot = 1_000 + probe * 10_000 / slot_ms;
            let height = Some(slot - 500);
            parameters.record_position(now, ChainPosition { slot, height });
            now += Duration::from_secs(10);
        }
        parameters
    }

    #[test]
    fn the_life_of_a_blockhash_follows_the_measured_length_of_a_block() {
        let unknown = ChainParameters::default();
        let limit = Duration::from_secs(60);
        assert_eq!(unknown.blockhash_life(), None);
        assert_eq!(unknown.within_blockhash_life(limit), limit);
        assert!(!unknown.outlives_blockhash(limit));
        let today = with_slots_of(200);
        assert_eq!(today.slot_length(), Some(Duration::from_millis(200)));
        assert_eq!(today.blockhash_life(), Some(Duration::from_secs(30)));
        assert_eq!(today.within_blockhash_life(limit), Duration::from_secs(30));
        assert!(today.first_outlives_blockhash(limit));
        assert!(!today.first_outlives_blockhash(limit), "reported once");
        assert!(!with_slots_of(400).outlives_blockhash(limit));
        assert!(!today.is_worn(Duration::from_secs(9)) && today.is_worn(Duration::from_secs(11)));
        // However short slots are measured.
        let fast = with_slots_of(10);
        assert_eq!(fast.within_blockhash_life(limit), WAIT_AT_LEAST);
    }

    #[test]
    fn the_charges_are_asked_for_again_after_an_hour() {
        let (parameters, now) = (ChainParameters::default(), Instant::now());
        assert!(parameters.charges_are_due(now));
        let charges = ChainCharges {
            token_account_rent: 1_488_440,
            fee_payer_minimum: 650_240,
            per_signature: 5_000,
        };
        parameters.set_charges(charges, now);
        assert_eq!(parameters.charges(), Some(charges));
        assert!(!parameters.charges_are_due(now + Duration::from_secs(60)));
        assert!(parameters.charges_are_due(now + CHARGES_EVERY));
    }
}
