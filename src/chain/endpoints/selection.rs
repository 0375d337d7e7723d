//! All configured endpoints, and which one is queried first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::call_budget::CallBudgets;
use super::capabilities::Capabilities;
use super::endpoint::Endpoint;
use super::endpoint_health::{HighestHeight, ProbeResult};
use super::endpoint_names::named;
use super::provider_limits::MetLimit;
use super::rpc_class::RpcClass;
use super::shared_probe::{EndpointsKey, key_of};
use crate::chain::commitment::Consensus;
use crate::chain::error::{ChainError, ProbeFailure, UnusableEndpoint};
use crate::chain::parameters::ChainParameters;
use crate::domain::CallRate;

/// Limit of a command's wait for an endpoint that answers 429.
const COMMAND_RATE_LIMIT_WAIT: Duration = Duration::from_secs(120);
/// An endpoint that comes before the preferred one in the configured order is preferred again after this long without a
/// failure.
const RETURNS_AFTER: Duration = Duration::from_secs(60);

/// A snapshot of an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointView {
    pub name: String,
    /// Whether it is the one that is queried first.
    pub preferred: bool,
    /// Whether it may be called, answers, and is not behind.
    pub healthy: bool,
    /// The consensus of its cluster, as it reports it.
    pub consensus: Consensus,
    /// Height of its newest confirmed block, by its last probe.
    pub height: Option<u64>,
    /// Blocks below the highest height that any endpoint reported.
    pub lag_blocks: Option<u64>,
    /// It answered 429: how long it gets no calls.
    pub retry_after: Option<Duration>,
    /// The failure for which it counts as failed.
    pub failure: Option<ProbeFailure>,
    /// Whether it takes v1 transactions; `None` until it has answered.
    pub takes_v1: Option<bool>,
    /// It refused a background call: how long it gets none. Minting does not notice.
    pub background_retry_after: Option<Duration>,
    /// Its last answer that could not be used, within the last minute.
    pub strange_answer: Option<ChainError>,
    /// The limits of its provider that it has shown in the last hour.
    pub limits: Vec<MetLimit>,
    pub capabilities: Capabilities,
}

/// All configured endpoints, and the one that is queried first.
#[derive(Clone)]
pub struct Endpoints {
    all: Arc<[Endpoint]>,
    key: EndpointsKey,
    preferred: Arc<AtomicUsize>,
    highest: Arc<Mutex<HighestHeight>>,
    parameters: ChainParameters,
}

impl Endpoints {
    /// For a service, with background calls that are not paced: a hot call to an endpoint in its pause fails at once. `call_limit`
    /// ends a wait for one answer, never a transaction.
    pub fn new(urls: &[String], call_limit: Duration) -> Endpoints {
        Endpoints::paced(urls, call_limit, None)
    }

    /// For a service, with this rate of background calls to each endpoint.
    pub fn paced(urls: &[String], call_limit: Duration, rate: Option<CallRate>) -> Endpoints {
        Endpoints::with_budgets(urls, call_limit, || CallBudgets::new(Duration::ZERO, rate))
    }

    /// For a command that an operator waits for: a hot call to an endpoint that answers 429 waits too and is made again.
    pub fn for_commands(
        urls: &[String],
        call_limit: Duration,
        rate: Option<CallRate>,
    ) -> Endpoints {
        Endpoints::with_budgets(urls, call_limit, || {
            CallBudgets::new(COMMAND_RATE_LIMIT_WAIT, rate)
        })
    }

    fn with_budgets(
        urls: &[String],
        call_limit: Duration,
        budgets: impl Fn() -> CallBudgets,
    ) -> Endpoints {
        let http = reqwest::Client::new();
        let all = named(urls)
            .map(|(name, url)| Endpoint::new(&http, name, url, call_limit, budgets()))
            .collect();
        Endpoints {
            all,
            key: key_of(urls),
            preferred: Arc::new(AtomicUsize::new(0)),
            highest: Arc::default(),
            parameters: ChainParameters::default(),
        }
    }

    /// Identifies the configured list.
    pub fn key(&self) -> &EndpointsKey {
        &self.key
    }

