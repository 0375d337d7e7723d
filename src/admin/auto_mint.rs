//! Changes of the auto-mint toggle and of the roll-out.
//!
//! Invariant: a change, its entry in the admin log, its event, and the job of the sweep that mints released readings commit
//! together. All processes follow the change from then on: the minter reads the settings together with the readings of each
//! batch.
//!
//! Invariant: while auto-mint is off, admins are notified once that readings are held back, regardless of the number of readings
//! and processes. Kept by a column that is compared and set in one statement; switching the toggle resets it.

use sqlx::{PgConnection, PgPool};

use super::auto_mint_settings::AutoMintSettings;
use crate::admin_log::{self, AdminAction, LogNumber};
use crate::db;
use crate::outbox::{self, Event, EventFields, EventType, SweepUnminted, Topic};

/// The settings before and after an admin's action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingsChange {
    pub before: AutoMintSettings,
    pub now: AutoMintSettings,
}

impl SettingsChange {
    pub fn is_none(self) -> bool {
        self.before == self.now
    }

    /// Whether the change releases readings that were held back.
    fn releases_readings(self) -> bool {
        let switched_on = self.now.auto_mint_enabled && !self.before.auto_mint_enabled;
        switched_on || self.now.auto_mint_percentage > self.before.auto_mint_percentage
    }
}

/// Switches minting without a trigger on or off, for all processes. Setting the current value again changes nothing, but is
/// logged.
pub async fn toggle_auto_mint(
    pool: &PgPool,
    actor: &str,
    enabled: bool,
) -> sqlx::Result<SettingsChange> {
    let action = AdminAction::ToggleAutoMint { enabled };
    change(pool, actor, &action, |before| AutoMintSettings {
        auto_mint_enabled: enabled,
        ..before
    })
    .await
}

/// Sets the share of meters whose readings are minted without a trigger, 0 to 100 percent.
pub async fn set_auto_mint_percentage(
    pool: &PgPool,
    actor: &str,
    percentage: u8,
) -> sqlx::Result<SettingsChange> {
    let action = AdminAction::SetAutoMintPercentage { percentage };
    change(pool, actor, &action, |before| AutoMintSettings {
        auto_mint_percentage: i16::from(percentage),
        ..before
    })
    .await
}

async fn change(
    pool: &PgPool,
    actor: &str,
    action: &AdminAction,
    changed: impl FnOnce(AutoMintSettings) -> AutoMintSettings,
) -> sqlx::Result<SettingsChange> {
    let mut transaction = db::begin(pool).await?;
    let before: AutoMintSettings = sqlx::query_as(
        "SELECT auto_mint_enabled, auto_mint_percentage
         FROM settings
         -- If two admins act at once, the second change starts from the result of the first.
         FOR UPDATE",
    )
    .fetch_one(&mut *transaction)
    .await?;
    let change = SettingsChange {
        before,
        now: changed(before),
    };
    let number = admin_log::append(&mut transaction, actor, action).await?;
    if !change.is_none() {
        store(&mut transaction, actor, change.now).await?;
        publish(&mut transaction, change, number).await?;
    }
    transaction.commit().await?;
    Ok(change)
}

async fn store(
    transaction: &mut PgConnection,
    actor: &str,
    now: AutoMintSettings,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE settings
         SET auto_mint_enabled = $1, auto_mint_percentage = $2, changed_by = $3, changed_at = now(),
             -- A toggle begins a new period, of which admins have not been notified.
             hold_announced = hold_announced AND auto_mint_enabled = $1",
    )
    .bind(now.auto_mint_enabled)
    .bind(now.auto_mint_percentage)
    .bind(actor)
    .execute(transaction)
    .await?;
    Ok(())
}

/// Publishes the change, and enqueues one sweep that mints the released readings.
async fn publish(
    transaction: &mut PgConnection,
    change: SettingsChange,
    number: LogNumber,
) -> sqlx::Result<()> {
    if change.now.auto_mint_enabled != change.before.auto_mint_enabled {
        let fields = EventFields {
            auto_mint_enabled: Some(change.now.auto_mint_enabled),
            ..EventFields::default()
        };
        let event = Event::new(EventType::AutoMintToggled, &fields);
        outbox::publish(transaction, &[event]).await?;
    }
    if change.releases_readings() {
        // The entry's number makes the job unique.
        let sweep = SweepUnminted::because(&format!("admin-log-{number}"));
        outbox::enqueue(transaction, &[sweep]).await?;
    }
    outbox::notify(transaction, Topic::OutboxAndJobs).await
}

/// Notifies admins that readings are held back, once after each time that auto-mint is switched off.
pub async fn announce_hold(pool: &PgPool) -> sqlx::Result<()> {
    let to_announce: bool = sqlx::query_scalar(
        "SELECT NOT auto_mint_enabled AND NOT hold_announced
         FROM settings",
    )
    .fetch_one(pool)
    .await?;
    if !to_announce {
        return Ok(());
    }
    let mut transaction = db::begin(pool).await?;
    let first = sqlx::query(
        "UPDATE settings
         SET hold_announced = TRUE
         WHERE NOT auto_mint_enabled
           AND NOT hold_announced",
    )
    .execute(&mut *transaction)
    .await?;
    if first.rows_affected() == 0 {
        return Ok(());
    }
    let fields = EventFields {
        error_reason: Some(
            "auto-mint is off: readings are accepted and stored, but not minted until an admin switches it on or triggers a \
             batch"
                .to_owned(),
        ),
        ..EventFields::default()
    };
    let event = Event::new(EventType::AdminNotification, &fields);
    outbox::publish(&mut transaction, &[event]).await?;
    outbox::notify(&mut transaction, Topic::Outbox).await?;
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_releases_readings_enqueues_a_sweep() {
        let settings = |auto_mint_enabled, auto_mint_percentage| AutoMintSettings {
            auto_mint_enabled,
            auto_mint_percentage,
        };
        let cases = [
            (settings(false, 50), settings(true, 50), true),
            (settings(true, 50), settings(false, 50), false),
            (settings(true, 50), settings(true, 51), true),
            (settings(true, 50), settings(true, 49), false),
            (settings(true, 50), settings(true, 50), false),
        ];
        for (before, now, expected) in cases {
            let change = SettingsChange { before, now };
            assert_eq!(change.releases_readings(), expected, "{change:?}");
            assert_eq!(change.is_none(), before == now);
        }
    }
}
