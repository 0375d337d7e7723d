//! One replay: registers the meters, reports the readings on time, and waits until the last one is final.

use std::sync::Arc;

use chrono::Utc;
use futures_util::{StreamExt, TryStreamExt, stream};
use rust_decimal::Decimal;
use tokio::time::{Instant, sleep_until};

use super::api_client::{ApiClient, ApiError};
use super::data_file::Day;
use super::listener::start_listening;
use super::plan::{PlannedMeter, PlannedReport, Replay};
use super::progress::Progress;
use super::reading_tracker::{Counts, LatencyMs, ReadingTracker};
use super::replay_error::ReplayError;
use super::schedule::Speed;
use super::settle::settle;
use super::target::Target;

/// Meters registered at a time: for each the service queries the chain about its wallet.
const REGISTRATIONS_AT_ONCE: usize = 16;
/// Submissions under way at a time. At the meters' pace a handful would do; the rest is for a service that stalls.
const SUBMISSIONS_AT_ONCE: usize = 64;
/// At full speed: enough to keep the service's group commit full.
const SUBMISSIONS_AT_ONCE_MAX: usize = 256;

/// The result of a replay: every accepted reading is finalized or has failed.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub counts: Counts,
    /// Sum of the minted and finalized readings of the replay, base units.
    pub base_units_minted: Decimal,
    pub latency_ms: LatencyMs,
    /// Some of the reasons why submissions were refused.
    pub refusals: Vec<String>,
}

impl Replay {
    /// Ends when every reading was answered and every accepted one is final, or has failed permanently. To end it earlier, drop
    /// it: nothing that is under way needs to be finished.
    pub async fn run(self, target: Target) -> Result<Outcome, ReplayError> {
        let readings = self.readings();
        let progress = Arc::new(Progress::new(readings));
        let tracker = Arc::new(ReadingTracker::default());
        progress.line(&format!(
            "Playing {}: {readings} readings of {} meters at speed {}",
            self.day,
            self.meters.len(),
            self.speed
        ));
        register(&self.meters, &target.api).await?;
        // Aborted when dropped.
        let _listener = start_listening(&target, &tracker, &progress).await;

        let concurrency = match self.speed {
            Speed::Times(_) => SUBMISSIONS_AT_ONCE,
            Speed::Max => SUBMISSIONS_AT_ONCE_MAX,
        };
        let meter = match self.day {
            Day::One(_) => self.meters.first().map(|meter| meter.serial.as_str()),
            Day::Fleet => None,
        };
        let whole = async {
            report(&self.reports, &target.api, &tracker, concurrency).await?;
            settle(meter, &target, &tracker, &progress).await
        };
        tokio::select! {
            ended = whole => ended?,
            () = progress.show(&tracker, readings) => {}
        }
        progress.close(tracker.counts(), readings);
        Ok(Outcome {
            counts: tracker.counts(),
            base_units_minted: tracker.base_units_minted(),
            latency_ms: tracker.latency_ms(),
            refusals: tracker.refusals(),
        })
    }
}

async fn register(meters: &[PlannedMeter], api: &ApiClient) -> Result<(), ReplayError> {
    stream::iter(meters)
        .map(|meter| async move {
            let registered = api.register(&meter.serial, &meter.wallet).await;
            registered.map_err(|source| ReplayError::Register {
                meter: meter.serial.clone(),
                source,
            })
        })
        .buffer_unordered(REGISTRATIONS_AT_ONCE)
        .try_collect()
        .await
}

/// Submits each reading when it is due.
async fn report(
    reports: &[PlannedReport],
    api: &ApiClient,
    tracker: &ReadingTracker,
    concurrency: usize,
) -> Result<(), ReplayError> {
    let started = Instant::now();
    stream::iter(reports)
        .then(|report| async move {
            // At a speed so low that the next report lies beyond the platform's time, it is never due.
            if let Some(due) = started.checked_add(report.due_after) {
                sleep_until(due).await;
            } else {
                std::future::pending::<()>().await;
            }
            &report.submission
        })
        .map(|submission| async move {
            let called_at = Utc::now();
            match api.submit(submission).await {
                Ok(acceptance) => tracker.accept(acceptance, called_at),
                Err(ApiError::Refused { status, reason }) => {
                    tracker.refuse(format!("meter {}, {status}: {reason}", submission.meter))
                }
                Err(error) => return Err(ReplayError::Api(error)),
            }
            Ok(())
        })
        .buffer_unordered(concurrency)
        .try_collect()
        .await
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use axum::Json;
    use axum::routing::{get, post};
    use futures_util::SinkExt;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;
    use tokio::time::timeout;
    use tokio_tungstenite::accept_async;
    use tokio_tungstenite::tungstenite::Message;
    use uuid::Uuid;

    use super::super::plan::test_plan;
    use super::*;
    use crate::commands::tokens::test_tokens;

    /// Accepts everything, and reports every reading as finalized when queried.
    fn silent_service(accepted: Arc<Mutex<Vec<Uuid>>>) -> axum::Router {
        let listed = accepted.clone();
        let submit = async move |Json(_): Json<Value>| {
            let id = Uuid::now_v7();
            accepted.lock().unwrap().push(id);
            Json(json!({
                "success": true, "message": "", "reading_id": id, "duplicate": false,
                "state": "pending", "base_units": "1000",
            }))
        };
        let list = async move || {
            let line = |id: &Uuid| json!({"reading_id": id, "state": "finalized"});
            let readings: Vec<Value> = listed.lock().unwrap().iter().map(line).collect();
            Json(json!({"readings": readings, "next": null}))
        };
        axum::Router::new()
            .route("/api/meters", post(async || Json(json!({}))))
            .route("/api/meters/submit-reading", post(submit))
            .route("/api/readings", get(list))
    }

    /// Greets each client of the feed and sends no events.
    async fn silent_feed(listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = accept_async(stream).await.unwrap();
                let hello = json!({"type": "hello", "connection_id": "c", "seq": 0});
                socket.send(Message::text(hello.to_string())).await.unwrap();
                while socket.next().await.is_some() {}
            });
        }
    }

    #[tokio::test]
    async fn events_that_never_come_do_not_hang_the_replay() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let feed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let feed_address = feed.local_addr().unwrap();
        let feed = tokio::spawn(silent_feed(feed));
        let service = silent_service(Arc::default());
        let server = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        let tokens = Arc::new(test_tokens());
        let target = Target {
            api: ApiClient::new(&format!("http://{address}"), tokens.clone()).unwrap(),
            ws_url: format!("ws://{feed_address}/ws"),
            tokens,
            give_up_after: None,
        };
        let replay = test_plan("2011-12-24".parse().unwrap(), Speed::Max);
        let readings = replay.readings();

        let outcome = timeout(Duration::from_secs(30), replay.run(target))
            .await
            .unwrap()
            .unwrap();

        let counts = outcome.counts;
        assert_eq!((counts.submitted, counts.accepted), (readings, readings));
        assert_eq!((counts.minted, counts.finalized), (readings, readings));
        assert_eq!(outcome.base_units_minted, Decimal::from(1000 * readings));
        assert_eq!(outcome.latency_ms, LatencyMs::default());
        server.abort();
        feed.abort();
    }
}
