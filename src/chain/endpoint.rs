//! RPC endpoints: several may be configured, and each is known by a name that is safe to show.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_client::RpcClientConfig;
use solana_commitment_config::CommitmentConfig;

use super::ChainError;
use super::endpoint_health::{EndpointHealth, Highest, ProbeResult};
use super::rate_limit::RateLimitPause;
use super::sender::EndpointSender;

/// How long a command waits for an endpoint that answers 429.
const COMMAND_PATIENCE: Duration = Duration::from_secs(120);
/// An endpoint that comes before the preferred one in the configured order is preferred again after so long without a
/// fault.
const RETURNS_AFTER: Duration = Duration::from_secs(60);

/// One RPC endpoint. Its URL may hold an access key: only the name is ever shown.
pub struct Endpoint {
    name: String,
    rpc: RpcClient,
    rate_limit: Arc<RateLimitPause>,
    health: Mutex<EndpointHealth>,
}

impl Endpoint {
    /// What stands behind the `#` of its URL, else its place in `SOLANA_RPC_URL`: `rpc-1`, `rpc-2`, …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client; default commitment `confirmed`, every call limited by the configured time. While the endpoint wants no
    /// calls (429), each fails at once without being made.
    pub fn rpc(&self) -> &RpcClient {
        &self.rpc
    }

    /// How long the endpoint wants no calls.
    pub fn wait_left(&self) -> Option<Duration> {
        self.rate_limit.remaining(Instant::now())
    }

    /// Whether it may be called, answers, and is not behind.
    pub fn is_usable(&self) -> bool {
        self.wait_left().is_none() && self.health().is_healthy()
    }

    pub(super) fn health(&self) -> MutexGuard<'_, EndpointHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An endpoint as it is shown.
#[derive(Clone, Debug)]
pub struct EndpointView {
    pub name: String,
    /// Whether it is the one that is asked first.
    pub preferred: bool,
    /// Whether it may be called, answers, and is not behind.
    pub healthy: bool,
    /// Block height at `confirmed`, when it was looked at last.
    pub height: Option<u64>,
    /// Blocks below the highest height that any endpoint told.
    pub lag_blocks: Option<u64>,
    /// It answered 429: how long no call goes to it.
    pub retry_after: Option<Duration>,
    /// Why it gave no height.
    pub failure: Option<String>,
}

/// All configured endpoints, and the one that is asked first.
#[derive(Clone)]
pub struct Endpoints {
    all: Arc<[Endpoint]>,
    preferred: Arc<AtomicUsize>,
    highest: Arc<Mutex<Highest>>,
}

impl Endpoints {
    /// For a service: a call to an endpoint that wants none fails at once. `call_limit` ends a wait for one answer, never a
    /// transaction.
    pub fn new(urls: &[String], call_limit: Duration) -> Endpoints {
        Endpoints::with_patience(urls, call_limit, Duration::ZERO)
    }

    /// For a command that a person waits for: a call to an endpoint that answers 429 waits and is made again.
    pub fn patient(urls: &[String], call_limit: Duration) -> Endpoints {
        Endpoints::with_patience(urls, call_limit, COMMAND_PATIENCE)
    }

    fn with_patience(urls: &[String], call_limit: Duration, patience: Duration) -> Endpoints {
        let http = reqwest::Client::new();
        let all = named(urls)
            .map(|(name, url)| {
                let rate_limit = Arc::new(RateLimitPause::default());
                let sender = EndpointSender {
                    http: http.clone(),
                    url: url.to_owned(),
                    endpoint: name.clone(),
                    rate_limit: Arc::clone(&rate_limit),
                    call_limit,
                    patience,
                    next_id: AtomicU64::new(0),
                };
                let config = RpcClientConfig::with_commitment(CommitmentConfig::confirmed());
                Endpoint {
                    name,
                    rpc: RpcClient::new_sender(sender, config),
                    rate_limit,
                    health: Mutex::default(),
                }
            })
            .collect();
        Endpoints {
            all,
            preferred: Arc::new(AtomicUsize::new(0)),
            highest: Arc::default(),
        }
    }

    /// The endpoint that is asked first.
    pub fn preferred(&self) -> &Endpoint {
        &self.all[self.preferred_index()]
    }

    fn preferred_index(&self) -> usize {
        self.preferred.load(Ordering::Relaxed) % self.all.len()
    }

