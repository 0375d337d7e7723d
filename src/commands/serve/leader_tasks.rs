//! Tasks that every process offers to run and one process of the deployment runs at a time.

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio_util::sync::CancellationToken;

use super::base::Base;
use super::periodic_tasks::{of_canary, of_resolver, of_sequencer};
use super::solana::Solana;
use super::start_error::StartError;
use crate::canary::CanarySender;
use crate::db::{self, LeaderLock};
use crate::mint::ChainHandle;
use crate::periodic::PeriodicTask;
use crate::readings::Intake;

/// Numbers events. The process that numbers them also deletes old ones.
pub(super) fn start_sequencer(base: &Base) {
    let tasks = of_sequencer(base);
    let stop = base.tasks.stops.last.clone();
    let leading = lead(base, LeaderLock::Sequencer, stop, move || alone(tasks()));
    base.tasks.background.spawn(leading);
}

/// Resolves mint transactions.
pub(super) fn resolver(base: &Base, chain: &ChainHandle) -> BoxFuture<'static, ()> {
    let stop = base.tasks.stops.last.clone();
    lead(base, LeaderLock::Resolver, stop, of_resolver(base, chain))
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
    let tasks = of_canary(sender.ok_or(StartError::NoCanaryAmount)?);
    let stop = base.tasks.stops.work.clone();
    let leading = lead(base, LeaderLock::Canary, stop, move || alone(tasks()));
    base.tasks.background.spawn(leading);
    Ok(())
}

/// Lists the tasks, and returns what runs them while this process holds the lock, until `stop`. `tasks` builds them anew each
/// time that the lock is acquired, together with what runs beside them.
fn lead(
    base: &Base,
    lock: LeaderLock,
    stop: CancellationToken,
    tasks: impl Fn() -> (Vec<PeriodicTask>, BoxFuture<'static, ()>) + Send + Sync + 'static,
) -> BoxFuture<'static, ()> {
    let list = base.periodic.clone();
    for task in tasks().0 {
        list.add(task.timing());
    }
    let options = base.database.options.clone();
    let leading = db::run_as_leader(options, lock, stop, move |held| {
        let (periodic, beside) = tasks();
        let periodic = periodic
            .into_iter()
            .map(|task| task.run(&list, held.clone()));
        let periodic = join_all(periodic);
        async move {
            tokio::select! {
                _ = periodic => {}
                () = beside => {}
            }
        }
    });
    leading.boxed()
}

/// Tasks beside which nothing runs.
fn alone(tasks: Vec<PeriodicTask>) -> (Vec<PeriodicTask>, BoxFuture<'static, ()>) {
    (tasks, std::future::pending().boxed())
}
