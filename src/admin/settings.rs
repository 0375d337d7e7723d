//! The settings that change at run time: one row for all processes.

use std::time::Duration;

use sqlx::{PgExecutor, PgPool};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::outbox::{self, Topic, Wake};

/// How stale a process's copy may be when the database's notification did not reach it.
const REREAD_INTERVAL: Duration = Duration::from_secs(5);

/// What decides whether a pending reading is minted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoMint {
    pub enabled: bool,
    /// 0 to 100: meters whose roll-out bucket is below it are minted for automatically.
    pub percentage: u8,
}

impl AutoMint {
    /// Whether a pending reading of a meter in this roll-out bucket (0 to 99) is minted without a trigger.
    pub fn includes(self, rollout_bucket: u8) -> bool {
        self.enabled && rollout_bucket < self.percentage
    }
}

/// This process's copy of the stored settings, kept current by [`Settings::follow`]. A clone is the same copy.
#[derive(Clone, Debug)]
pub struct Settings(watch::Sender<AutoMint>);

impl Settings {
    /// A copy that starts with these values.
    pub fn new(auto_mint: AutoMint) -> Settings {
        Settings(watch::Sender::new(auto_mint))
    }

    /// Reads the stored settings. The very first start on a database stores `configured`; afterwards what is stored
    /// counts, and a difference is logged. The percentage has no switch of its own, so for it the configuration of the
    /// process that started last counts.
    pub async fn load_or_init(pool: &PgPool, configured: AutoMint) -> sqlx::Result<Settings> {
        let mut transaction = pool.begin().await?;
        sqlx::query(
            "INSERT INTO settings (auto_mint_enabled, auto_mint_percentage)
             VALUES ($1, $2)
             ON CONFLICT (only) DO NOTHING",
        )
        .bind(configured.enabled)
        .bind(i16::from(configured.percentage))
        .execute(&mut *transaction)
        .await?;
        let stored = read(&mut *transaction).await?;
        if stored.percentage != configured.percentage {
            sqlx::query(
                "UPDATE settings
                 SET auto_mint_percentage = $1, changed_by = NULL, changed_at = now()",
            )
            .bind(i16::from(configured.percentage))
            .execute(&mut *transaction)
            .await?;
            outbox::notify(&mut transaction, Topic::Settings).await?;
            tracing::info!(
                before = stored.percentage,
                now = configured.percentage,
                "TOKENIZATION_AUTO_MINT_PERCENTAGE changed the roll-out"
            );
        }
        transaction.commit().await?;
        if stored.enabled != configured.enabled {
            tracing::warn!(
                stored = stored.enabled,
                configured = configured.enabled,
                "the stored auto-mint setting counts, though TOKENIZATION_AUTO_MINT_ENABLED says otherwise; \
                 an admin changes it"
            );
        }
        Ok(Settings::new(AutoMint {
            enabled: stored.enabled,
            percentage: configured.percentage,
        }))
    }

    pub fn current(&self) -> AutoMint {
        *self.0.borrow()
    }

    /// Wakes its holder at every change.
    pub fn subscribe(&self) -> watch::Receiver<AutoMint> {
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
            let reading = tokio::time::timeout(REREAD_INTERVAL, read(&pool));
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

async fn read(executor: impl PgExecutor<'_>) -> sqlx::Result<AutoMint> {
    let (enabled, percentage): (bool, i16) = sqlx::query_as(
        "SELECT auto_mint_enabled, auto_mint_percentage
         FROM settings",
    )
    .fetch_one(executor)
    .await?;
    Ok(AutoMint {
        enabled,
        // The table's CHECK keeps it from 0 to 100.
        percentage: u8::try_from(percentage).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_toggle_and_the_rollout_hold_readings_back() {
        let auto_mint = |enabled, percentage| AutoMint {
            enabled,
            percentage,
        };
        assert!(auto_mint(true, 100).includes(99));
        assert!(!auto_mint(false, 100).includes(0));
        assert!(auto_mint(true, 10).includes(9));
        assert!(!auto_mint(true, 10).includes(10));
        assert!(!auto_mint(true, 0).includes(0));
    }
}
