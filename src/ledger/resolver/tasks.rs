//! The Resolver's tasks, which run concurrently while this process holds its lock. Four run periodically; re-sends run whenever the
//! status rounds queue some; the upkeep of the breaker runs more often while the breaker is open.

use std::time::Duration;

use futures_util::future::join_all;
use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::breaker_upkeep::{BreakerUpkeep, SCAN_EVERY};
use super::expiry::ExpiryProver;
use super::limits::ResolverLimits;
use super::read_charges::ChargeReader;
use super::resend::{ResendQueue, Resender};
use super::status_changes::MissedRounds;
use super::status_round::StatusRounds;
use crate::chain::Endpoints;
use crate::db::within;
use crate::ledger::accounting::counts;
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};

/// About one slot.
const STATUSES: Timing = Timing::new("resolver rounds", Duration::from_millis(400));
/// Expiry takes a minute, so a proof is not urgent.
const EXPIRY: Timing = Timing::new("expiry proofs", Duration::from_secs(2));
/// While the breaker is closed; an open one is checked more often.
const BREAKER: Timing = Timing::new("ledger breaker", SCAN_EVERY);
/// Changes of the counts wait about this long to be folded: bounds what reading the counts adds up.
const COUNTS: Timing = Timing::new("folding of counts", Duration::from_secs(5));

/// Slow, because it takes a call to the chain for each transaction: it catches up at night.
const CHARGES: Timing = Timing::new("reading of charges", Duration::from_secs(5));

/// For the list of periodic tasks. Each step of a round has a limit of its own.
pub const RESOLVER_TIMINGS: [Timing; 5] = [STATUSES, EXPIRY, BREAKER, COUNTS, CHARGES];

/// Folds the counts of readings by state.
struct CountFold {
    pool: PgPool,
    limit: Duration,
}

impl Periodic for CountFold {
    async fn run(&mut self) -> Result<(), RunError> {
        // What was folded when the limit is reached stays folded.
        Ok(within(self.limit, counts::fold(&self.pool)).await?)
    }
}

/// Ends mint transactions while this process holds the Resolver's lock.
pub struct Resolver {
    pool: PgPool,
    endpoints: Endpoints,
    mint: Pubkey,
    authority: Pubkey,
    limits: ResolverLimits,
}

impl Resolver {
    pub fn new(
        pool: PgPool,
        endpoints: Endpoints,
        mint: Pubkey,
        authority: Pubkey,
        limits: ResolverLimits,
    ) -> Resolver {
        Resolver {
            pool,
            endpoints,
            mint,
            authority,
            limits,
        }
    }

    /// Runs until `stop`, which is also cancelled when the lock is lost.
    pub async fn run(&self, stop: CancellationToken) {
        let (resends, queued) = ResendQueue::new();
        let limit = self.limits.transaction_limit;
        let resender = Resender {
            pool: &self.pool,
            endpoints: &self.endpoints,
            limit,
        };
        let breaker = BreakerUpkeep {
            pool: &self.pool,
            endpoints: &self.endpoints,
            mint: &self.mint,
            authority: &self.authority,
            limit,
        };
        let tasks = self.periodic_tasks(resends);
        tokio::select! {
            () = stop.cancelled() => {}
            _ = join_all(tasks.map(|task| task.run(stop.clone()))) => {}
            () = resender.run(queued) => {}
            () = breaker.run() => {}
        }
    }

    fn periodic_tasks(&self, resends: ResendQueue) -> [PeriodicTask; 4] {
        let statuses = StatusRounds {
            pool: self.pool.clone(),
            endpoints: self.endpoints.clone(),
            mint: self.mint,
            limits: self.limits.clone(),
            missed: MissedRounds::default(),
            resends,
        };
        let (pool, endpoints) = (self.pool.clone(), self.endpoints.clone());
        let expiry = ExpiryProver::new(pool, endpoints, self.limits.clone());
        let counts = CountFold {
            pool: self.pool.clone(),
            limit: self.limits.transaction_limit,
        };
        let charges = ChargeReader::new(
            self.pool.clone(),
            self.endpoints.clone(),
            self.limits.transaction_limit,
        );
        [
            PeriodicTask::of_leader(STATUSES, statuses),
            PeriodicTask::of_leader(EXPIRY, expiry),
            PeriodicTask::of_leader(COUNTS, counts),
            PeriodicTask::of_leader(CHARGES, charges),
        ]
    }
}
