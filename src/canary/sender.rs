//! Sends the canary's readings, one a minute, and checks that each is minted.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::canary_meter::{INTERVAL_MINUTES, OWNER, serial_for, smallest_amount};
use crate::admin::StoredSettings;
use crate::chain::Endpoints;
use crate::config::TokenizationConfig;
use crate::db::within;
use crate::domain::{Kwh, MeterSerial, Wallet, rfc3339_secs};
use crate::meters::{self, Caller, MeterError, NewMeter, Role};
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};
use crate::readings::{Intake, Member, ReadingError, Submission};
use crate::telemetry::names;

const EVERY: Duration = Duration::from_secs(60);
/// How long a reading may take to be minted. The next one is sent in any case.
const MINTED_WITHIN: Duration = Duration::from_secs(50);
const POLL_EVERY: Duration = Duration::from_millis(500);
/// Limit of one query, of the registration with its calls to the chain, and of one submission.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Sends the readings of one canary meter.
pub struct CanarySender {
    pool: PgPool,
    endpoints: Endpoints,
    mint: Pubkey,
    intake: Intake,
    wallet: Wallet,
    serial: MeterSerial,
    kwh: Kwh,
}

/// A canary reading was not minted.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the canary's meter cannot be registered: {0}")]
    Meter(#[from] MeterError),
    #[error("the canary's reading was not accepted: {0}")]
    Reading(#[from] ReadingError),
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    #[error("no answer within {ANSWER_LIMIT:?}")]
    NoAnswer,
    #[error("reading {0} was not minted within {MINTED_WITHIN:?}")]
    NotMinted(Uuid),
}

impl CanarySender {
    /// `None` when no reading is small enough to be allowed and large enough to pay anything.
    pub fn new(
        pool: PgPool,
        endpoints: Endpoints,
        mint: Pubkey,
        intake: Intake,
        wallet: Wallet,
        tokenization: &TokenizationConfig,
    ) -> Option<CanarySender> {
        Some(CanarySender {
            serial: serial_for(wallet)?,
            kwh: smallest_amount(tokenization)?,
            pool,
            endpoints,
            mint,
            intake,
            wallet,
        })
    }

    /// Sends readings while this process holds the lock.
    pub fn task(self: Arc<Self>) -> PeriodicTask {
        let rounds = SenderRounds {
            sender: self,
            failed_before: false,
        };
        PeriodicTask::of_leader(Timing::new("canary sender", EVERY), rounds)
    }

    /// Sends one reading and waits until it is minted. Nothing is sent while the settings would hold it back.
    async fn send(&self) -> Result<(), SendError> {
        let settings = within(ANSWER_LIMIT, StoredSettings::read(&self.pool))
            .await?
            .settings;
        if !settings.mints_automatically(self.serial.rollout_bucket()) {
            return Ok(());
        }
        let started = Instant::now();
        let caller = Caller {
            subject: OWNER.to_owned(),
            role: Role::User,
        };
        timeout(ANSWER_LIMIT, self.register(&caller))
            .await
            .map_err(|_| SendError::NoAnswer)??;
        let submission = self.submission(Utc::now());
        let accepted = timeout(ANSWER_LIMIT, self.intake.submit(&caller, submission))
            .await
            .map_err(|_| SendError::NoAnswer)??;
        self.until_minted(accepted.reading_id).await?;
        metrics::histogram!(names::CANARY_SECONDS).record(started.elapsed());
        Ok(())
    }

    async fn register(&self, caller: &Caller) -> Result<(), MeterError> {
        let new = NewMeter {
            meter_id: self.serial.as_str().to_owned(),
            wallet_address: self.wallet.to_string(),
            interval_minutes: Some(INTERVAL_MINUTES),
            owner: None,
        };
        meters::register(&self.pool, &self.endpoints, &self.mint, caller, new)
            .await
            .map(drop)
    }

    /// For the last whole minute: two processes that hold the lock within one minute send the same reading.
    fn submission(&self, now: DateTime<Utc>) -> Submission {
        let end = now
            .duration_trunc(TimeDelta::minutes(INTERVAL_MINUTES))
            .unwrap_or(now);
        Submission {
            meter_id: Member::Text(self.serial.as_str().to_owned()),
            kwh_amount: Member::Text(self.kwh.to_string()),
            reading_timestamp: Member::Text(rfc3339_secs(end)),
            ..Submission::default()
        }
    }

    async fn until_minted(&self, reading: Uuid) -> Result<(), SendError> {
        let polling = async {
            while !self.is_minted(reading).await? {
                sleep(POLL_EVERY).await;
            }
            Ok(())
        };
        timeout(MINTED_WITHIN, polling)
            .await
            .unwrap_or(Err(SendError::NotMinted(reading)))
    }

    async fn is_minted(&self, reading: Uuid) -> Result<bool, SendError> {
        let is_minted: bool = sqlx::query_scalar(
            "SELECT state IN ('minted', 'finalized')
             FROM readings
             WHERE id = $1",
        )
        .bind(reading)
        .fetch_one(&self.pool)
        .await?;
        Ok(is_minted)
    }
}

struct SenderRounds {
    sender: Arc<CanarySender>,
    failed_before: bool,
}

impl Periodic for SenderRounds {
    /// A reading that is not minted does not fail the run: it has its own line in the log, with its meter.
    async fn run(&mut self) -> Result<(), RunError> {
        let sent = self.sender.send().await;
        match &sent {
            // Only the first failure in a row is logged: health and metrics show that it lasts.
            Err(error) if !self.failed_before => {
                tracing::warn!(meter_id = self.sender.serial.as_str(), %error, "canary reading failed");
            }
            Ok(()) if self.failed_before => tracing::info!("canary recovered"),
            Ok(()) | Err(_) => {}
        }
        self.failed_before = sent.is_err();
        Ok(())
    }
}
