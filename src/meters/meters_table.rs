//! The statements on the table `meters`.

use std::collections::HashMap;

use sqlx::PgExecutor;

use super::meter::Meter;
use crate::domain::{MeterSerial, Wallet};

pub(crate) async fn find_by_serial(
    executor: impl PgExecutor<'_>,
    serial: &MeterSerial,
) -> sqlx::Result<Option<Meter>> {
    sqlx::query_as(
        "SELECT id, serial, owner, wallet, interval_minutes, rollout_bucket, registered_at
         FROM meters
         WHERE serial = $1",
    )
    .bind(serial)
    .fetch_optional(executor)
    .await
}

/// The meters of a batch, in one query.
pub(crate) async fn find_by_serials(
    executor: impl PgExecutor<'_>,
    serials: &[&str],
) -> sqlx::Result<HashMap<MeterSerial, Meter>> {
    let meters: Vec<Meter> = sqlx::query_as(
        "SELECT id, serial, owner, wallet, interval_minutes, rollout_bucket, registered_at
         FROM meters
         WHERE serial = ANY($1)",
    )
    .bind(serials)
    .fetch_all(executor)
    .await?;
    Ok(meters
        .into_iter()
        .map(|meter| (meter.serial.clone(), meter))
        .collect())
}

/// The row of a new meter.
pub(super) struct NewRow<'a> {
    pub(super) serial: &'a MeterSerial,
    pub(super) owner: &'a str,
    pub(super) wallet: Wallet,
    pub(super) interval_minutes: u16,
}

/// `None` when the serial is taken.
pub(super) async fn insert(
    executor: impl PgExecutor<'_>,
    new: &NewRow<'_>,
) -> sqlx::Result<Option<Meter>> {
    sqlx::query_as(
        "INSERT INTO meters (serial, owner, wallet, interval_minutes, rollout_bucket)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (serial) DO NOTHING
         RETURNING id, serial, owner, wallet, interval_minutes, rollout_bucket, registered_at",
    )
    .bind(new.serial)
    .bind(new.owner)
    .bind(new.wallet)
    .bind(i32::from(new.interval_minutes))
    .bind(i16::from(new.serial.rollout_bucket()))
    .fetch_optional(executor)
    .await
}
