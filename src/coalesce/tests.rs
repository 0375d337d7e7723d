use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::join_all;
use proptest::prelude::*;
use tokio::sync::Notify;

use super::*;

/// Longer than any test: a batch that starts earlier started for another reason.
const ENDLESS: Duration = Duration::from_secs(3600);
/// A test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn limits(max_items: usize, linger: Duration) -> CoalesceLimits {
    CoalesceLimits {
        max_items,
        linger,
        queue: 10_000,
        concurrency: 1,
    }
}

/// Batches that wait at a gate; the test observes which have started and lets them finish one by one.
#[derive(Clone, Default)]
struct Gate {
    started: Arc<Mutex<Vec<Vec<u32>>>>,
    changed: Arc<Notify>,
    open: Arc<Mutex<Option<Arc<Semaphore>>>>,
}

impl Gate {
    fn closed() -> Gate {
        Gate {
            open: Arc::new(Mutex::new(Some(Arc::new(Semaphore::new(0))))),
            ..Gate::default()
        }
    }

    fn let_through(&self, batches: usize) {
        if let Some(open) = self.open.lock().unwrap().as_ref() {
            open.add_permits(batches);
        }
    }

    async fn run(self, items: Vec<u32>) -> Vec<u32> {
        self.started.lock().unwrap().push(items.clone());
        self.changed.notify_one();
        let open = self.open.lock().unwrap().clone();
        if let Some(open) = open {
            open.acquire().await.unwrap().forget();
        }
        items
    }

    async fn started(&self, batches: usize) -> Vec<Vec<u32>> {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let changed = self.changed.notified();
                let started = self.started.lock().unwrap().clone();
                if started.len() >= batches {
                    return started;
                }
                changed.await;
            }
        });
        waited.await.expect("the batches start")
    }
}

fn start_gated(limits: CoalesceLimits, tracker: &TaskTracker, gate: &Gate) -> Coalescer<u32, u32> {
    let gate = gate.clone();
    Coalescer::start("test", limits, tracker, move |items| {
        gate.clone().run(items)
    })
}

#[tokio::test]
async fn a_full_batch_starts_without_waiting_for_the_linger() {
    let gate = Gate::default();
    let coalescer = start_gated(limits(3, ENDLESS), &TaskTracker::new(), &gate);
    let answers = join_all((0..3).map(|item| coalescer.call(item)));
    let answers = tokio::time::timeout(PATIENCE, answers).await.unwrap();
    assert_eq!(answers, [Ok(0), Ok(1), Ok(2)]);
    assert_eq!(gate.started(1).await, [[0, 1, 2]]);
}

#[tokio::test]
async fn a_single_call_starts_after_the_linger() {
    let gate = Gate::default();
    let linger = Duration::from_millis(30);
    let coalescer = start_gated(limits(1000, linger), &TaskTracker::new(), &gate);
    let before = Instant::now();
    assert_eq!(coalescer.call(7).await, Ok(7));
    assert!(before.elapsed() >= linger);
}

