//! Checks the chain, the fee payer and the ledger breaker, and updates circuit breaker, fee budget and health.

use std::time::Duration;

use rand::Rng;
use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;

use super::chain_handle::ChainHandle;
use super::shared_probes;
use crate::chain::{
    Cause, ChainProbe, ChainSnapshot, Funds, PROBE_EVERY, PROBE_IDLE_EVERY, PROBE_PAUSE_MAX,
    ProbeReason,
};
use crate::db::within;
use crate::ledger::{self, MintingConditions};
use crate::outbox;
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};
use crate::telemetry::{Health, HealthPart, metric_value, names};

/// Opens and closes this process's circuit breaker.
pub struct ChainMonitor {
    pool: PgPool,
    probe: ChainProbe,
    chain: ChainHandle,
    health: Health,
    /// Of one database transaction: a query that hangs must not keep the circuit breaker from being closed again.
    transaction_limit: Duration,
    /// Of the next check.
    reason: ProbeReason,
}

/// A database that does not answer must not hide the state of the chain.
const CONDITIONS_LIMIT: Duration = Duration::from_secs(5);

impl ChainMonitor {
    pub fn new(
        pool: PgPool,
        chain: ChainHandle,
        health: Health,
        transaction_limit: Duration,
    ) -> ChainMonitor {
        chain.circuit_breaker.report_to(health.clone());
        ChainMonitor {
            pool,
            probe: ChainProbe::new(chain.endpoints.clone(), chain.accounts),
            chain,
            health,
            transaction_limit,
            reason: ProbeReason::Due,
        }
    }

    /// Checks on the period of the circuit breaker, which grows while it is open.
    pub fn task(self) -> PeriodicTask {
        PeriodicTask::new(Timing::new("chain monitor", PROBE_EVERY), self)
    }

    /// Checks once and updates circuit breaker, fee budget and health. Before the first check the circuit breaker is closed and the
    /// fee budget empty.
    async fn check(&self, reason: ProbeReason) {
        let begun = self.chain.circuit_breaker.begin_probe();
        let before = self.chain.circuit_breaker.view().open;
        let was_open = before.is_some();
        self.chain.fee_budget.begin_refresh();
        let writable = self.chain.writable_accounts();
        let fees = self
            .chain
            .priority_fees
            .refresh(&self.chain.endpoints, &writable);
        let fee_payer = self.chain.fee_budget.fee_payer();
        let (probed, ()) = tokio::join!(self.snapshot(reason, before.as_ref(), fee_payer), fees);
        if probed.is_ok() {
            self.refresh_format().await;
        }
        let Checked {
            result: found,
            shortfall_covered,
        } = match probed {
            Ok(snapshot) => self.check_ledger(snapshot, before).await,
            Err(cause) => Checked::failed(cause),
        };
        self.report_fee_payer();
        let resumes = found.is_ok() && (was_open || shortfall_covered);
        self.chain.circuit_breaker.record_probe(begun, found);
        if self.probe.is_in_doubt() {
            self.chain.circuit_breaker.check_now();
        }
        if resumes {
            self.wake_deferred_jobs().await;
        }
    }

    /// Probes whether the preferred endpoint takes v1, if that is due: so no batch has to wait for the answer.
    async fn refresh_format(&self) {
        let endpoint = self.chain.endpoints.preferred();
        let payer = self.chain.payer();
        let formats = self.chain.transaction_formats;
        formats.refresh(endpoint, &payer).await;
    }

    /// The accounts: as another process found them moments ago, else by a probe of all endpoints, which is then shared. A process
    /// that has met a fault probes by itself. `before`: why the circuit breaker was open.
    async fn snapshot(
        &self,
        reason: ProbeReason,
        before: Option<&Cause>,
        fee_payer: Option<Pubkey>,
    ) -> Result<ChainSnapshot, Cause> {
        let key = self.chain.endpoints.key();
        let limit = self.transaction_limit.min(CONDITIONS_LIMIT);
        let period = match before {
            // Only the ledger can show that it is over.
            Some(Cause::LedgerBreaker(_)) => Some(PROBE_IDLE_EVERY),
            Some(_) => None,
            None => Some(self.chain.circuit_breaker.activity().probe_every()),
        };
        if let (ProbeReason::Due, Some(period)) = (reason, period) {
            let shared = within(limit, shared_probes::recent(&self.pool, key, period)).await;
            let adopted = shared
                .ok()
                .flatten()
                .and_then(|(shared, age)| self.probe.adopt(&shared, age, fee_payer));
            if let Some(snapshot) = adopted {
                return Ok(snapshot);
            }
        }
        let probed = self.probe.run(fee_payer).await;
        let shared = probed
            .as_ref()
            .ok()
            .and_then(|probed| probed.shared.as_ref());
        let stored = within(limit, shared_probes::store(&self.pool, key, shared)).await;
        if let Err(error) = stored {
            tracing::debug!(%error, "the probe's result could not be shared");
        }
        probed.map(|probed| probed.snapshot)
    }

