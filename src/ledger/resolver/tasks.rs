//! The resolver's tasks, which run concurrently while this process holds its lock. Seven run periodically; re-sends run whenever
//! the status rounds queue some.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use solana_sdk::hash::Hash;
use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;

use super::breaker_upkeep::{BreakerUpkeep, Left, SCAN_EVERY};
use super::expiry::ExpiryProver;
use super::late_round::LateRounds;
use super::limits::ResolverLimits;
use super::quarantine::Quarantine;
use super::read_charges::ChargeReader;
use super::resend::{ResendQueue, Resender};
use super::status_changes::MissedRounds;
use super::status_round::StatusRounds;
use super::status_writer::StatusWriter;
use crate::chain::Endpoints;
use crate::db::within;
use crate::ledger::accounting::counts;
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};

/// Bounds how long after its confirmation a mint is reported, at any length of a slot.
const STATUSES: Timing = Timing::new("resolver rounds", Duration::from_millis(400));
/// What is late has waited for a minute already.
const LATE: Timing = Timing::new("late transactions", Duration::from_secs(2));
/// A blockhash lives for half a minute or more, so a proof is not urgent.
const EXPIRY: Timing = Timing::new("expiry proofs", Duration::from_secs(2));
/// The limit that it enforces is an hour by default.
const QUARANTINE: Timing = Timing::new("quarantine", Duration::from_secs(2));
/// While the breaker is closed; an open one is checked more often.
const BREAKER: Timing = Timing::new("ledger breaker", SCAN_EVERY);
/// Changes of the counts wait about this long to be folded: bounds what reading the counts adds up.
const COUNTS: Timing = Timing::new("folding of counts", Duration::from_secs(5));
/// Slow, because it takes a call to the chain for each transaction: it catches up when load is low.
const CHARGES: Timing = Timing::new("reading of charges", Duration::from_secs(5));

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

/// Ends mint transactions while this process holds the resolver's lock.
pub struct Resolver {
    pool: PgPool,
    endpoints: Endpoints,
    genesis_hash: Hash,
    mint: Pubkey,
    authority: Pubkey,
    limits: ResolverLimits,
}

impl Resolver {
    pub fn new(
        pool: PgPool,
        endpoints: Endpoints,
        genesis_hash: Hash,
        mint: Pubkey,
        authority: Pubkey,
        limits: ResolverLimits,
    ) -> Resolver {
        Resolver {
            pool,
            endpoints,
            genesis_hash,
            mint,
            authority,
            limits,
        }
    }

    /// What runs on a period, and the re-sends, which run as long as the first.
    pub fn tasks(&self) -> (Vec<PeriodicTask>, BoxFuture<'static, ()>) {
        let (resends, queued) = ResendQueue::new();
        let (pool, endpoints) = (self.pool.clone(), self.endpoints.clone());
        let limit = self.limits.transaction_limit;
        let writer = StatusWriter {
            pool: pool.clone(),
            endpoints: endpoints.clone(),
            genesis_hash: self.genesis_hash,
            mint: self.mint,
            limits: self.limits.clone(),
        };
        let late = LateRounds {
            writer: writer.clone(),
            missed: MissedRounds::default(),
            resends: resends.beside(),
            deleted_at: None,
        };
        let statuses = StatusRounds { writer, resends };
        let expiry = ExpiryProver::new(pool.clone(), endpoints.clone(), self.limits.clone());
        let quarantine = Quarantine {
            pool: pool.clone(),
            endpoints: endpoints.clone(),
            limits: self.limits.clone(),
        };
        let breaker = BreakerUpkeep {
            pool: pool.clone(),
            endpoints: endpoints.clone(),
            mint: self.mint,
            authority: self.authority,
            limit,
            left: Left::Open,
        };
        let counts = CountFold {
            pool: pool.clone(),
            limit,
        };
        let charges = ChargeReader::new(pool.clone(), endpoints.clone(), limit);
        let resender = Resender {
            pool,
            endpoints,
            limit,
        };
        let periodic = vec![
            PeriodicTask::of_leader(STATUSES, statuses),
            PeriodicTask::of_leader(LATE, late),
            PeriodicTask::of_leader(EXPIRY, expiry),
            PeriodicTask::of_leader(BREAKER, breaker),
            PeriodicTask::of_leader(QUARANTINE, quarantine),
            PeriodicTask::of_leader(COUNTS, counts),
            PeriodicTask::of_leader(CHARGES, charges),
        ];
        (periodic, resender.run(queued).boxed())
    }
}
