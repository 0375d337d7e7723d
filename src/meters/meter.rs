//! A registered meter.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::FromRow;

use crate::domain::{MeterSerial, Wallet};

/// A meter as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Meter {
    /// Key within the database.
    pub id: i64,
    /// The API's `meter_id`.
    pub serial: MeterSerial,
    /// The subject that owns it.
    pub owner: String,
    /// The wallet that its readings pay.
    pub wallet: Wallet,
    /// Length of a reading whose start is not given, minutes, 1..=1440.
    #[sqlx(try_from = "i32")]
    pub interval_minutes: u16,
    /// Position in the roll-out, 0..=99.
    #[sqlx(try_from = "i16")]
    pub rollout_bucket: u8,
    pub registered_at: DateTime<Utc>,
}

impl Meter {
    /// Length of a reading whose start is not given.
    pub fn interval(&self) -> TimeDelta {
        TimeDelta::minutes(i64::from(self.interval_minutes))
    }
}