    /// The chain answers: checks the ledger, and the fee payer's balance if this process knows the fee payer. `before`: why the
    /// circuit breaker was open.
    async fn check_ledger(&self, snapshot: ChainSnapshot, before: Option<Cause>) -> Checked {
        self.warn_of_long_calls();
        if let Some(balance) = snapshot.balance {
            metrics::gauge!(names::FEE_PAYER_BALANCE_LAMPORTS).set(metric_value(balance));
        }
        let conditions =
            ledger::minting_conditions(&self.pool, snapshot.slot, self.chain.scan_request);
        let conditions =
            match within(self.transaction_limit.min(CONDITIONS_LIMIT), conditions).await {
                Ok(conditions) => conditions,
                // Nothing is wrong with the chain: while the database is unavailable minting fails anyway, and uses no attempt.
                // The last conditions of the ledger stay valid.
                Err(error) => {
                    tracing::debug!(%error, "the ledger's conditions could not be read");
                    return Checked {
                        result: before.map_or(Ok(()), if_of_ledger),
                        shortfall_covered: false,
                    };
                }
            };
        let probed = if self.payer_changed(&conditions) {
            None
        } else {
            snapshot.balance
        };
        let charges = snapshot.charges;
        let funds = probed.map(|balance| Funds {
            balance,
            minimum: charges.fee_payer_minimum,
            in_flight: conditions.in_flight_lamports,
            least_fee: self.chain.least_fee_lamports(charges),
        });
        let shortfall_covered = funds.is_some_and(|funds| self.chain.fee_budget.refresh(funds));
        match conditions.stale_history {
            Some(reason) => self.health.degraded(HealthPart::History, reason),
            None => self.health.ok(HealthPart::History),
        }
        if let Some(reason) = conditions.signing_refused {
            return Checked::failed(Cause::LedgerBreaker(reason));
        }
        // Without the reservations of this process: they change with each batch.
        if let Some(funds) = funds.filter(|funds| funds.is_empty()) {
            return Checked::failed(Cause::FeePayerEmpty(funds));
        }
        Checked {
            result: Ok(()),
            shortfall_covered,
        }
    }

    /// Logs it once if a call may outlive the blockhash that was fetched before it.
    fn warn_of_long_calls(&self) {
        let parameters = self.chain.endpoints.parameters();
        if parameters.first_outlives_blockhash(self.transaction_limit) {
            tracing::warn!(
                transaction_timeout_secs = self.transaction_limit.as_secs(),
                blockhash_life_secs = parameters.blockhash_life().unwrap_or_default().as_secs(),
                "TOKENIZATION_TRANSACTION_TIMEOUT_SECS is longer than a blockhash lives on this cluster: sends stop waiting when \
                 it dies, and a batch that was slow takes another one before it signs"
            );
        }
    }

    /// Whether the ledger names another fee payer than the one that was probed, to a process that does not pay itself. Then the
    /// next check, which is due now, probes that one.
    fn payer_changed(&self, conditions: &MintingConditions) -> bool {
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

    fn report_fee_payer(&self) {
        match self.chain.fee_budget.view().and_then(|view| view.shortfall) {
            Some(shortfall) => self.health.degraded(
                HealthPart::FeePayer,
                format!(
                    "readings for new wallets wait: the next one costs {shortfall} lamports, most of it rent; top up the fee payer"
                ),
            ),
            None => self.health.ok(HealthPart::FeePayer),
        }
    }

    /// Makes the jobs due that were deferred meanwhile, rather than after their pauses.
    async fn wake_deferred_jobs(&self) {
        match within(self.transaction_limit, outbox::wake_deferred(&self.pool)).await {
            Ok(0) => {}
            Ok(jobs) => tracing::info!(jobs, "minting resumes: deferred jobs are due now"),
            Err(error) => {
                tracing::warn!(%error, "deferred jobs could not be made due; each becomes due by itself within a minute");
            }
        }
    }
}

impl Periodic for ChainMonitor {
    /// Each step of a probe has its own limit.
    async fn run(&mut self) -> Result<(), RunError> {
        let reason = std::mem::replace(&mut self.reason, ProbeReason::Due);
        self.check(reason).await;
        Ok(())
    }

    fn pause(&self) -> Option<Duration> {
        Some(PROBE_PAUSE_MAX)
    }

    /// The circuit breaker decides when the next probe is due.
    async fn woken(&mut self) {
        let jitter = rand::rng().random();
        self.reason = self.chain.circuit_breaker.until_next_probe(jitter).await;
    }
}

/// The result of one check.
struct Checked {
    result: Result<(), Cause>,
    /// Readings that waited for funds can be paid now.
    shortfall_covered: bool,
}

impl Checked {
    fn failed(cause: Cause) -> Checked {
        Checked {
            result: Err(cause),
            shortfall_covered: false,
        }
    }
}

/// The cause, if only the ledger can show that it is over.
fn if_of_ledger(cause: Cause) -> Result<(), Cause> {
    match cause {
        Cause::LedgerBreaker(_) | Cause::FeePayerEmpty(_) => Err(cause),
        Cause::Unreachable(_)
        | Cause::Lagging(_)
        | Cause::RateLimited
        | Cause::Failing(_)
        | Cause::MintUnknown(_) => Ok(()),
    }
}
