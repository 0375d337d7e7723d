//! Readings that the toggle or the roll-out holds back: their jobs end, they stay pending.

use uuid::Uuid;

use super::workers::QueueContext;
use crate::admin;

/// What decides about one reading.
#[derive(sqlx::FromRow)]
struct Hold {
    auto_mint_enabled: bool,
    auto_mint_percentage: i16,
    hold_announced: bool,
    rollout_bucket: i16,
}

impl QueueContext {
    /// Whether auto-mint is off, or the reading's meter is not rolled out yet. The first reading that is held back because
    /// auto-mint is off tells the admins.
    pub async fn is_held(&self, reading: Uuid) -> sqlx::Result<bool> {
        let known = self.settings.current();
        if known.auto_mint_enabled && known.auto_mint_percentage >= 100 {
            return Ok(false);
        }
        // This process' copy may be older than the last change, whose sweep has run perhaps: what is held back now by
        // mistake would wait for the next tick.
        let hold: Option<Hold> = sqlx::query_as(
            "SELECT settings.auto_mint_enabled, settings.auto_mint_percentage, settings.hold_announced,
                    meter.rollout_bucket
             FROM settings
             CROSS JOIN readings AS reading
             JOIN meters AS meter ON meter.id = reading.meter
             WHERE reading.id = $1",
        )
        .bind(reading)
        .fetch_optional(&self.pool)
        .await?;
        let Some(hold) = hold else {
            return Ok(false);
        };
        if hold.auto_mint_enabled {
            return Ok(hold.rollout_bucket >= hold.auto_mint_percentage);
        }
        if !hold.hold_announced {
            admin::announce_hold(&self.pool).await?;
        }
        Ok(true)
    }
}
