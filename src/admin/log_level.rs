//! A temporary log level for all processes, set by an admin.
//!
//! One row sets it for all processes, because an admin behind a load balancer cannot choose a process, and workers have no API.
//! It expires, because a forgotten level fills disks. Without it each process logs by its own LOG_LEVEL.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::admin_log::{self, AdminAction};
use crate::config::is_log_filter;
use crate::db;
use crate::outbox::{self, Topic, Wake, WakeUps};
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};
use crate::telemetry;

/// Longest filter, characters.
pub const LOG_LEVEL_CHARACTERS_MAX: usize = 300;
/// How long a level may last, minutes: a day. For a longer time, set LOG_LEVEL.
pub const LOG_LEVEL_MINUTES_MAX: u32 = 24 * 60;

/// How often a process reads the row, in case it missed the notification.
const REREAD_INTERVAL: Duration = Duration::from_secs(5);

/// A level that an admin set and that has not expired.
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

/// Whether the text is a valid filter and short enough.
pub fn is_log_level(filter: &str) -> bool {
    filter.chars().count() <= LOG_LEVEL_CHARACTERS_MAX && is_log_filter(filter)
}

/// Sets the filter of all processes for the given number of minutes; `None`: each process returns to its own. The caller has
/// checked the filter with [`is_log_level`].
pub async fn set_log_level(
    pool: &PgPool,
    actor: &str,
    level: Option<(&str, u32)>,
) -> sqlx::Result<Option<LogLevel>> {
    let mut transaction = db::begin(pool).await?;
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

/// Applies the stored level to this process. While the database does not answer, the level stays.
struct LogLevelFollower {
    pool: PgPool,
    changes: WakeUps,
    applied: Option<String>,
}

/// Follows the stored level: reads it when a setting changes, and on a period.
pub fn log_level_task(pool: PgPool, wake: &Wake) -> PeriodicTask {
    let follower = LogLevelFollower {
        pool,
        changes: wake.settings(),
        applied: None,
    };
    let timing = Timing::new("log level", REREAD_INTERVAL).with_limit(REREAD_INTERVAL);
    PeriodicTask::new(timing, follower)
}

impl Periodic for LogLevelFollower {
    async fn run(&mut self) -> Result<(), RunError> {
        let stored = LogLevel::read(&self.pool).await?;
        let level = stored.map(|stored| stored.log_level);
        if level != self.applied {
            telemetry::set_log_level(level.as_deref());
            self.applied = level;
        }
        Ok(())
    }

    async fn woken(&mut self) {
        self.changes.next().await;
    }
}
