//! RPC endpoints: several may be configured, and each is known by a name that is safe to show.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use solana_client::nonblocking::rpc_client::RpcClient;
use solana_commitment_config::CommitmentConfig;

/// One RPC endpoint. Its URL may hold an access key: only the name is ever shown.
pub struct Endpoint {
    name: String,
    rpc: RpcClient,
}

impl Endpoint {
    /// `rpc-1`, `rpc-2`, … in the order of `SOLANA_RPC_URL`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client; default commitment `confirmed`, every call limited by the configured time.
    pub fn rpc(&self) -> &RpcClient {
        &self.rpc
    }
}

/// All configured endpoints, and the one that is asked first.
#[derive(Clone)]
pub struct Endpoints {
    all: Arc<[Endpoint]>,
    preferred: Arc<AtomicUsize>,
}

impl Endpoints {
    /// `call_limit` ends a wait for one answer, never a transaction.
    pub fn new(urls: &[String], call_limit: Duration) -> Endpoints {
        let all = urls
            .iter()
            .enumerate()
            .map(|(index, url)| Endpoint {
                name: format!("rpc-{}", index + 1),
                rpc: RpcClient::new_with_timeout_and_commitment(
                    url.clone(),
                    call_limit,
                    CommitmentConfig::confirmed(),
                ),
            })
            .collect();
        Endpoints {
            all,
            preferred: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// The endpoint that answered last.
    pub fn preferred(&self) -> &Endpoint {
        &self.all[self.preferred.load(Ordering::Relaxed) % self.all.len()]
    }

    /// Called when the preferred endpoint did not answer: the next one is asked from now on.
    pub fn turn_away_from(&self, endpoint: &Endpoint) {
        let current = self.preferred.load(Ordering::Relaxed);
        if self.all.len() > 1 && self.all[current % self.all.len()].name == endpoint.name {
            self.preferred
                .store((current + 1) % self.all.len(), Ordering::Relaxed);
        }
    }

    /// Every endpoint, the preferred one first.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        let first = self.preferred.load(Ordering::Relaxed);
        (0..self.all.len()).map(move |step| &self.all[(first + step) % self.all.len()])
    }

    pub fn by_name(&self, name: &str) -> Option<&Endpoint> {
        self.all.iter().find(|endpoint| endpoint.name == name)
    }
}
