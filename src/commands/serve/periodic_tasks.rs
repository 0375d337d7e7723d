//! The list of everything that this process runs on a period.
//!
//! A loop with one period is a [`PeriodicTask`]: add a line to [`tasks`]. A loop that has two periods, is woken early, or runs
//! in one process of the deployment at a time, is run by its room: add a line to [`loops_of_rooms`], so that the status page
//! lists it too.

use std::time::Duration;

use super::base::Base;
use super::minting::SWEEP_LIMIT;
use crate::chain::charge_refresh;
use crate::mint::ChainHandle;
use crate::periodic::{PeriodicTask, Timing};
use crate::{admin, api, canary, feed, ledger, mint, queue, telemetry};

/// Starts the tasks, and returns the list.
pub(super) fn start_periodic_tasks(base: &Base, chain: &ChainHandle) -> Vec<Timing> {
    let mut timings = loops_of_rooms(base);
    for task in tasks(base, chain) {
        timings.push(task.timing());
        base.spawn_background(|stop| task.run(stop));
    }
    timings
}

fn tasks(base: &Base, chain: &ChainHandle) -> Vec<PeriodicTask> {
    let (pool, health) = (&base.database.pool, &base.health);
    let service = &base.config.service;
    let data_dir = base.config.data_dir.path.clone();
    let mut tasks = vec![
        queue::worker_watch(pool.clone(), health.clone()),
        charge_refresh(chain.endpoints.clone(), chain.accounts.authority),
        telemetry::disk_watch(data_dir, service.disk_free_min_mb, health.clone()),
    ];
    if service.canary_enabled {
        tasks.push(canary::freshness_watch(pool.clone(), health.clone()));
    }
    tasks
}

fn loops_of_rooms(base: &Base) -> Vec<Timing> {
    let limit: Duration = base.config.tokenization.transaction_timeout;
    let role = base.config.service.role;
    let mut loops = vec![
        mint::CHAIN_MONITOR_TIMING,
        admin::LOG_LEVEL_TIMING,
        queue::HAND_BACK_TIMING.with_limit(limit),
        // In the process that has the lock of each.
        feed::sequencer::TIMING.with_limit(limit),
        feed::retention::TIMING.with_limit(limit),
        mint::ANNOUNCE_TIMING.with_limit(limit),
    ];
    loops.extend(ledger::RESOLVER_TIMINGS);
    loops.extend(api::SERVER_TIMINGS);
    if role.runs_jobs() {
        let sweep_every = base.config.tokenization.polling_interval;
        loops.push(Timing::new("sweep", sweep_every).with_limit(SWEEP_LIMIT));
        loops.push(queue::POLL_TIMING);
    }
    if role.serves_api() {
        loops.push(feed::HUB_TIMING.with_limit(limit));
        if base.config.service.canary_enabled {
            loops.push(canary::SENDER_TIMING);
        }
    }
    loops
}
