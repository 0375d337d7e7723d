//! Tasks that every process offers to run and one process of the deployment runs at a time.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::base::Base;
use super::solana::Solana;
use super::start_error::StartError;
use crate::canary::CanarySender;
use crate::db::{self, LeaderLock};
use crate::feed::{self, retention::Retention};
use crate::ledger::{Resolver, ResolverLimits, RetrySchedule};
use crate::mint::{self, ChainHandle};
use crate::readings::Intake;

/// Numbers events. The process that numbers them also deletes old ones.
pub(super) fn start_sequencer(base: &Base) {
    let (pool, wake) = (base.database.pool.clone(), base.wake.clone());
    let retention = Retention::new(base.config.feed.retention);
    let limit = base.config.tokenization.transaction_timeout;
    let options = base.database.options.clone();
    base.spawn_background(|stop| {
        db::run_as_leader(options, LeaderLock::Sequencer, stop, move |held| {
            let numbering =
                feed::sequencer::run(pool.clone(), wake.clone(), retention, limit, held.clone());
            let deleting = feed::retention::run(pool.clone(), retention, limit, held);
            async move {
                tokio::join!(numbering, deleting);
            }
        })
    });
}

/// Resolves mint transactions. The process that resolves them also announces outages of the chain for the deployment.
pub(super) fn resolver(base: &Base, chain: &ChainHandle) -> BoxFuture<'static, ()> {
    let config = &base.config;
    let limit = config.tokenization.transaction_timeout;
    let resolver = Arc::new(Resolver::new(
        base.database.pool.clone(),
        chain.endpoints.clone(),
        chain.accounts.mint,
        chain.accounts.authority,
        ResolverLimits {
            quarantine_after: config.ledger.quarantine_after,
            transaction_limit: limit,
            schedule: RetrySchedule::new(config.tokenization.clone()),
        },
    ));
    let (pool, circuit_breaker) = (base.database.pool.clone(), chain.circuit_breaker.clone());
    let resolving = db::run_as_leader(
        base.database.options.clone(),
        LeaderLock::Resolver,
        base.tasks.stops.last.clone(),
        move |held| {
            let resolver = Arc::clone(&resolver);
            let announcing =
                mint::announce(pool.clone(), circuit_breaker.clone(), limit, held.clone());
            async move {
                tokio::join!(resolver.run(held), announcing);
            }
        },
    );
    resolving.boxed()
}

/// Sends the canary's readings.
pub(super) fn start_canary(
    base: &Base,
    chain: &ChainHandle,
    solana: &Solana,
    intake: Intake,
) -> Result<(), StartError> {
    let wallet = solana.canary_wallet(&base.config)?;
    let sender = CanarySender::new(
        base.database.pool.clone(),
        chain.endpoints.clone(),
        chain.accounts.mint,
        intake,
        wallet,
        &base.config.tokenization,
    );
    let sender = Arc::new(sender.ok_or(StartError::NoCanaryAmount)?);
    base.tasks.background.spawn(db::run_as_leader(
        base.database.options.clone(),
        LeaderLock::Canary,
        base.tasks.stops.work.clone(),
        move |held| {
            let sender = Arc::clone(&sender);
            async move { sender.run(held).await }
        },
    ));
    Ok(())
}
