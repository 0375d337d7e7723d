//! The statements on the table `meters`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgExecutor};

use super::meter::Meter;
use crate::domain::{MeterSerial, Wallet};

#[derive(FromRow)]
pub(super) struct MeterRow {
    id: i64,
    serial: MeterSerial,
    owner: String,
    wallet: Wallet,
    interval_minutes: i32,
    rollout_bucket: i16,
    registered_at: DateTime<Utc>,
}

impl TryFrom<MeterRow> for Meter {
    type Error = sqlx::Error;

    fn try_from(row: MeterRow) -> Result<Meter, sqlx::Error> {
        // The table's CHECKs allow nothing that does not fit.
        let out_of_range = |error: std::num::TryFromIntError| sqlx::Error::Decode(error.into());
        Ok(Meter {
            id: row.id,
            serial: row.serial,
            owner: row.owner,
            wallet: row.wallet,
            interval_minutes: row.interval_minutes.try_into().map_err(out_of_range)?,
            rollout_bucket: row.rollout_bucket.try_into().map_err(out_of_range)?,
            registered_at: row.registered_at,
        })
    }
}

pub(crate) async fn find_by_serial(
    executor: impl PgExecutor<'_>,
    serial: &MeterSerial,
) -> sqlx::Result<Option<Meter>> {
    let row: Option<MeterRow> = sqlx::query_as(
        "SELECT id, serial, owner, wallet, interval_minutes, rollout_bucket, registered_at
         FROM meters
         WHERE serial = $1",
    )
    .bind(serial)
    .fetch_optional(executor)
    .await?;
    row.map(Meter::try_from).transpose()
}

/// The meters of a batch, in one query.
pub(crate) async fn find_by_serials(
    executor: impl PgExecutor<'_>,
    serials: &[&str],
) -> sqlx::Result<HashMap<MeterSerial, Meter>> {
    let rows: Vec<MeterRow> = sqlx::query_as(
        "SELECT id, serial, owner, wallet, interval_minutes, rollout_bucket, registered_at
         FROM meters
         WHERE serial = ANY($1)",
    )
    .bind(serials)
    .fetch_all(executor)
    .await?;
    rows.into_iter()
        .map(|row| Meter::try_from(row).map(|meter| (meter.serial.clone(), meter)))
        .collect()
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
    let row: Option<MeterRow> = sqlx::query_as(
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
    .await?;
    row.map(Meter::try_from).transpose()
}
