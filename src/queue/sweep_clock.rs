//! The clock of the sweep: enqueues one `SweepUnminted` job for each tick.
//!
//! The clock of every process ticks at the same moments, and a tick is one job whose key is its moment, so it runs once.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use apalis::prelude::{BoxDynError, Data};
use apalis_cron::{Schedule, Tick};
use sqlx::PgPool;

use super::handler_context::QueueContext;
use crate::db::{self, within};
use crate::outbox::{self, Job, SweepUnminted, Topic};
use crate::periodic::RunCounter;

/// Ticks at whole multiples of the period since 1970: at the same moments in every process, with none to catch up on after
/// a pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct EverySecs(pub u64);

impl<Tz> Schedule<Tz> for EverySecs {
    fn next_tick(&mut self, _: &Tz) -> Option<Tick<Tz>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        Some(Tick::new((now / self.0 + 1) * self.0))
    }
}

/// Enqueues the tick's job; the second process that tries finds it there. While a sweep waits because all workers are busy,
/// no other is added: missed ticks are not made up. A sweep that no worker takes for minutes does not count, because
/// something is wrong with its job, and that must not stop the clock.
pub(super) async fn enqueue_sweep(
    tick: Tick,
    context: Data<Arc<QueueContext>>,
    ticks: Data<RunCounter>,
) -> Result<(), BoxDynError> {
    // A tick that hangs would be the last one.
    let enqueued = within(
        context.transaction_limit,
        enqueue(&context.pool, tick.get_timestamp()),
    )
    .await;
    ticks.count();
    Ok(enqueued?)
}

async fn enqueue(pool: &PgPool, tick_secs: u64) -> sqlx::Result<()> {
    let mut transaction = db::begin(pool).await?;
    let one_waits: bool = sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT
             FROM apalis.jobs
             WHERE job_type = $1
               AND status = 'Pending'
               AND run_at > now() - INTERVAL '5 minutes'
         )",
    )
    .bind(SweepUnminted::NAME)
    .fetch_one(&mut *transaction)
    .await?;
    if one_waits {
        return Ok(());
    }
    outbox::enqueue(&mut transaction, &[SweepUnminted::at_tick(tick_secs)]).await?;
    outbox::notify(&mut transaction, Topic::OutboxAndJobs).await?;
    transaction.commit().await?;
    Ok(())
}
