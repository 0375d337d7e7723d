//! What all processes log for a while, because an admin wants to see more, or less.
//!
//! One row says it for all: behind a load balancer nobody knows which process answered, and workers have no API. It ends by
//! itself, since a level that was forgotten fills disks. Without it each process logs by its own LOG_LEVEL.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::admin_log::{self, AdminAction};
use crate::config::is_log_filter;
use crate::outbox::{self, Topic, Wake};
use crate::telemetry;

/// Longest filter, characters.
pub const LOG_LEVEL_CHARACTERS_MAX: usize = 300;
/// How long a level may last, minutes: a day. What is to last longer is a matter of LOG_LEVEL.
pub const LOG_LEVEL_MINUTES_MAX: u32 = 24 * 60;

/// How stale a process may be when the database's notification did not reach it.
const REREAD_INTERVAL: Duration = Duration::from_secs(5);

/// A level that an admin set, while it lasts.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct LogLevel {
    pub log_level: String,
    pub log_level_until: DateTime<Utc>,
}

impl LogLevel {
    /// `None`: each process logs by its LOG_LEVEL.
    pub async fn read(pool: &PgPool) -> sqlx::Result<Option<LogLevel>> {
        sqlx::query_as(
            "SELECT log_level, log_level_until
             FROM settings
             WHERE log_level_until > now()",
        )
        .fetch_optional(pool)
        .await
    }
}

/// Whether it can be read as a filter, and is short enough.
pub fn is_log_level(filter: &str) -> bool {
    filter.chars().count() <= LOG_LEVEL_CHARACTERS_MAX && is_log_filter(filter)
}

/// Lets all processes log by this filter for so many minutes; `None`: by their own again. The filter was checked by
/// [`is_log_level`].
pub async fn set_log_level(
    pool: &PgPool,
    actor: &str,
    level: Option<(&str, u32)>,
) -> sqlx::Result<Option<LogLevel>> {
    let mut transaction = pool.begin().await?;
    let action = AdminAction::SetLogLevel {
        level: level.map(|(filter, _)| filter.to_owned()),
        minutes: level.map(|(_, minutes)| minutes),
    };
    admin_log::append(&mut transaction, actor, &action).await?;
    sqlx::query(
        "UPDATE settings
         SET log_level = $1, log_level_until = now() + $2 * INTERVAL '1 minute'",
    )
    .bind(level.map(|(filter, _)| filter))
    .bind(level.map(|(_, minutes)| f64::from(minutes)))
    .execute(&mut *transaction)
    .await?;
    outbox::notify(&mut transaction, Topic::Settings).await?;
    transaction.commit().await?;
    LogLevel::read(pool).await
}

/// Makes this process log as the row says, until told to stop.
pub async fn follow_log_level(pool: PgPool, wake: Wake, stop: CancellationToken) {
    let mut announced = wake.settings();
    let mut followed: Option<String> = None;
    loop {
        let reading = tokio::time::timeout(REREAD_INTERVAL, LogLevel::read(&pool));
        match stop.run_until_cancelled(reading).await {
            None => return,
            Some(Ok(Ok(stored))) => {
                let wanted = stored.map(|stored| stored.log_level);
                if wanted != followed {
                    telemetry::set_log_level(wanted.as_deref());
                    followed = wanted;
                }
            }
            // Health says that the database is away; the level stays as it was.
            Some(Ok(Err(_)) | Err(_)) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            // The sender lives in `wake`, so this never ends in an error.
            _ = announced.changed() => {}
            () = tokio::time::sleep(REREAD_INTERVAL) => {}
        }
    }
}
