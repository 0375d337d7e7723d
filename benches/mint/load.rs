//! The meters' side: registers meters, and submits readings in bulk and one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use gridtokenx::meters::Role;
use reqwest::Client;
use serde_json::{Value, json};
use solana_sdk::signature::{Keypair, Signer as _};

use crate::backend::Service;

const INTERVAL_MINUTES: i64 = 15;
/// The most that one bulk request may hold.
const BULK_READINGS: usize = 1_000;
/// Bulk requests under way at once.
const BULK_CLIENTS: usize = 4;
const REGISTRATIONS_AT_ONCE: usize = 32;
/// More than the benchmark's longest phase.
const TOKEN_LIFE: Duration = Duration::from_secs(86_400);
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Meters with a wallet each, and the intervals that they have reported so far.
pub struct Meters {
    client: Client,
    base_url: String,
    token: String,
    admin_token: String,
    wallets: usize,
    /// End of the newest interval that is reported; each further reading of a meter lies before the one reported last.
    newest_end: DateTime<Utc>,
    /// Readings that were handed out: reading `n` is of meter `n % wallets`.
    next: Arc<AtomicUsize>,
}

impl Meters {
    /// Registers one meter for each wallet.
    pub async fn register(service: &Service, wallets: usize) -> Result<Meters> {
        let issue = |role| service.tokens.issue("bench", role, TOKEN_LIFE);
        let meters = Meters {
            client: Client::builder().timeout(CALL_LIMIT).build()?,
            base_url: format!("http://{}", service.address),
            token: issue(Role::User)?,
            admin_token: issue(Role::Admin)?,
            wallets,
            newest_end: Utc::now() - TimeDelta::hours(1),
            next: Arc::new(AtomicUsize::new(0)),
        };
        stream::iter(0..wallets)
            .map(|index| {
                let wallet = Keypair::new().pubkey().to_string();
                let meter = json!({"meter_id": serial(index), "wallet_address": wallet});
                meters.post("/api/meters", &meters.token, meter)
            })
            .buffer_unordered(REGISTRATIONS_AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        Ok(meters)
    }

    /// Switches minting without a trigger on or off.
    pub async fn set_auto_mint(&self, enabled: bool) -> Result<()> {
        let path = "/api/admin/tokenization/toggle-auto-mint";
        let body = json!({"enabled": enabled});
        self.post(path, &self.admin_token, body).await?;
        Ok(())
    }

    /// Submits so many further readings in bulk.
    pub async fn submit_in_bulk(&self, readings: usize) -> Result<()> {
        let first = self.next.fetch_add(readings, Ordering::SeqCst);
        stream::iter((first..first + readings).step_by(BULK_READINGS))
            .map(|start| async move {
                let end = (start + BULK_READINGS).min(first + readings);
                let batch: Vec<Value> = (start..end).map(|number| self.reading(number)).collect();
                let body = json!({ "readings": batch });
                let path = "/api/meters/submit-readings";
                let answer = self.post(path, &self.token, body).await?;
                let accepted = answer["accepted"].as_u64();
                ensure!(
                    accepted == Some((end - start) as u64),
                    "not all accepted: {answer}"
                );
                Ok(())
            })
            .buffer_unordered(BULK_CLIENTS)
            .try_collect::<Vec<_>>()
            .await?;
        Ok(())
    }

    /// Submits further readings one by one, from so many clients, for a time; returns the time of each request in microseconds,
    /// sorted.
    pub async fn submit_singly(&self, clients: usize, time: Duration) -> Result<Vec<u32>> {
        let started = Instant::now();
        let clients = (0..clients).map(|_| async {
            let mut latencies = Vec::new();
            while started.elapsed() < time {
                let number = self.next.fetch_add(1, Ordering::SeqCst);
                let sent = Instant::now();
                let reading = self.reading(number);
                self.post("/api/meters/submit-reading", &self.token, reading)
                    .await?;
                latencies.push(u32::try_from(sent.elapsed().as_micros())?);
            }
            Ok::<_, anyhow::Error>(latencies)
        });
        let latencies = futures_util::future::try_join_all(clients).await?;
        let mut latencies_micros = latencies.concat();
        latencies_micros.sort_unstable();
        Ok(latencies_micros)
    }

    /// Reading `number`: each meter in turn, and of each meter one interval further back.
    fn reading(&self, number: usize) -> Value {
        let back = i64::try_from(number / self.wallets).unwrap_or(i64::MAX);
        let end = self.newest_end
            - TimeDelta::minutes(INTERVAL_MINUTES) * back.try_into().unwrap_or(i32::MAX);
        json!({
            "meter_id": serial(number % self.wallets),
            "kwh_amount": "1.25",
            "reading_timestamp": end.to_rfc3339_opts(SecondsFormat::Micros, true),
        })
    }

    async fn post(&self, path: &str, token: &str, body: Value) -> Result<Value> {
        let url = format!("{}{path}", self.base_url);
        let answer = self.client.post(url).bearer_auth(token).json(&body).send();
        let answer = answer.await?;
        let status = answer.status();
        let body: Value = answer.json().await.context(path.to_owned())?;
        ensure!(status.is_success(), "{path}: {status}: {body}");
        Ok(body)
    }
}

fn serial(index: usize) -> String {
    format!("bench-{index:06}")
}
