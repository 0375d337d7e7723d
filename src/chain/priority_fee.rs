//! The price that this process offers for a compute unit, kept up with what the chain asks for.
//!
//! Invariant: reading it never waits, and a chain that does not tell its prices stops nobody: the last known price counts, or
//! none. It is never above the cap, also when it is old.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use solana_sdk::pubkey::Pubkey;
use tokio::time::Instant;

use super::{ChainError, Endpoint, Endpoints};
use crate::domain::{ComputeUnitPrice, Percentile, PriorityFeePolicy, market_price};
use crate::telemetry::names;

/// The market is asked so often at most; a price lasts for some slots.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// All endpoints together: whoever looks at the chain waits for it.
const ASK_LIMIT: Duration = Duration::from_secs(4);
const WARN_EVERY: Duration = Duration::from_secs(60);

/// A handle; clones share the price.
#[derive(Clone, Debug)]
pub struct PriorityFees(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    policy: PriorityFeePolicy,
    cap: ComputeUnitPrice,
    market: Mutex<Market>,
}

#[derive(Debug, Default)]
struct Market {
    /// The last one that was told, zero before.
    price: ComputeUnitPrice,
    asked_at: Option<Instant>,
    warned_at: Option<Instant>,
}

impl PriorityFees {
    /// `cap` holds for every policy.
    pub fn new(policy: PriorityFeePolicy, cap: ComputeUnitPrice) -> PriorityFees {
        let fees = PriorityFees(Arc::new(Inner {
            policy,
            cap,
            market: Mutex::default(),
        }));
        fees.show();
        fees
    }

    fn market(&self) -> MutexGuard<'_, Market> {
        // Every change is a single assignment: a panic leaves nothing half done.
        self.0.market.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next transaction offers.
    pub fn price(&self) -> ComputeUnitPrice {
        let price = match self.0.policy {
            PriorityFeePolicy::None => ComputeUnitPrice::ZERO,
            PriorityFeePolicy::Fixed(price) => price,
            PriorityFeePolicy::Percentile(_) => self.market().price,
        };
        price.min(self.0.cap)
    }

    /// Asks the chain, if the policy follows it and the last answer is old. `writable` are the accounts that every
    /// transaction of ours writes to.
    pub async fn refresh(&self, endpoints: &Endpoints, writable: &[Pubkey]) {
        let PriorityFeePolicy::Percentile(percentile) = self.0.policy else {
            return;
        };
        if !self.begins_to_ask() {
            return;
        }
        let asked = tokio::time::timeout(ASK_LIMIT, self.ask_any(endpoints, writable, percentile));
        match asked.await {
            Ok(Ok(price)) => self.market().price = price,
            Ok(Err(error)) => self.warn(&error.to_string()),
            Err(_) => self.warn("no RPC endpoint answered in time"),
        }
        self.show();
    }

    fn begins_to_ask(&self) -> bool {
        let mut market = self.market();
        let is_due = market
            .asked_at
            .is_none_or(|asked_at| asked_at.elapsed() >= ASK_EVERY);
        if is_due {
            market.asked_at = Some(Instant::now());
        }
        is_due
    }

    /// The first endpoint that tells: the market is the chain's, whoever is asked.
    async fn ask_any(
        &self,
        endpoints: &Endpoints,
        writable: &[Pubkey],
        percentile: Percentile,
    ) -> Result<ComputeUnitPrice, ChainError> {
        let mut failure = None;
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.is_usable()) {
            match recent_prices(endpoint, writable).await {
                Ok(paid) => return Ok(market_price(&paid, percentile, self.0.cap)),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| endpoints.nobody_answers()))
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
                "the recent priority fees cannot be read; minting goes on at the last known price"
            );
        }
    }

    fn show(&self) {
        metrics::gauge!(names::PRIORITY_FEE_MICROLAMPORTS)
            .set(self.price().micro_lamports() as f64);
    }
}

/// Slots, and the least price with which a transaction that writes to these accounts got into them.
async fn recent_prices(
    endpoint: &Endpoint,
    writable: &[Pubkey],
) -> Result<Vec<(u64, ComputeUnitPrice)>, ChainError> {
    let paid = endpoint
        .rpc()
        .get_recent_prioritization_fees(writable)
        .await
        .map_err(|error| ChainError::from_client(endpoint.name(), &error))?;
    Ok(paid
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
    async fn a_chain_that_does_not_tell_leaves_the_last_known_price() {
        let nowhere = Endpoints::new(&["http://127.0.0.1:9".to_owned()], ASK_LIMIT);
        let percentile = PriorityFeePolicy::Percentile(Percentile::new(50).unwrap());
        let fees = PriorityFees::new(percentile, CAP);
        fees.refresh(&nowhere, &[]).await;
        assert_eq!(fees.price(), ComputeUnitPrice::ZERO);
        fees.market().price = ComputeUnitPrice::from_micro_lamports(70);
        fees.market().asked_at = None;
        fees.refresh(&nowhere, &[]).await;
        assert_eq!(fees.price().micro_lamports(), 70);
        assert!(!fees.begins_to_ask(), "it was asked just now");
    }

    #[test]
    fn the_cap_holds_for_every_policy() {
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
