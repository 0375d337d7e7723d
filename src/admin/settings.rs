//! The settings that change at run time: one row for all processes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::outbox::Wake;

/// How stale a process's copy may be when the database's notification did not reach it.
const REREAD_INTERVAL: Duration = Duration::from_secs(5);

/// What decides whether a pending reading is minted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Settings {
    pub auto_mint_enabled: bool,
    /// 0 to 100: meters whose roll-out bucket is below it are minted automatically.
    pub auto_mint_percentage: i16,
}

impl Settings {
    /// Whether a pending reading of a meter in this roll-out bucket (0 to 99) is minted without a trigger.
    pub fn mints_automatically(self, rollout_bucket: u8) -> bool {
        self.auto_mint_enabled && i16::from(rollout_bucket) < self.auto_mint_percentage
    }

    /// The stored settings. The very first start on a database stores `configured`; afterwards what is stored counts, and
    /// a difference is logged.
    pub async fn load_or_init(pool: &PgPool, configured: Settings) -> sqlx::Result<Settings> {
        sqlx::query(
            "INSERT INTO settings (auto_mint_enabled, auto_mint_percentage)
             VALUES ($1, $2)
             ON CONFLICT (single) DO NOTHING",
        )
        .bind(configured.auto_mint_enabled)
        .bind(configured.auto_mint_percentage)
        .execute(pool)
        .await?;
        let stored = Settings::read(pool).await?;
        if stored.auto_mint_enabled != configured.auto_mint_enabled {
            tracing::warn!(
                stored = stored.auto_mint_enabled,
                configured = configured.auto_mint_enabled,
                "the stored auto-mint setting counts, though TOKENIZATION_AUTO_MINT_ENABLED says otherwise; \
                 an admin changes it"
            );
        }
        if stored.auto_mint_percentage != configured.auto_mint_percentage {
            tracing::warn!(
                stored = stored.auto_mint_percentage,
                configured = configured.auto_mint_percentage,
                "the stored roll-out counts, though TOKENIZATION_AUTO_MINT_PERCENTAGE says otherwise; an admin changes it"
            );
        }
        Ok(stored)
    }

    async fn read(executor: impl sqlx::PgExecutor<'_>) -> sqlx::Result<Settings> {
        sqlx::query_as(
            "SELECT auto_mint_enabled, auto_mint_percentage
             FROM settings",
        )
        .fetch_one(executor)
        .await
    }
}

/// The settings as they are stored, and who changed them last.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct StoredSettings {
    #[sqlx(flatten)]
    pub settings: Settings,
    /// The admin's subject; `None`: nobody has changed them since the first start.
    pub changed_by: Option<String>,
    /// Of the last change; of the first start when there was none.
    pub changed_at: DateTime<Utc>,
}

impl StoredSettings {
    pub async fn read(pool: &PgPool) -> sqlx::Result<StoredSettings> {
        sqlx::query_as(
            "SELECT auto_mint_enabled, auto_mint_percentage, changed_by, changed_at
             FROM settings",
        )
        .fetch_one(pool)
        .await
    }
}

/// This process's copy of the settings, kept current by [`SettingsWatch::follow`]. A clone sees the same copy.
#[derive(Clone, Debug)]
pub struct SettingsWatch(watch::Sender<Settings>);

impl SettingsWatch {
    pub fn new(settings: Settings) -> SettingsWatch {
        SettingsWatch(watch::Sender::new(settings))
    }

    pub fn current(&self) -> Settings {
        *self.0.borrow()
    }

    /// Wakes its holder at every change.
    pub fn subscribe(&self) -> watch::Receiver<Settings> {
        self.0.subscribe()
    }

    /// Reads the row again when a change is announced, and every few seconds, until told to stop.
    pub async fn follow(self, pool: PgPool, wake: Wake, stop: CancellationToken) {
        let mut announced = wake.settings();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                // The sender lives in `wake`, so this never ends in an error.
                _ = announced.changed() => {}
                () = tokio::time::sleep(REREAD_INTERVAL) => {}
            }
            let reading = tokio::time::timeout(REREAD_INTERVAL, Settings::read(&pool));
            match stop.run_until_cancelled(reading).await {
                None => return,
                Some(Ok(Ok(stored))) => {
                    self.0.send_if_modified(|known| {
                        let changed = *known != stored;
                        *known = stored;
                        changed
                    });
                }
                Some(Ok(Err(error))) => {
                    tracing::warn!(%error, "the settings could not be read again");
                }
                Some(Err(_)) => tracing::warn!("the settings could not be read again in time"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_toggle_and_the_rollout_hold_readings_back() {
        let settings = |auto_mint_enabled, auto_mint_percentage| Settings {
            auto_mint_enabled,
            auto_mint_percentage,
        };
        assert!(settings(true, 100).mints_automatically(99));
        assert!(!settings(false, 100).mints_automatically(0));
        assert!(settings(true, 10).mints_automatically(9));
        assert!(!settings(true, 10).mints_automatically(10));
        assert!(!settings(true, 0).mints_automatically(0));
    }
}
