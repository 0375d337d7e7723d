//! Measures how long a slot and a block last, from what the probes report anyway: pure.
//!
//! Each pair of consecutive probes gives one measurement, and their median counts: an endpoint that lags or catches up for a
//! moment, or a chain that stands still for one, spoils single pairs and not the figure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Probes closer together than this measure the time of their answers rather than that of the slots.
const APART_AT_LEAST: Duration = Duration::from_secs(4);
/// Measurements that count: with a probe every 5 s, those of ten minutes, and of forty while nothing is minted. Long enough for a
/// steady figure, short enough to follow a cluster that changes its slots.
const MEASUREMENTS_MAX: usize = 120;

/// Slot and height of the chain at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChainPosition {
    pub slot: u64,
    /// `None`: not reported together with the slot.
    pub height: Option<u64>,
}

/// Measures the length of slots and blocks.
#[derive(Debug, Default)]
pub(super) struct SlotClock {
    last: Option<(Instant, ChainPosition)>,
    slots: Measurements,
    blocks: Measurements,
}

/// The newest measurements of one length.
#[derive(Debug, Default)]
struct Measurements(VecDeque<Duration>);

impl Measurements {
    fn add(&mut self, elapsed: Duration, from: u64, to: u64) {
        let passed = u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX);
        if passed == 0 {
            return;
        }
        if self.0.len() == MEASUREMENTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(elapsed / passed);
    }

    fn median(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

impl SlotClock {
    /// A position that is not after the last one comes from another endpoint or from a fork: measuring begins anew there.
    pub fn record(&mut self, at: Instant, position: ChainPosition) {
        let Some((last_at, last)) = self.last else {
            self.last = Some((at, position));
            return;
        };
        let elapsed = at.duration_since(last_at);
        if position.slot >= last.slot && elapsed < APART_AT_LEAST {
            return;
        }
        if position.slot > last.slot {
            self.slots.add(elapsed, last.slot, position.slot);
            if let (Some(from), Some(to)) = (last.height, position.height) {
                self.blocks.add(elapsed, from, to);
            }
        }
        self.last = Some((at, position));
    }

    /// `None` before the first measurement.
    pub fn slot_length(&self) -> Option<Duration> {
        self.slots.median()
    }

    /// Longer than a slot where slots are skipped. `None` before the first measurement.
    pub fn block_length(&self) -> Option<Duration> {
        self.blocks.median()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVERY: Duration = Duration::from_secs(5);

    fn at(slot: u64) -> ChainPosition {
        ChainPosition {
            slot,
            height: Some(slot / 2),
        }
    }

    fn clock(slots: &[u64]) -> SlotClock {
        let (mut clock, mut now) = (SlotClock::default(), Instant::now());
        for slot in slots {
            clock.record(now, at(*slot));
            now += EVERY;
        }
        clock
    }

    #[test]
    fn slots_and_blocks_are_measured_apart() {
        assert_eq!(clock(&[1_000]).slot_length(), None);
        let clock = clock(&[1_000, 1_025, 1_050]);
        assert_eq!(clock.slot_length(), Some(Duration::from_millis(200)));
        // Half of the slots were skipped.
        let block = clock.block_length().unwrap();
        assert!(block > Duration::from_millis(380) && block < Duration::from_millis(420));
    }

    #[test]
    fn one_jump_one_standstill_and_one_step_back_do_not_count() {
        let slots = [
            1_000, 1_025, 1_050, 5_000, 5_025, 5_025, 5_050, 4_900, 4_925, 4_950, 4_975,
        ];
        assert_eq!(
            clock(&slots).slot_length(),
            Some(Duration::from_millis(200))
        );
    }

    #[test]
    fn probes_in_quick_succession_count_as_one() {
        let (mut clock, now) = (SlotClock::default(), Instant::now());
        clock.record(now, at(1_000));
        clock.record(now + Duration::from_millis(500), at(1_020));
        assert_eq!(clock.slot_length(), None);
        clock.record(now + EVERY, at(1_025));
        assert_eq!(clock.slot_length(), Some(Duration::from_millis(200)));
    }

    proptest! {
        /// Whatever one probe in nine reports, and however the others jitter by a slot.
        #[test]
        fn the_figure_stays_near_the_truth(
            jitter in prop::collection::vec(0_u64..2, 9..120),
            wild in any::<u64>(),
            slot_ms in 100_u64..1_000,
        ) {
            let per_probe = 5_000 / slot_ms;
            let slots: Vec<u64> = (1_u64..)
                .zip(&jitter)
                .map(|(probe, jitter)| {
                    let wild = if probe % 9 == 5 { wild % 1_000_000 } else { 0 };
                    1_000_000 + probe * per_probe + jitter + wild
                })
                .collect();
            let measured = clock(&slots).slot_length().unwrap();
            let truth = EVERY / u32::try_from(per_probe).unwrap();
            let ratio = measured.as_secs_f64() / truth.as_secs_f64();
            prop_assert!((0.7..1.5).contains(&ratio), "{measured:?} for {truth:?}");
        }

        #[test]
        fn memory_is_bounded(slots in prop::collection::vec(any::<u64>(), 0..300)) {
            let clock = clock(&slots);
            prop_assert!(clock.slots.0.len() <= MEASUREMENTS_MAX);
            prop_assert!(clock.blocks.0.len() <= MEASUREMENTS_MAX);
        }
    }
}
