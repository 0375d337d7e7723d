//! Looks at the chain, the fee payer and the ledger breaker, and tells circuit breaker and fee budget what it saw.

use std::time::Duration;

use rand::Rng;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::chain_handle::ChainHandle;
use crate::chain::{Cause, ChainProbe, ChainSnapshot, Funds, TOKEN_ACCOUNT_RENT_LAMPORTS};
use crate::db::within;
use crate::ledger::{self, MintingConditions};
use crate::outbox;
use crate::telemetry::{Health, names};

/// The loop that opens and closes this process' circuit breaker.
pub struct ChainMonitor {
    pool: PgPool,
    probe: ChainProbe,
    chain: ChainHandle,
    health: Health,
    /// Of one transaction of the database: what is behind it must not keep the circuit breaker from being closed again.
    transaction_limit: Duration,
}

/// A silent database is not to keep what the chain says from being seen.
const CONDITIONS_LIMIT: Duration = Duration::from_secs(5);

impl ChainMonitor {
    pub fn new(
        pool: PgPool,
        chain: ChainHandle,
        health: Health,
        transaction_limit: Duration,
    ) -> ChainMonitor {
        ChainMonitor {
            pool,
            probe: ChainProbe::new(chain.endpoints.clone(), chain.accounts),
            chain,
            health,
            transaction_limit,
        }
    }

    /// Looks again and again until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let jitter = rand::rng().random();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.chain.circuit_breaker.until_next_probe(jitter) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.probe() => {}
            }
        }
    }

    /// One look. Before it the circuit breaker is closed and the fee budget empty.
    pub async fn probe(&self) {
        let before = self.chain.circuit_breaker.view().open;
        let was_open = before.is_some();
        self.chain.fee_budget.begin_refresh();
        let writable = self.chain.writable_accounts();
        let fees = self
            .chain
            .priority_fees
            .refresh(&self.chain.endpoints, &writable);
        let fee_payer = self.chain.fee_budget.fee_payer();
        let (looked, ()) = tokio::join!(self.probe.run(fee_payer), fees);
        let (found, relieved) = match looked {
            Ok(snapshot) => self.take_in(snapshot, before).await,
            Err(cause) => (Err(cause), false),
        };
        self.show(&found);
        let goes_on = found.is_ok() && (was_open || relieved);
        self.chain.circuit_breaker.record_probe(found);
        if self.probe.is_in_doubt() {
            self.chain.circuit_breaker.check_now();
        }
        if goes_on {
            self.wake_deferred_jobs().await;
        }
    }

    /// The chain answers: what of the ledger, and of the fee payer's balance, if there is one whom this process knows? True
    /// when somebody who waited for money can be paid. `before`: why the circuit breaker was open.
    async fn take_in(
        &self,
        snapshot: ChainSnapshot,
        before: Option<Cause>,
    ) -> (Result<(), Cause>, bool) {
        if let Some(fee_payer) = snapshot.fee_payer {
            metrics::gauge!(names::FEE_PAYER_BALANCE_LAMPORTS).set(fee_payer.balance as f64);
        }
        let conditions = ledger::minting_conditions(&self.pool, snapshot.slot);
        let conditions =
            match within(self.transaction_limit.min(CONDITIONS_LIMIT), conditions).await {
                Ok(conditions) => conditions,
                // No word about the chain: minting fails by itself while the database is away, and uses no attempt. What the
                // ledger said last goes on counting.
                Err(error) => {
                    tracing::debug!(%error, "the ledger's conditions could not be read");
                    return (before.map_or(Ok(()), of_the_ledger), false);
                }
            };
        let seen = if self.somebody_else_pays(&conditions) {
            None
        } else {
            snapshot.fee_payer
        };
        let funds = seen.map(|fee_payer| Funds {
            balance: fee_payer.balance,
            minimum: fee_payer.minimum,
            in_flight: conditions.in_flight_lamports,
            least_fee: self.chain.least_fee_lamports(),
        });
        let relieved = funds.is_some_and(|funds| self.chain.fee_budget.refresh(funds));
        if let Some(reason) = conditions.signing_refused {
            return (Err(Cause::LedgerBreaker(reason.to_string())), false);
        }
        // Without what this process only promises: that comes and goes with each batch.
        if let Some(funds) = funds.filter(|funds| funds.is_empty()) {
            return (Err(Cause::FeePayerEmpty(funds)), false);
        }
        (Ok(()), relieved)
    }

    /// Whether another fee payer than the one that was looked at is named to a process that has none of its own. Then the next
    /// look, which is due now, is at that one.
    fn somebody_else_pays(&self, conditions: &MintingConditions) -> bool {
        if !self.chain.follows_ledger {
            return false;
        }
        let Some(named) = conditions.fee_payer else {
            return false;
        };
        let is_another = self.chain.fee_budget.set_payer(named);
        if is_another {
            metrics::gauge!(names::FEE_PAYER_BALANCE_LAMPORTS).set(f64::NAN);
            self.chain.circuit_breaker.check_now();
        }
        is_another
    }

    fn show(&self, found: &Result<(), Cause>) {
        match found {
            Ok(()) => {
                metrics::gauge!(names::CHAIN_BREAKER_OPEN).set(0.0);
                self.health.ok("chain");
                self.health.ok("breaker");
            }
            Err(cause @ Cause::LedgerBreaker(_)) => {
                metrics::gauge!(names::CHAIN_BREAKER_OPEN).set(0.0);
                self.health.ok("chain");
                self.health.degraded("breaker", cause.to_string());
            }
            Err(cause) => {
                metrics::gauge!(names::CHAIN_BREAKER_OPEN).set(1.0);
                self.health.degraded("chain", cause.to_string());
                // The balance is judged once the ledger lets sign.
                if matches!(cause, Cause::FeePayerEmpty(_)) {
                    self.health.ok("breaker");
                }
            }
        }
        match self.chain.fee_budget.view().and_then(|view| view.shortfall) {
            Some(_) => self.health.degraded(
                "fee_payer",
                format!(
                    "readings for new wallets wait: each needs {TOKEN_ACCOUNT_RENT_LAMPORTS} lamports of rent; top up the fee payer"
                ),
            ),
            None => self.health.ok("fee_payer"),
        }
    }

    /// Jobs that were put off meanwhile need not sleep out their pause.
    async fn wake_deferred_jobs(&self) {
        match within(self.transaction_limit, outbox::wake_deferred(&self.pool)).await {
            Ok(0) => {}
            Ok(jobs) => tracing::info!(jobs, "minting goes on: deferred jobs are due now"),
            Err(error) => {
                tracing::warn!(%error, "deferred jobs could not be made due; each becomes due by itself within a minute");
            }
        }
    }
}

/// The cause, if only the ledger can show that it is over.
fn of_the_ledger(cause: Cause) -> Result<(), Cause> {
    match cause {
        Cause::LedgerBreaker(_) | Cause::FeePayerEmpty(_) => Err(cause),
        _ => Ok(()),
    }
}
