//! The settings that change at run time: one row for all processes.
//!
//! No process keeps a copy: each batch of the minter reads the row together with its readings, so every process
//! applies a change as soon as it commits.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

/// The settings of auto-mint: which pending readings are minted without a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct AutoMintSettings {
    pub auto_mint_enabled: bool,
    /// 0 to 100: meters whose roll-out bucket is below it are minted automatically.
    pub auto_mint_percentage: i16,
}

impl AutoMintSettings {
    /// Whether a pending reading of a meter in this roll-out bucket (0 to 99) is minted without a trigger.
    pub fn mints_automatically(self, rollout_bucket: u8) -> bool {
        i16::from(rollout_bucket) < self.buckets_minted()
    }

    /// Roll-out buckets below this one (0 to 100) are minted without a trigger.
    pub fn buckets_minted(self) -> i16 {
        if self.auto_mint_enabled {
            self.auto_mint_percentage
        } else {
            0
        }
    }

    /// The first start on a database stores `configured`. Later starts keep the stored settings and log a difference.
    pub async fn init(pool: &PgPool, configured: AutoMintSettings) -> sqlx::Result<()> {
        sqlx::query(
            "INSERT INTO settings (auto_mint_enabled, auto_mint_percentage)
             VALUES ($1, $2)
             ON CONFLICT (single) DO NOTHING",
        )
        .bind(configured.auto_mint_enabled)
        .bind(configured.auto_mint_percentage)
        .execute(pool)
        .await?;
        let stored = StoredSettings::read(pool).await?.settings;
        if stored.auto_mint_enabled != configured.auto_mint_enabled {
            tracing::warn!(
                stored = stored.auto_mint_enabled,
                configured = configured.auto_mint_enabled,
                "TOKENIZATION_AUTO_MINT_ENABLED differs from the stored setting and is ignored; change the setting as an admin"
            );
        }
        if stored.auto_mint_percentage != configured.auto_mint_percentage {
            tracing::warn!(
                stored = stored.auto_mint_percentage,
                configured = configured.auto_mint_percentage,
                "TOKENIZATION_AUTO_MINT_PERCENTAGE differs from the stored roll-out and is ignored; change it as an admin"
            );
        }
        Ok(())
    }
}

/// The stored settings, and who changed them last.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct StoredSettings {
    #[sqlx(flatten)]
    pub settings: AutoMintSettings,
    /// The admin's subject; `None`: no admin has changed them since the first start.
    pub changed_by: Option<String>,
    /// When they were last changed; the first start if they never were.
    pub changed_at: DateTime<Utc>,
}

impl StoredSettings {
    pub async fn read(executor: impl sqlx::PgExecutor<'_>) -> sqlx::Result<StoredSettings> {
        sqlx::query_as(
            "SELECT auto_mint_enabled, auto_mint_percentage, changed_by, changed_at
             FROM settings",
        )
        .fetch_one(executor)
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_toggle_and_the_rollout_hold_readings_back() {
        let settings = |auto_mint_enabled, auto_mint_percentage| AutoMintSettings {
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