    /// Called when an endpoint did not answer: if it was the preferred one, another is asked from now on. True when the
    /// preferred one is another now that is worth asking at once.
    pub fn turn_away_from(&self, endpoint: &Endpoint) -> bool {
        if endpoint.wait_left().is_none() {
            endpoint
                .health()
                .fail("a call to it failed since it was looked at".to_owned());
        }
        let current = self.preferred_index();
        if self.all[current].name == endpoint.name {
            let others = (1..self.all.len()).map(|step| (current + step) % self.all.len());
            let next = others.clone().find(|index| self.all[*index].is_usable());
            if let Some(next) = next.or(others.into_iter().next()) {
                self.preferred.store(next, Ordering::Relaxed);
            }
        }
        let preferred = self.preferred();
        preferred.name != endpoint.name && preferred.is_usable()
    }

    /// Every endpoint: the preferred one, then those worth asking, then the rest.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        let first = self.preferred_index();
        let mut order: Vec<usize> = (0..self.all.len())
            .map(|step| (first + step) % self.all.len())
            .collect();
        // Stable, and `false` comes before `true`.
        order[1..].sort_by_key(|index| !self.all[*index].is_usable());
        order.into_iter().map(|index| &self.all[index])
    }

    pub fn by_name(&self, name: &str) -> Option<&Endpoint> {
        self.all.iter().find(|endpoint| endpoint.name == name)
    }

    /// In the configured order.
    pub fn views(&self) -> Vec<EndpointView> {
        let preferred = self.preferred_index();
        let view = |(index, endpoint): (usize, &Endpoint)| {
            let retry_after = endpoint.wait_left();
            let health = endpoint.health();
            EndpointView {
                name: endpoint.name.clone(),
                preferred: index == preferred,
                healthy: retry_after.is_none() && health.is_healthy(),
                height: health.height,
                lag_blocks: health.lag_blocks,
                retry_after,
                failure: health.failure.clone(),
            }
        };
        self.all.iter().enumerate().map(view).collect()
    }

    /// In the configured order, for a look at all of them.
    pub(super) fn configured(&self) -> &[Endpoint] {
        &self.all
    }

    /// Takes in one look at each, in the configured order, and chooses the preferred one: the present one while it is worth
    /// asking, unless one before it has been for long.
    pub(super) fn take_in(&self, looks: Vec<ProbeResult>, now: Instant) {
        let highest = {
            let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
            highest.take_in(&looks, now)
        };
        for (endpoint, look) in self.all.iter().zip(looks) {
            endpoint.health().take_in(look, highest, now);
        }
        let current = self.preferred_index();
        let is_steady = |endpoint: &Endpoint| {
            let since = endpoint.health().healthy_since;
            since.is_some_and(|since| now.duration_since(since) >= RETURNS_AFTER)
        };
        let chosen = (0..self.all.len())
            .filter(|index| self.all[*index].is_usable())
            .find(|index| {
                *index == current || !self.all[current].is_usable() || is_steady(&self.all[*index])
            });
        if let Some(chosen) = chosen.filter(|chosen| *chosen != current) {
            tracing::info!(
                endpoint = self.all[chosen].name,
                instead_of = self.all[current].name,
                "another RPC endpoint is asked first"
            );
            self.preferred.store(chosen, Ordering::Relaxed);
        }
    }

    /// Nobody is worth asking: why, in one sentence.
    pub(super) fn nobody_answers(&self) -> ChainError {
        let reasons: Vec<String> = self
            .views()
            .into_iter()
            .map(|view| match (view.retry_after, view.failure) {
                (Some(wait), _) => {
                    format!("{} wants no calls for {} s", view.name, wait.as_secs() + 1)
                }
                (None, Some(failure)) => failure,
                (None, None) => format!("{} has not been asked", view.name),
            })
            .collect();
        ChainError::Nobody {
            reason: reasons.join("; "),
        }
    }
}

/// Characters of an endpoint's name at most: it is a label of metrics.
const NAME_CHARACTERS_MAX: usize = 32;