#[tokio::test]
async fn calls_that_arrive_while_a_batch_runs_form_one_batch() {
    let gate = Gate::closed();
    let coalescer = start_gated(limits(1000, Duration::ZERO), &TaskTracker::new(), &gate);
    let first = coalescer.call(0);
    tokio::pin!(first);
    assert!(first.as_mut().now_or_never().is_none());
    gate.started(1).await;
    let mut rest = Box::pin(join_all((1..=100).map(|item| coalescer.call(item))));
    assert!(rest.as_mut().now_or_never().is_none());
    gate.let_through(2);
    assert_eq!(first.await, Ok(0));
    assert!(rest.await.iter().all(Result::is_ok));
    assert_eq!(gate.started(2).await[1], (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn no_more_batches_run_at_once_than_allowed() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let limits = CoalesceLimits {
        concurrency: 3,
        ..limits(1, Duration::ZERO)
    };
    let counted = (Arc::clone(&running), Arc::clone(&most));
    let coalescer = Coalescer::start(
        "test",
        limits,
        &TaskTracker::new(),
        move |items: Vec<u32>| {
            let (running, most) = counted.clone();
            async move {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                items
            }
        },
    );
    join_all((0..30).map(|item| coalescer.call(item))).await;
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let gate = Gate::closed();
    let limits = CoalesceLimits {
        queue: 2,
        ..limits(1, Duration::ZERO)
    };
    let coalescer = start_gated(limits, &TaskTracker::new(), &gate);
    let mut in_flight = Box::pin(coalescer.call(0));
    assert!(in_flight.as_mut().now_or_never().is_none());
    gate.started(1).await;
    // The collector holds one more, which waits to run; two fill the queue; then it is full.
    let mut waiting: Vec<_> = Vec::new();
    let refusal = loop {
        let mut call = Box::pin(coalescer.call(1));
        match call.as_mut().now_or_never() {
            None => waiting.push(call),
            Some(answer) => break answer,
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(refusal, Err(CoalesceError::Full));
    assert_eq!(waiting.len(), 3);
    gate.let_through(4);
    assert!(join_all(waiting).await.iter().all(Result::is_ok));
    assert_eq!(in_flight.await, Ok(0));
}

#[tokio::test]
async fn a_dropped_caller_cancels_no_other_and_its_item_still_runs() {
    let gate = Gate::closed();
    let coalescer = start_gated(limits(2, ENDLESS), &TaskTracker::new(), &gate);
    let mut gone = Box::pin(coalescer.call(1));
    assert!(gone.as_mut().now_or_never().is_none());
    drop(gone);
    let mut stays = Box::pin(coalescer.call(2));
    assert!(stays.as_mut().now_or_never().is_none());
    assert_eq!(gate.started(1).await, [[1, 2]]);
    gate.let_through(1);
    assert_eq!(stays.await, Ok(2));
}

#[tokio::test]
async fn a_batch_that_panics_answers_its_callers_with_an_error_and_the_next_one_runs() {
    let coalescer = Coalescer::start(
        "test",
        limits(2, ENDLESS),
        &TaskTracker::new(),
        |items: Vec<u32>| async move {
            assert!(!items.contains(&13), "this batch is meant to panic");
            items
        },
    );
    let unlucky = join_all([coalescer.call(12), coalescer.call(13)]).await;
    assert_eq!(
        unlucky,
        [Err(CoalesceError::Failed), Err(CoalesceError::Failed)]
    );
    let lucky = join_all([coalescer.call(14), coalescer.call(15)]).await;
    assert_eq!(lucky, [Ok(14), Ok(15)]);
}

#[tokio::test]
async fn an_item_that_its_batch_does_not_answer_gets_an_error() {
    let coalescer = Coalescer::start(
        "test",
        limits(2, ENDLESS),
        &TaskTracker::new(),
        |items: Vec<u32>| async move { items.into_iter().take(1).collect() },
    );
    let answers = join_all([coalescer.call(1), coalescer.call(2)]).await;
    assert_eq!(answers, [Ok(1), Err(CoalesceError::Failed)]);
}

#[tokio::test]
async fn closing_runs_accepted_items_and_accepts_no_more() {
    let gate = Gate::default();
    let tracker = TaskTracker::new();
    let coalescer = start_gated(limits(4, ENDLESS), &tracker, &gate);
    let mut accepted = Box::pin(join_all((0..10).map(|item| coalescer.call(item))));
    assert!(accepted.as_mut().now_or_never().is_none());
    coalescer.close();
    tracker.close();
    tokio::time::timeout(PATIENCE, tracker.wait())
        .await
        .unwrap();
    let answers = accepted.await;
    assert_eq!(answers, (0..10).map(Ok).collect::<Vec<_>>());
    assert_eq!(coalescer.call(10).await, Err(CoalesceError::Closed));
}

#[tokio::test]
async fn dropping_every_handle_ends_the_collector() {
    let tracker = TaskTracker::new();
    let coalescer = start_gated(limits(4, ENDLESS), &tracker, &Gate::default());
    drop(coalescer);
    tracker.close();
    tokio::time::timeout(PATIENCE, tracker.wait())
        .await
        .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the limits, and whichever callers are dropped: each item runs once, in order, in batches within the limit, and each
    /// caller gets its own answer.
    #[test]
    fn each_item_runs_once_and_each_caller_gets_its_own_answer(
        max_items in 1_usize..20,
        linger_us in 0_u64..500,
        concurrency in 1_usize..4,
        stays in prop::collection::vec(any::<bool>(), 1..100),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let gate = Gate::default();
            let tracker = TaskTracker::new();
            let limits = CoalesceLimits {
                concurrency,
                ..limits(max_items, Duration::from_micros(linger_us))
            };
            let coalescer = start_gated(limits, &tracker, &gate);
            let mut calls = Vec::new();
            for (item, stay) in (0_u32..).zip(&stays) {
                let mut call = Box::pin(coalescer.call(item));
                prop_assert!(call.as_mut().now_or_never().is_none());
                if *stay {
                    calls.push((item, call));
                }
                if item % 7 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            for (item, call) in calls {
                prop_assert_eq!(call.await, Ok(item));
            }
            coalescer.close();
            tracker.close();
            tracker.wait().await;
            let batches = gate.started.lock().unwrap().clone();
            prop_assert!(batches.iter().all(|batch| batch.len() <= max_items));
            let mut ran = batches.concat();
            ran.sort_unstable();
            prop_assert_eq!(ran, (0..stays.len() as u32).collect::<Vec<_>>());
            Ok(())
        })?;
    }
}
