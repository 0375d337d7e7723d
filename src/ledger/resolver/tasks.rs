//! The loops of the Resolver, side by side while this process holds its lock.

use std::time::Duration;

use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::breaker_upkeep::{BreakerUpkeep, CHECK_OPEN_BREAKER_EVERY, Found, SCAN_EVERY};
use super::expiry::ExpiryProver;
use super::limits::ResolverLimits;
use super::log_on_change::LogOnChange;
use super::open_transactions::OpenTransaction;
use super::resend::{ResendQueue, resend};
use super::status_changes::MissedRounds;
use super::status_round::StatusRounds;
use crate::chain::Endpoints;
use crate::db::within;
use crate::ledger::accounting::counts;
use crate::ledger::error::LedgerError;
use crate::periodic::Timing;

/// About one slot.
const STATUSES: Timing = Timing::new("resolver rounds", Duration::from_millis(400));
/// Expiry takes a minute, so a proof is not urgent.
const EXPIRY: Timing = Timing::new("expiry proofs", Duration::from_secs(2));
/// While the breaker is closed; an open one is checked more often.
const BREAKER: Timing = Timing::new("ledger breaker", SCAN_EVERY);
/// Changes of the counts wait about this long to be folded: bounds what reading the counts adds up.
const COUNTS: Timing = Timing::new("folding of counts", Duration::from_secs(5));

/// For the list of periodic tasks. Each step of a round has a limit of its own.
pub const RESOLVER_TIMINGS: [Timing; 4] = [STATUSES, EXPIRY, BREAKER, COUNTS];

/// A task of the Resolver that runs in rounds of a constant period.
trait Rounds {
    /// After a round that took longer, the next one begins a full period later.
    const TIMING: Timing;

    fn round(&mut self) -> impl Future<Output = Result<(), LedgerError>> + Send;
}

impl Rounds for StatusRounds<'_> {
    const TIMING: Timing = STATUSES;

    async fn round(&mut self) -> Result<(), LedgerError> {
        self.round().await
    }
}

impl Rounds for ExpiryProver<'_> {
    const TIMING: Timing = EXPIRY;

    async fn round(&mut self) -> Result<(), LedgerError> {
        self.round().await
    }
}

/// Folds the counts of readings by state.
struct CountFold<'a> {
    pool: &'a PgPool,
    limit: Duration,
}

impl Rounds for CountFold<'_> {
    const TIMING: Timing = COUNTS;

    async fn round(&mut self) -> Result<(), LedgerError> {
        // What was folded when the limit is reached stays folded.
        Ok(within(self.limit, counts::fold(self.pool)).await?)
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
        let statuses = StatusRounds {
            pool: &self.pool,
            endpoints: &self.endpoints,
            mint: &self.mint,
            limits: &self.limits,
            missed: MissedRounds::default(),
            resends,
        };
        let expiry = ExpiryProver::new(&self.pool, &self.endpoints, &self.limits);
        let counts = CountFold {
            pool: &self.pool,
            limit: self.limits.transaction_limit,
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = repeat(statuses) => {}
            () = self.resend(queued) => {}
            () = repeat(expiry) => {}
            () = self.keep_breaker() => {}
            () = repeat(counts) => {}
        }
    }

    /// Runs whenever the status rounds have queued transactions.
    async fn resend(&self, mut queued: mpsc::Receiver<Vec<OpenTransaction>>) {
        let mut log = LogOnChange::new("resends");
        while let Some(due) = queued.recv().await {
            let limit = self.limits.transaction_limit;
            let resent = resend(&self.pool, &self.endpoints, &due, limit).await;
            log.note(resent.map_err(LedgerError::from));
        }
    }

    /// Runs more often while the breaker is open.
    async fn keep_breaker(&self) {
        let upkeep = BreakerUpkeep {
            pool: &self.pool,
            endpoints: &self.endpoints,
            mint: &self.mint,
            authority: &self.authority,
            limit: self.limits.transaction_limit,
        };
        let mut log = LogOnChange::new(BREAKER.name);
        loop {
            let found = upkeep.round().await;
            let is_closed = matches!(found, Ok(Found::Closed));
            log.note(found.map(drop));
            if is_closed {
                upkeep.wait_for_scan().await;
            } else {
                sleep(CHECK_OPEN_BREAKER_EVERY).await;
            }
        }
    }
}

/// Runs the task indefinitely, and logs when it begins to fail and when it recovers.
async fn repeat<T: Rounds>(mut task: T) {
    let mut ticks = interval(T::TIMING.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut log = LogOnChange::new(T::TIMING.name);
    loop {
        ticks.tick().await;
        log.note(task.round().await);
    }
}
