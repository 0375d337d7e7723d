//! The endpoints of a command that reads much: at the rate that the service's background work obeys.

use std::time::Duration;

use crate::chain::{Endpoints, is_local_chain};
use crate::config::SolanaConfig;

/// A chain that does not say what it is within this time counts as a cluster.
const CHAIN_LIMIT: Duration = Duration::from_secs(10);

/// Endpoints for a command that an operator waits for. Without a configured rate it is the one of a cluster, and none on a local
/// chain, which no provider charges for.
pub(super) async fn paced_endpoints(
    solana: &SolanaConfig,
    urls: &[String],
    call_limit: Duration,
) -> Endpoints {
    let rate = match solana.background_rate {
        None if is_local(urls, call_limit).await => None,
        None => Some(solana.cluster_background_rate()),
        configured => configured,
    };
    Endpoints::for_commands(urls, call_limit, rate)
}

async fn is_local(urls: &[String], call_limit: Duration) -> bool {
    let endpoints = Endpoints::new(urls, call_limit.min(CHAIN_LIMIT));
    for endpoint in endpoints.iter() {
        if let Ok(is_local) = is_local_chain(endpoint).await {
            return is_local;
        }
    }
    false
}