    /// The endpoint that is queried first.
    pub fn preferred(&self) -> &Endpoint {
        &self.all[self.preferred_index()]
    }

    fn preferred_index(&self) -> usize {
        self.preferred.load(Ordering::Relaxed) % self.all.len()
    }

    /// Called when a call to an endpoint failed: if it was the preferred one, another is preferred from now on. Returns whether
    /// the preferred one is another now and is usable, so that the caller may retry at once.
    pub fn fail_over_from(&self, endpoint: &Endpoint, error: &ChainError) -> bool {
        if !matches!(error, ChainError::RateLimited { .. }) {
            endpoint.health().note_failed_call(error, Instant::now());
        }
        let current = self.preferred_index();
        if self.all[current].name() == endpoint.name() {
            let others = (1..self.all.len()).map(|step| (current + step) % self.all.len());
            let next = others.clone().find(|index| self.is_preferable(*index));
            // None answers as it should: those that answer at all come first.
            let next = next.or_else(|| others.clone().find(|index| self.all[*index].is_usable()));
            if let Some(next) = next.or(others.into_iter().next()) {
                self.preferred.store(next, Ordering::Relaxed);
            }
        }
        let preferred = self.preferred_index();
        self.all[preferred].name() != endpoint.name() && self.is_preferable(preferred)
    }

    /// Whether it is usable, and gave no strange answer within the last minute.
    fn is_preferable(&self, index: usize) -> bool {
        let endpoint = &self.all[index];
        endpoint.is_usable() && endpoint.health().is_trusted(Instant::now())
    }

