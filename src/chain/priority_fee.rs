//! The price that this process offers for a compute unit, adjusted to what others paid recently.
//!
//! Invariant: reading the price never waits, and minting continues while no endpoint reports prices: the last known price
//! counts, or zero. The price never exceeds the cap, no matter how old it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use solana_sdk::pubkey::Pubkey;
use tokio::time::Instant;

use super::endpoints::{Endpoint, Endpoints};
use super::error::ChainError;
use crate::domain::{ComputeUnitPrice, Percentile, PriorityFeePolicy, market_price};
use crate::telemetry::{metric_value, names};

/// Between two queries at least: a price lasts for some slots.
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// Of a query, all endpoints together: the probe of the chain waits for it.
const REFRESH_LIMIT: Duration = Duration::from_secs(4);
const WARN_EVERY: Duration = Duration::from_secs(60);

/// A handle; clones share the price.
#[derive(Clone, Debug)]
pub struct PriorityFees(Arc<PriceInner>);

#[derive(Debug)]
struct PriceInner {
    policy: PriorityFeePolicy,
    cap: ComputeUnitPrice,
    market: Mutex<Market>,
}

#[derive(Debug, Default)]
struct Market {
    /// The last one that an endpoint reported; zero before.
    price: ComputeUnitPrice,
    queried_at: Option<Instant>,
    warned_at: Option<Instant>,
}

impl PriorityFees {
    /// `cap` applies to every policy.
    pub fn new(policy: PriorityFeePolicy, cap: ComputeUnitPrice) -> PriorityFees {
        let fees = PriorityFees(Arc::new(PriceInner {
            policy,
            cap,
            market: Mutex::default(),
        }));
        fees.show();
        fees
    }

    fn market(&self) -> MutexGuard<'_, Market> {
        // Every change is a single assignment: a panic leaves no half-made change.
        self.0.market.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The price that the next transaction offers.
    pub fn price(&self) -> ComputeUnitPrice {
        let price = match self.0.policy {
            PriorityFeePolicy::None => ComputeUnitPrice::ZERO,
            PriorityFeePolicy::Fixed(price) => price,
            PriorityFeePolicy::Percentile(_) => self.market().price,
        };
        price.min(self.0.cap)
    }

    /// Queries the chain if the policy follows it and the last query is old. `writable` are the accounts that every transaction
    /// of ours writes to.
    pub async fn refresh(&self, endpoints: &Endpoints, writable: &[Pubkey]) {
        let PriorityFeePolicy::Percentile(percentile) = self.0.policy else {
            return;
        };
        if !self.begins_query() {
            return;
        }
        let queried = tokio::time::timeout(
            REFRESH_LIMIT,
            self.query_any(endpoints, writable, percentile),
        );
        match queried.await {
            Ok(Ok(Some(price))) => self.market().price = price,
            // No slot of the last minute holds a transaction: the last known price counts.
            Ok(Ok(None)) => {}
            Ok(Err(error)) => self.warn(&error.to_string()),
            Err(_) => self.warn("no RPC endpoint answered in time"),
        }
        self.show();
    }

    fn begins_query(&self) -> bool {
        let mut market = self.market();
        let is_due = market
            .queried_at
            .is_none_or(|queried_at| queried_at.elapsed() >= REFRESH_EVERY);
        if is_due {
            market.queried_at = Some(Instant::now());
        }
        is_due
    }

    /// The first endpoint that answers: every endpoint reports the market of the same chain. `None`: it reports no prices.
    async fn query_any(
        &self,
        endpoints: &Endpoints,
        writable: &[Pubkey],
        percentile: Percentile,
    ) -> Result<Option<ComputeUnitPrice>, ChainError> {
        let mut failure = None;
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.is_usable()) {
            match recent_prices(endpoint, writable).await {
                Ok(paid) => return Ok(market_price(&paid, percentile, self.0.cap)),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| endpoints.none_usable()))
    }

    fn warn(&self, reason: &str) {
        let mut market = self.market();
        let is_due = market
            .warned_at
            .is_none_or(|warned_at| warned_at.elapsed() >= WARN_EVERY);
        if is_due {
            market.warned_at = Some(Instant::now());
            tracing::warn!(
                reason,
                micro_lamports = market.price.micro_lamports(),
                "recent priority fees could not be read; minting continues at the last known price"
            );
        }
    }

    fn show(&self) {
        metrics::gauge!(names::PRIORITY_FEE_MICROLAMPORTS)
            .set(metric_value(self.price().micro_lamports()));
    }
}

/// For each recent slot, the lowest price of a transaction in it that writes to these accounts.
async fn recent_prices(
    endpoint: &Endpoint,
    writable: &[Pubkey],
) -> Result<Vec<(u64, ComputeUnitPrice)>, ChainError> {
    let paid = endpoint.hot().get_recent_prioritization_fees(writable);
    Ok(endpoint
        .answer(paid.await)?
        .into_iter()
        .map(|paid| {
            let price = ComputeUnitPrice::from_micro_lamports(paid.prioritization_fee);
            (paid.slot, price)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: ComputeUnitPrice = ComputeUnitPrice::from_micro_lamports(100);

    #[tokio::test]
    async fn an_unreachable_chain_leaves_the_last_known_price() {
        let nowhere = Endpoints::new(&["http://127.0.0.1:9".to_owned()], REFRESH_LIMIT);
        let percentile = PriorityFeePolicy::Percentile(Percentile::new(50).unwrap());
        let fees = PriorityFees::new(percentile, CAP);
        fees.refresh(&nowhere, &[]).await;
        assert_eq!(fees.price(), ComputeUnitPrice::ZERO);
        fees.market().price = ComputeUnitPrice::from_micro_lamports(70);
        fees.market().queried_at = None;
        fees.refresh(&nowhere, &[]).await;
        assert_eq!(fees.price().micro_lamports(), 70);
        assert!(!fees.begins_query(), "it was queried just now");
    }

    #[tokio::test]
    async fn a_market_without_prices_leaves_the_last_known_price() {
        let answers = [r#"[{"slot":7,"prioritizationFee":70}]"#, "[]"];
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        let answer = axum::routing::post(move || async move {
            let result = answers.lock().unwrap().next().unwrap();
            format!(r#"{{"jsonrpc":"2.0","id":0,"result":{result}}}"#)
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(answer);
        let node = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let endpoints = Endpoints::new(&[url], REFRESH_LIMIT);
        let percentile = PriorityFeePolicy::Percentile(Percentile::new(50).unwrap());
        let fees = PriorityFees::new(percentile, CAP);
        for _ in 0..2 {
            fees.market().queried_at = None;
            fees.refresh(&endpoints, &[]).await;
            assert_eq!(fees.price().micro_lamports(), 70);
        }
        node.abort();
    }

    #[test]
    fn the_cap_applies_to_every_policy() {
        for (policy, expected) in [
            (PriorityFeePolicy::None, 0),
            (
                PriorityFeePolicy::Fixed(ComputeUnitPrice::from_micro_lamports(7)),
                7,
            ),
            (PriorityFeePolicy::Fixed(ComputeUnitPrice::MAX), 100),
        ] {
            assert_eq!(
                PriorityFees::new(policy, CAP).price().micro_lamports(),
                expected
            );
        }
    }
}
