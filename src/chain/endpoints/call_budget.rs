//! Limits the calls to an endpoint: one budget for each class, with its own pause and, for background calls, its own pace.
//!
//! Invariant: background work never takes a call from minting. A refusal of a background call pauses background calls only; a
//! refusal of a hot call pauses both, because the provider counts them together and background work gives way.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::rate_limit::RateLimitPause;
use super::rpc_class::RpcClass;
use crate::domain::CallRate;

/// Limit of a background call's wait for the end of a pause, after which it fails: providers count by second, by ten seconds or by
/// minute; what lasts longer is a used-up quota, and another endpoint has to answer.
const BACKGROUND_WAIT_MAX: Duration = Duration::from_secs(900);

/// The budgets of one endpoint.
#[derive(Debug)]
pub(super) struct CallBudgets {
    hot: CallBudget,
    background: CallBudget,
    /// Limit of a hot call's wait for the end of a pause.
    hot_wait: Duration,
}

/// The budget of one class of calls.
#[derive(Debug)]
pub(super) struct CallBudget {
    pub pause: RateLimitPause,
    pub pacer: CallPacer,
}

impl CallBudgets {
    /// `hot_wait`: how long a hot call waits for the end of a pause. `rate`: of background calls; `None`: not paced.
    pub fn new(hot_wait: Duration, rate: Option<CallRate>) -> CallBudgets {
        CallBudgets {
            hot: CallBudget {
                pause: RateLimitPause::default(),
                pacer: CallPacer::default(),
            },
            background: CallBudget {
                pause: RateLimitPause::default(),
                pacer: CallPacer::new(rate),
            },
            hot_wait,
        }
    }

    pub fn of(&self, class: RpcClass) -> &CallBudget {
        match class {
            RpcClass::Hot => &self.hot,
            RpcClass::Background | RpcClass::LookUp => &self.background,
        }
    }

    /// Limit of the wait for the end of a pause, after which a call of this class fails.
    pub fn pause_wait(&self, class: RpcClass) -> Duration {
        match class {
            RpcClass::Hot => self.hot_wait,
            RpcClass::Background => BACKGROUND_WAIT_MAX,
            RpcClass::LookUp => Duration::ZERO,
        }
    }

    /// The endpoint refused a call of this class and requested a pause of at least this length.
    pub fn note_refusal(
        &self,
        class: RpcClass,
        requested: Option<Duration>,
        now: Instant,
    ) -> Duration {
        let pause = self.of(class).pause.refused(requested, now);
        if class == RpcClass::Hot {
            self.background.pause.extend(pause, now);
        }
        pause
    }

    /// The endpoint answered a call of this class.
    pub fn note_answer(&self, class: RpcClass) {
        self.of(class).pause.answered();
    }
}

/// Lets calls through one by one, in the order in which they came, at most as often as its rate allows.
#[derive(Debug, Default)]
pub(super) struct CallPacer {
    rate: Option<CallRate>,
    /// The holder of this lock has the next turn. The lock is fair, so a long scan does not keep a look-up waiting.
    next: Mutex<Option<Interval>>,
}

impl CallPacer {
    fn new(rate: Option<CallRate>) -> CallPacer {
        CallPacer {
            rate,
            next: Mutex::default(),
        }
    }

    /// Returns when it is this call's turn.
    pub async fn turn(&self) {
        let Some(rate) = self.rate else {
            return;
        };
        let mut next = self.next.lock().await;
        let ticks = next.get_or_insert_with(|| {
            let mut ticks = interval(rate.every());
            // After an idle time one call is made at once, and the next keeps its distance: no burst.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        ticks.tick().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::join_all;

    use super::*;

    fn pacer() -> Arc<CallPacer> {
        Arc::new(CallPacer::new(Some(CallRate::per_second(100.into()))))
    }

    #[tokio::test]
    async fn all_callers_together_keep_the_rate_and_an_idle_time_saves_no_calls() {
        let pacer = pacer();
        for _ in 0..2 {
            let started = Instant::now();
            join_all((0..21).map(|_| pacer.turn())).await;
            assert!(started.elapsed() >= Duration::from_millis(200));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    #[tokio::test]
    async fn a_late_caller_gets_its_turn_after_those_that_waited_before_it() {
        let (pacer, turns) = (pacer(), Arc::new(AtomicU32::new(0)));
        let scan = tokio::spawn({
            let (pacer, turns) = (Arc::clone(&pacer), Arc::clone(&turns));
            async move {
                loop {
                    pacer.turn().await;
                    turns.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        while turns.load(Ordering::SeqCst) < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let before = turns.load(Ordering::SeqCst);
        pacer.turn().await;
        let others = turns.load(Ordering::SeqCst) - before;
        assert!(others <= 2, "{others} calls were let through before it");
        scan.abort();
    }

    #[test]
    fn a_refused_background_call_does_not_pause_minting_and_a_refused_hot_call_pauses_both() {
        let (hot, background) = (RpcClass::Hot, RpcClass::Background);
        let budgets = CallBudgets::new(Duration::ZERO, None);
        let (now, pause) = (Instant::now(), Duration::from_secs(7));
        budgets.note_refusal(background, Some(pause), now);
        assert_eq!(budgets.of(background).pause.remaining(now), Some(pause));
        assert_eq!(
            budgets.of(RpcClass::LookUp).pause.remaining(now),
            Some(pause)
        );
        assert_eq!(budgets.of(hot).pause.remaining(now), None);
        let budgets = CallBudgets::new(Duration::ZERO, None);
        budgets.note_refusal(hot, Some(pause), now);
        assert_eq!(budgets.of(background).pause.remaining(now), Some(pause));
        assert_eq!(budgets.of(hot).pause.remaining(now), Some(pause));
    }
}