/// Each URL with its endpoint's name: what stands behind its `#`, which is never sent, or its place, `rpc-1` and so on, where
/// nothing does, or no name, another one's, or one that a place could have.
fn named(urls: &[String]) -> impl Iterator<Item = (String, &str)> {
    let mut taken = HashSet::new();
    urls.iter().enumerate().map(move |(index, url)| {
        let (address, given) = url.split_once('#').unwrap_or((url, ""));
        let is_name = !given.starts_with("rpc-")
            && (1..=NAME_CHARACTERS_MAX).contains(&given.len())
            && given
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        let name = if is_name && taken.insert(given) {
            given.to_owned()
        } else {
            format!("rpc-{}", index + 1)
        };
        (name, address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_called_by_its_fragment_or_its_place() {
        let urls = [
            "https://one.example/key#main",
            "https://two.example/",
            "https://three.example/#main",
            "https://four.example/#no name",
            "https://five.example/?k=v#spare-2",
            "https://six.example/#rpc-1",
        ]
        .map(str::to_owned);
        let named: Vec<(String, &str)> = named(&urls).collect();
        let named: Vec<(&str, &str)> = named.iter().map(|(name, url)| (&name[..], *url)).collect();
        assert_eq!(
            named,
            [
                ("main", "https://one.example/key"),
                ("rpc-2", "https://two.example/"),
                ("rpc-3", "https://three.example/"),
                ("rpc-4", "https://four.example/"),
                ("spare-2", "https://five.example/?k=v"),
                ("rpc-6", "https://six.example/"),
            ]
        );
    }

    fn endpoints(count: usize) -> Endpoints {
        let urls: Vec<String> = (0..count)
            .map(|index| format!("http://127.0.0.1:{}", index + 1))
            .collect();
        Endpoints::new(&urls, Duration::from_secs(1))
    }

    fn heights(heights: &[u64]) -> Vec<ProbeResult> {
        let look = |height: &u64| ProbeResult::Height {
            height: *height,
            says_behind: None,
        };
        heights.iter().map(look).collect()
    }

    #[test]
    fn the_one_that_is_behind_is_left_and_returned_to_when_it_has_been_well_for_long() {
        let (endpoints, now) = (endpoints(2), Instant::now());
        endpoints.take_in(heights(&[100, 100]), now);
        assert_eq!(endpoints.preferred().name(), "rpc-1");
        endpoints.take_in(heights(&[100, 150]), now);
        assert_eq!(endpoints.preferred().name(), "rpc-1", "a doubt");
        endpoints.take_in(heights(&[100, 150]), now);
        assert_eq!(endpoints.preferred().name(), "rpc-2");
        endpoints.take_in(heights(&[200, 200]), now);
        assert_eq!(endpoints.preferred().name(), "rpc-2", "well, but only just");
        endpoints.take_in(heights(&[300, 300]), now + RETURNS_AFTER);
        assert_eq!(endpoints.preferred().name(), "rpc-1");
    }

    #[test]
    fn a_failed_call_turns_to_the_next_one_that_is_worth_asking() {
        let (endpoints, now) = (endpoints(3), Instant::now());
        let mut looks = heights(&[100, 100, 100]);
        looks[1] = ProbeResult::NoAnswer("time-out".to_owned());
        endpoints.take_in(looks, now);
        let first = &endpoints.configured()[0];
        assert!(endpoints.turn_away_from(first));
        assert_eq!(endpoints.preferred().name(), "rpc-3");
        let order: Vec<&str> = endpoints.iter().map(Endpoint::name).collect();
        assert_eq!(order, ["rpc-3", "rpc-1", "rpc-2"]);
        let third = &endpoints.configured()[2];
        assert!(!endpoints.turn_away_from(third), "nobody is left");
    }

    #[test]
    fn no_call_goes_to_an_endpoint_that_wants_none() {
        let endpoints = endpoints(2);
        let first = &endpoints.configured()[0];
        first
            .rate_limit
            .extend(Duration::from_secs(60), Instant::now());
        assert!(!first.is_usable());
        assert!(endpoints.turn_away_from(first));
        let views = endpoints.views();
        assert!(views[0].retry_after.is_some() && !views[0].healthy);
        assert!(views[1].preferred && views[1].healthy);
    }

    #[test]
    fn what_is_shown_never_holds_a_url() {
        let endpoints = Endpoints::new(
            &["http://user:secret@127.0.0.1:9/key".to_owned()],
            Duration::from_secs(1),
        );
        assert_eq!(endpoints.preferred().rpc().url(), "rpc-1");
        let shown = format!("{:?} {}", endpoints.views(), endpoints.nobody_answers());
        assert!(
            !shown.contains("secret") && !shown.contains("127"),
            "{shown}"
        );
    }
}
