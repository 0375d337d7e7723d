//! The list of everything that this process runs on a period.
//!
//! To add a task, add a line to the function that names where it runs. The status page shows what runs here, with its period, its
//! limit and its runs. Two more are run by apalis, and listed by [`Workers`]: the clock of the sweep and
//! the polls of the workers. What waits for input rather than for time is not on the list; [`crate::periodic`] names it.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::base::Base;
use crate::api::CallerAuth;
use crate::canary::{self, CanarySender};
use crate::chain::charge_refresh;
use crate::feed::{self, Hub, retention::Retention};
use crate::ledger::{Resolver, ResolverLimits, RetrySchedule};
use crate::mint::{self, ChainHandle, ChainMonitor};
use crate::periodic::PeriodicTask;
use crate::queue::{self, ProcessRegistration, Workers};
use crate::{admin, telemetry};

/// In every process.
pub(super) fn of_every_process(
    base: &Base,
    chain: &ChainHandle,
    process: &ProcessRegistration,
) -> Vec<PeriodicTask> {
    let (pool, health) = (&base.database.pool, &base.health);
    let service = &base.config.service;
    let data_dir = base.config.data_dir.path.clone();
    let limit = base.config.tokenization.transaction_timeout;
    let mut tasks = vec![
        admin::log_level_task(pool.clone(), &base.wake),
        process.hand_back_task(pool.clone(), limit),
        queue::worker_watch(pool.clone(), health.clone()),
        charge_refresh(chain.endpoints.clone(), chain.accounts.authority),
        telemetry::disk_watch(data_dir, service.disk_free_min_mb, health.clone()),
        base.metrics.sample_task(),
        mint::capability_watch(chain.endpoints.clone(), chain.accounts.authority),
    ];
    if service.canary_enabled {
        tasks.push(canary::freshness_watch(pool.clone(), health.clone()));
    }
    tasks
}

/// In every process. The first run reads what the fee payer can spend, so the first job waits for it.
pub(super) fn chain_monitor(base: &Base, chain: &ChainHandle) -> PeriodicTask {
    let limit = base.config.tokenization.transaction_timeout;
    let (pool, health) = (base.database.pool.clone(), base.health.clone());
    ChainMonitor::new(pool, chain.clone(), health, limit).task()
}

/// In a process that serves the API and checks tokens with an identity provider's keys. The first run fetches them, so the first
/// request waits for it.
pub(super) fn key_set(base: &Base, auth: &CallerAuth) -> Option<PeriodicTask> {
    auth.key_set_task(base.health.clone())
}

/// In a process that serves the API.
pub(super) fn of_api(base: &Base, auth: &CallerAuth, hub: &Hub) -> Vec<PeriodicTask> {
    vec![hub.task(&base.wake), auth.cleanup_task()]
}

/// In a process that runs jobs, until a drain begins.
pub(super) fn of_workers(workers: &Workers) -> Vec<PeriodicTask> {
    vec![workers.heartbeat_task()]
}

/// In the process that numbers events.
pub(super) fn of_sequencer(base: &Base) -> impl Fn() -> Vec<PeriodicTask> + Send + Sync + 'static {
    let (pool, wake) = (base.database.pool.clone(), base.wake.clone());
    let retention = Retention::new(base.config.feed.retention);
    let limit = base.config.tokenization.transaction_timeout;
    move || {
        vec![
            feed::sequencer::task(pool.clone(), &wake, retention, limit),
            feed::retention::task(pool.clone(), retention, limit),
        ]
    }
}

/// In the process that resolves mint transactions: it also announces outages of the chain for the deployment. With them come the
/// re-sends, which the status rounds queue.
pub(super) fn of_resolver(
    base: &Base,
    chain: &ChainHandle,
) -> impl Fn() -> (Vec<PeriodicTask>, BoxFuture<'static, ()>) + Send + Sync + 'static {
    let config = &base.config;
    let limit = config.tokenization.transaction_timeout;
    let resolver = Resolver::new(
        base.database.pool.clone(),
        chain.endpoints.clone(),
        chain.accounts.genesis_hash,
        chain.accounts.mint,
        chain.accounts.authority,
        ResolverLimits {
            quarantine_after: config.ledger.quarantine_after,
            transaction_limit: limit,
            schedule: RetrySchedule::new(config.tokenization.clone()),
        },
    );
    let (pool, circuit_breaker) = (base.database.pool.clone(), chain.circuit_breaker.clone());
    move || {
        let (mut tasks, resends) = resolver.tasks();
        let circuit_breaker = circuit_breaker.clone();
        tasks.push(mint::outage_announcements(
            pool.clone(),
            circuit_breaker,
            limit,
        ));
        (tasks, resends)
    }
}

/// In the process that sends the canary's readings.
pub(super) fn of_canary(
    sender: CanarySender,
) -> impl Fn() -> Vec<PeriodicTask> + Send + Sync + 'static {
    let sender = Arc::new(sender);
    move || vec![Arc::clone(&sender).task()]
}