    /// Every endpoint: the preferred one, then the other usable ones, those with a strange answer last, then the rest.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        let first = self.preferred_index();
        let mut order: Vec<usize> = (0..self.all.len())
            .map(|step| (first + step) % self.all.len())
            .collect();
        // Stable, and `false` comes before `true`.
        order[1..]
            .sort_by_key(|index| (!self.all[*index].is_usable(), !self.is_preferable(*index)));
        order.into_iter().map(|index| &self.all[index])
    }

    /// Every endpoint, for background work: in the order of [`Self::iter`], those last whose background calls are paused.
    pub fn for_background(&self) -> impl Iterator<Item = &Endpoint> {
        let mut all: Vec<&Endpoint> = self.iter().collect();
        all.sort_by_key(|endpoint| endpoint.paused_for(RpcClass::Background).is_some());
        all.into_iter()
    }

    /// The cluster's charges and its speed.
    pub fn parameters(&self) -> &ChainParameters {
        &self.parameters
    }

    /// The consensus of the cluster, by what the endpoints report.
    pub fn consensus(&self) -> Consensus {
        Consensus::of_cluster(self.all.iter().map(Endpoint::consensus))
    }

    pub fn by_name(&self, name: &str) -> Option<&Endpoint> {
        self.all.iter().find(|endpoint| endpoint.name() == name)
    }

    /// In the configured order.
    pub fn views(&self) -> Vec<EndpointView> {
        let (preferred, now) = (self.preferred_index(), Instant::now());
        let view = |(index, endpoint): (usize, &Endpoint)| {
            let retry_after = endpoint.rate_limited_for();
            let health = endpoint.health();
            EndpointView {
                name: endpoint.name().to_owned(),
                preferred: index == preferred,
                healthy: retry_after.is_none() && health.is_healthy(),
                consensus: endpoint.consensus(),
                height: health.height,
                lag_blocks: health.lag_blocks,
                retry_after,
                failure: health.failure.clone(),
                takes_v1: endpoint.v1_support().takes(),
                background_retry_after: endpoint.paused_for(RpcClass::Background),
                strange_answer: health
                    .strange_answer
                    .as_ref()
                    .filter(|_| !health.is_trusted(now))
                    .map(|(error, _)| error.clone()),
                limits: endpoint.limits().views(now),
                capabilities: endpoint.capabilities(),
            }
        };
        self.all.iter().enumerate().map(view).collect()
    }

    /// The highest block height, at `confirmed`, that an endpoint which answers reported at its last probe.
    pub fn highest_height(&self) -> Option<u64> {
        self.answering_heights().flatten().max()
    }

    /// The lowest one. Also `None` while the height of an endpoint that answers is unknown.
    pub fn lowest_height(&self) -> Option<u64> {
        let heights: Option<Vec<u64>> = self.answering_heights().collect();
        heights?.into_iter().min()
    }

    fn answering_heights(&self) -> impl Iterator<Item = Option<u64>> {
        let answering = self.all.iter().filter(|endpoint| endpoint.answers());
        answering.map(|endpoint| endpoint.health().height)
    }

    /// In the configured order, for a probe of all of them.
    pub(super) fn configured(&self) -> &[Endpoint] {
        &self.all
    }

    /// Records one probe of each, in the configured order, and chooses the preferred one: the present one while it is usable,
    /// unless one before it has been healthy for [`RETURNS_AFTER`].
    pub(super) fn record(&self, probes: Vec<ProbeResult>, now: Instant) {
        let highest = {
            let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
            highest.record(&probes, now)
        };
        for (endpoint, probe) in self.all.iter().zip(probes) {
            let mut health = endpoint.health();
            let was_healthy = health.is_healthy();
            health.record(probe, highest, now);
            if !was_healthy && health.is_healthy() {
                endpoint.v1_support().recovered();
            }
        }
        let current = self.preferred_index();
        let is_steady = |endpoint: &Endpoint| {
            let since = endpoint.health().healthy_since;
            since.is_some_and(|since| now.duration_since(since) >= RETURNS_AFTER)
        };
        let is_current_good = self.is_preferable(current);
        let good = (0..self.all.len()).filter(|index| self.is_preferable(*index));
        let chosen = good
            .clone()
            .find(|index| *index == current || !is_current_good || is_steady(&self.all[*index]));
        // None answers as it should: one that answers at all is better than one that does not.
        let answers = |index: &usize| self.all[*index].is_usable();
        let chosen = chosen.or_else(|| {
            let keeps = answers(&current);
            (0..self.all.len()).find(|index| answers(index) && !keeps)
        });
        if let Some(chosen) = chosen.filter(|chosen| *chosen != current) {
            tracing::info!(
                endpoint = self.all[chosen].name(),
                instead_of = self.all[current].name(),
                "preferred RPC endpoint changed"
            );
            self.preferred.store(chosen, Ordering::Relaxed);
        }
    }

    /// The error when no endpoint is usable, with the reason of each.
    pub(in crate::chain) fn none_usable(&self) -> ChainError {
        let endpoints = self
            .views()
            .into_iter()
            .map(|view| match (view.retry_after, view.failure) {
                (Some(wait), _) => UnusableEndpoint::RateLimited {
                    endpoint: view.name,
                    wait,
                },
                (None, Some(failure)) => UnusableEndpoint::Failed(failure),
                (None, None) => UnusableEndpoint::NotProbed {
                    endpoint: view.name,
                },
            })
            .collect();
        ChainError::NoneUsable { endpoints }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::error_reason::{NoAnswer, UnusableAnswer};

    fn time_out() -> ChainError {
        ChainError::Unreachable {
            endpoint: "rpc-2".to_owned(),
            method: "getSlot",
            reason: NoAnswer::TimedOut,
        }
    }

    fn endpoints(count: usize) -> Endpoints {
        let urls: Vec<String> = (0..count)
            .map(|index| format!("http://127.0.0.1:{}", index + 1))
            .collect();
        Endpoints::new(&urls, Duration::from_secs(1))
    }

    fn heights(heights: &[u64]) -> Vec<ProbeResult> {
        let probe = |height: &u64| ProbeResult::Height {
            height: *height,
            reports_behind: None,
        };
        heights.iter().map(probe).collect()
    }

    #[test]
    fn an_endpoint_that_is_behind_is_left_and_preferred_again_after_a_minute_of_health() {
        let (endpoints, now) = (endpoints(2), Instant::now());
        endpoints.record(heights(&[100, 100]), now);
        assert_eq!(endpoints.preferred().name(), "rpc-1");
        endpoints.record(heights(&[100, 150]), now);
        assert_eq!(endpoints.preferred().name(), "rpc-1", "a doubt");
        endpoints.record(heights(&[100, 150]), now);
        assert_eq!(endpoints.preferred().name(), "rpc-2");
        endpoints.record(heights(&[200, 200]), now);
        assert_eq!(
            endpoints.preferred().name(),
            "rpc-2",
            "healthy, but only just"
        );
        endpoints.record(heights(&[300, 300]), now + RETURNS_AFTER);
        assert_eq!(endpoints.preferred().name(), "rpc-1");
    }

    #[test]
    fn heights_count_only_while_their_endpoints_answer() {
        let (endpoints, now) = (endpoints(3), Instant::now());
        assert_eq!(
            (endpoints.lowest_height(), endpoints.highest_height()),
            (None, None)
        );
        endpoints.record(heights(&[100, 90, 110]), now);
        assert_eq!(endpoints.lowest_height(), Some(90));
        assert_eq!(endpoints.highest_height(), Some(110));
        for index in [1, 2] {
            endpoints.fail_over_from(&endpoints.configured()[index], &time_out());
        }
        assert_eq!(endpoints.lowest_height(), Some(100));
        assert_eq!(endpoints.highest_height(), Some(100));
    }

    #[test]
    fn a_failed_call_fails_over_to_the_next_usable_endpoint() {
        let (endpoints, now) = (endpoints(3), Instant::now());
        let mut probes = heights(&[100, 100, 100]);
        probes[1] = ProbeResult::NoAnswer(time_out());
        endpoints.record(probes, now);
        let first = &endpoints.configured()[0];
        assert!(endpoints.fail_over_from(first, &time_out()));
        assert_eq!(endpoints.preferred().name(), "rpc-3");
        let order: Vec<&str> = endpoints.iter().map(Endpoint::name).collect();
        assert_eq!(order, ["rpc-3", "rpc-1", "rpc-2"]);
        let third = &endpoints.configured()[2];
        assert!(
            !endpoints.fail_over_from(third, &time_out()),
            "none is left"
        );
    }

    #[test]
    fn after_strange_answers_of_every_endpoint_no_call_is_repeated_elsewhere_and_none_counts_as_gone()
     {
        let (endpoints, now) = (endpoints(2), Instant::now());
        endpoints.record(heights(&[100, 100]), now);
        let strange = ChainError::Unusable {
            endpoint: "rpc-1".to_owned(),
            reason: UnusableAnswer::AccountData,
        };
        let [first, second] = endpoints.configured() else {
            panic!("two endpoints");
        };
        assert!(endpoints.fail_over_from(first, &strange));
        assert_eq!(endpoints.preferred().name(), "rpc-2");
        assert!(!endpoints.fail_over_from(second, &strange));
        endpoints.record(heights(&[101, 101]), now);
        assert!(endpoints.views().iter().all(|view| view.healthy));
    }

    #[test]
    fn an_endpoint_in_its_rate_limit_pause_is_not_usable() {
        let endpoints = endpoints(2);
        let first = &endpoints.configured()[0];
        let pause = Some(Duration::from_secs(60));
        let budgets = first.budgets();
        budgets.note_refusal(RpcClass::Background, pause, Instant::now());
        assert!(first.is_usable(), "minting does not notice");
        let order: Vec<&str> = endpoints.for_background().map(Endpoint::name).collect();
        assert_eq!(order, ["rpc-2", "rpc-1"]);
        budgets.note_refusal(RpcClass::Hot, pause, Instant::now());
        assert!(!first.is_usable());
        assert!(endpoints.fail_over_from(first, &time_out()));
        let views = endpoints.views();
        assert!(views[0].retry_after.is_some() && !views[0].healthy);
        assert!(views[1].preferred && views[1].healthy);
    }

    #[test]
    fn the_text_that_is_shown_never_contains_a_url() {
        let endpoints = Endpoints::new(
            &["http://user:secret@127.0.0.1:9/key".to_owned()],
            Duration::from_secs(1),
        );
        assert_eq!(endpoints.preferred().hot().url(), "rpc-1");
        let shown = format!("{:?} {}", endpoints.views(), endpoints.none_usable());
        assert!(
            !shown.contains("secret") && !shown.contains("127"),
            "{shown}"
        );
    }
}
