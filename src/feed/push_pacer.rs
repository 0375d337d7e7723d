//! Limits how many pushes of live events one client gets in a minute.
//!
//! Not `governor`: its cells cannot be read without taking one, and a push that exceeds the quota, which a full frame does,
//! cannot be charged.

use std::time::Duration;

use tokio::time::Instant;

/// The pushes of a full minute may go out in a burst; from then on they are spaced evenly. Events that wait meanwhile travel
/// together in the next push, so an event is late by at most one interval.
#[derive(Debug)]
pub(super) struct PushPacer {
    interval: Duration,
    /// How far pushes may be ahead of even spacing.
    burst: Duration,
    /// When the next push would be due if all so far had been spaced evenly.
    even_until: Instant,
}

impl PushPacer {
    pub fn per_minute(pushes: u32, now: Instant) -> PushPacer {
        let pushes = pushes.max(1);
        let interval = Duration::from_secs(60) / pushes;
        PushPacer {
            interval,
            burst: interval * (pushes - 1),
            even_until: now,
        }
    }

    /// `None` if a push may go out now, otherwise the time at which it may.
    pub fn next_push_at(&self, now: Instant) -> Option<Instant> {
        let ahead = self.even_until.saturating_duration_since(now);
        (ahead > self.burst).then(|| now + (ahead - self.burst))
    }

    /// Charges a push. One that was not due, because its frame was full, delays the next one by no more than one interval.
    pub fn record_push(&mut self, now: Instant) {
        let latest = now + self.burst + self.interval;
        self.even_until = (self.even_until.max(now) + self.interval).min(latest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pushes_of_a_minute_go_at_once_and_then_evenly() {
        let start = Instant::now();
        let mut pacer = PushPacer::per_minute(60, start);
        for push in 0..60 {
            assert_eq!(pacer.next_push_at(start), None, "push {push}");
            pacer.record_push(start);
        }
        let second = Duration::from_secs(1);
        assert_eq!(pacer.next_push_at(start), Some(start + second));
        let later = start + second;
        assert_eq!(pacer.next_push_at(later), None);
        pacer.record_push(later);
        assert_eq!(pacer.next_push_at(later), Some(later + second));
        // A quiet minute restores the burst.
        let rested = later + Duration::from_secs(60);
        for _ in 0..60 {
            assert_eq!(pacer.next_push_at(rested), None);
            pacer.record_push(rested);
        }
        assert!(pacer.next_push_at(rested).is_some());
    }

    #[test]
    fn full_frames_that_exceed_the_pace_delay_the_next_push_by_one_interval() {
        let start = Instant::now();
        let mut pacer = PushPacer::per_minute(60, start);
        for _ in 0..1_000 {
            pacer.record_push(start);
        }
        assert_eq!(
            pacer.next_push_at(start),
            Some(start + Duration::from_secs(1))
        );
    }

    #[test]
    fn a_limit_of_one_push_a_minute_permits_one() {
        let start = Instant::now();
        let mut pacer = PushPacer::per_minute(1, start);
        assert_eq!(pacer.next_push_at(start), None);
        pacer.record_push(start);
        let minute = Duration::from_secs(60);
        assert_eq!(pacer.next_push_at(start), Some(start + minute));
        assert_eq!(pacer.next_push_at(start + minute), None);
    }
}
