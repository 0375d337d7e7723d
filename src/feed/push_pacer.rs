//! How many pushes a minute one client gets.

use std::time::Duration;

use tokio::time::Instant;

/// A full minute's pushes may go out one upon the other; from then on they come evenly. What waits meanwhile travels
/// together, so a client is told late by one interval at most.
#[derive(Debug)]
pub(super) struct PushPacer {
    interval: Duration,
    /// How far ahead of the even rhythm a client may be.
    burst: Duration,
    /// When the pushes so far would have ended, had they come evenly.
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

    /// Whether a push may go out now, else when.
    pub fn next_push_at(&self, now: Instant) -> Option<Instant> {
        let ahead = self.even_until.saturating_duration_since(now);
        (ahead > self.burst).then(|| now + (ahead - self.burst))
    }

    /// A push that was not due, since its frame was full, is forgiven: the next one waits for one interval all the same.
    pub fn record_push(&mut self, now: Instant) {
        let most = now + self.burst + self.interval;
        self.even_until = (self.even_until.max(now) + self.interval).min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_pushes_go_at_once_and_then_evenly() {
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
        // A quiet minute fills it up again.
        let rested = later + Duration::from_secs(60);
        for _ in 0..60 {
            assert_eq!(pacer.next_push_at(rested), None);
            pacer.record_push(rested);
        }
        assert!(pacer.next_push_at(rested).is_some());
    }

    #[test]
    fn full_frames_that_go_out_all_the_same_delay_the_next_push_by_one_interval() {
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
    fn one_push_a_minute_is_one() {
        let start = Instant::now();
        let mut pacer = PushPacer::per_minute(1, start);
        assert_eq!(pacer.next_push_at(start), None);
        pacer.record_push(start);
        let minute = Duration::from_secs(60);
        assert_eq!(pacer.next_push_at(start), Some(start + minute));
        assert_eq!(pacer.next_push_at(start + minute), None);
    }
}
