//! One performance: plan it, register the meters, report the readings in time, and wait until the last one is final.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use rust_decimal::Decimal;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::data_file::{DataFileError, Day, PlannedReading, readings_of};
use super::schedule::{Calendar, Speed, due_after};
use super::screen::Screen;
use super::service::{Service, ServiceError, Submission};
use super::tally::{Counts, LatencyMs, Tally};
use super::wallets::wallet_of;
use crate::commands::follow::{FeedMessage, Follow, FollowStep, follow};
use crate::commands::tokens::TokenSource;

/// Meters registered at a time: each asks the chain about its wallet.
const REGISTRATIONS_AT_ONCE: usize = 16;
/// Submissions under way at a time. In time with the meters a handful would do; the rest is for a service that stalls.
const SUBMISSIONS_AT_ONCE: usize = 64;
/// As fast as possible: enough to keep the service's group commit full.
const SUBMISSIONS_AT_ONCE_MAX: usize = 256;
/// How long the play waits for the feed before it begins without: states are re-checked over REST anyway.
const FEED_LIMIT: Duration = Duration::from_secs(10);
/// How long nothing may be heard before the service is asked. Finality takes about 12 s, in which events of other readings
/// keep coming, or nothing does.
const RECHECK_PERIOD: Duration = Duration::from_secs(5);
const RECHECK_PERIOD_LIMIT: Duration = Duration::from_secs(30);
/// Nothing new for so long: an answer of the chain takes seconds, proof that a transaction is dead two minutes.
pub const STALL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Why a play ended early.
#[derive(Debug, Error)]
pub enum PlayError {
    #[error(transparent)]
    DataFile(#[from] DataFileError),
    #[error("meter {meter} cannot be registered: {source}")]
    Register { meter: String, source: ServiceError },
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error(
        "{open} of {accepted} accepted readings are not final and nothing has changed for {} minutes; see `GET /api/readings/{{id}}/timeline` for what they wait for", .limit.as_secs() / 60
    )]
    Stalled {
        open: u64,
        accepted: u64,
        limit: Duration,
    },
}

/// What is going to be reported, by which meters, when.
pub struct Play {
    day: Day,
    speed: Speed,
    /// Serial and wallet.
    meters: Vec<(String, String)>,
    /// In the order in which they are due.
    reports: Vec<Report>,
}

struct Report {
    submission: Submission,
    due_after: Duration,
}

/// Whom the play talks to.
pub struct Stage {
    pub service: Service,
    pub ws_url: String,
    pub tokens: Arc<TokenSource>,
    /// End the play when nothing changes for so long; `None`: say so and wait on.
    pub give_up_after: Option<Duration>,
}

/// How it went: every accepted reading is finalized or has failed.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub counts: Counts,
    /// Sum of the minted and finalized readings of the play, base units.
    pub base_units_minted: Decimal,
    pub latency_ms: LatencyMs,
    /// Some of the reasons why submissions were refused.
    pub refusals: Vec<String>,
}

impl Play {
    pub fn plan(
        day: Day,
        speed: Speed,
        calendar: Calendar,
        seed: &[u8; 32],
    ) -> Result<Play, PlayError> {
        let planned = readings_of(day)?;
        let mut meters: Vec<(String, String)> = Vec::new();
        for reading in &planned {
            if meters
                .last()
                .is_none_or(|(serial, _)| *serial != reading.meter)
            {
                let wallet = wallet_of(seed, &reading.meter);
                meters.push((reading.meter.clone(), wallet));
            }
        }
        let reports = schedule(planned, &meters, speed, calendar);
        Ok(Play {
            day,
            speed,
            meters,
            reports,
        })
    }

    pub fn day(&self) -> Day {
        self.day
    }

    pub fn readings(&self) -> u64 {
        self.reports.len() as u64
    }

    /// Start of the oldest interval; `None` for a day without sun.
    pub fn oldest_start(&self) -> Option<DateTime<Utc>> {
        self.reports
            .iter()
            .map(|report| report.submission.start)
            .min()
    }

    /// Ends when every reading was answered and every accepted one is final, or has failed for good. Whoever wants it to end
    /// earlier drops it: nothing that it has under way must be finished.
    pub async fn perform(self, stage: Stage) -> Result<Outcome, PlayError> {
        let readings = self.readings();
        let screen = Arc::new(Screen::new(readings));
        let tally = Arc::new(Tally::default());
        screen.say(&format!(
            "Playing {}: {readings} readings of {} meters at speed {}",
            self.day,
            self.meters.len(),
            self.speed
        ));
        register(&self.meters, &stage.service).await?;
        // Aborted when dropped.
        let mut listener = JoinSet::new();
        listen(&mut listener, &stage, &tally, &screen).await;

        let concurrency = match self.speed {
            Speed::Times(_) => SUBMISSIONS_AT_ONCE,
            Speed::Max => SUBMISSIONS_AT_ONCE_MAX,
        };
        let meter = match self.day {
            Day::One(_) => self.meters.first().map(|(serial, _)| serial.as_str()),
            Day::Fleet => None,
        };
        let show = screen.show(&tally, readings);
        let whole = async {
            report(&self.reports, &stage.service, &tally, concurrency).await?;
            settle(meter, &stage, &tally, &screen).await
        };
        tokio::select! {
            ended = whole => ended?,
            () = show => {}
        }
        screen.close(tally.counts(), readings);
        Ok(Outcome {
            counts: tally.counts(),
            base_units_minted: tally.base_units_minted(),
            latency_ms: tally.latency_ms(),
            refusals: tally.refusals(),
        })
    }
}

fn schedule(
    planned: Vec<PlannedReading>,
    meters: &[(String, String)],
    speed: Speed,
    calendar: Calendar,
) -> Vec<Report> {
    let index_of: HashMap<&str, usize> = meters
        .iter()
        .enumerate()
        .map(|(index, (serial, _))| (serial.as_str(), index))
        .collect();
    let first_end = planned
        .iter()
        .map(|reading| calendar.interval_of(reading.local_start).1)
        .min()
        .unwrap_or_default();
    let mut reports: Vec<(TimeDelta, usize, Report)> = planned
        .into_iter()
        .map(|reading| {
            let (start, end) = calendar.interval_of(reading.local_start);
            let since_first_end = end - first_end;
            let meter_index = index_of
                .get(reading.meter.as_str())
                .copied()
                .unwrap_or_default();
            let due_after = due_after(speed, since_first_end, meter_index, meters.len());
            let submission = Submission {
                meter: reading.meter,
                kwh: reading.kwh,
                start,
                end,
            };
            (
                since_first_end,
                meter_index,
                Report {
                    submission,
                    due_after,
                },
            )
        })
        .collect();
    reports.sort_by_key(|(since_first_end, meter_index, _)| (*since_first_end, *meter_index));
    reports.into_iter().map(|(_, _, report)| report).collect()
}

async fn register(meters: &[(String, String)], service: &Service) -> Result<(), PlayError> {
    stream::iter(meters)
        .map(|(serial, wallet)| async move {
            let registered = service.register(serial, wallet).await;
            registered.map_err(|source| PlayError::Register {
                meter: serial.clone(),
                source,
            })
        })
        .buffer_unordered(REGISTRATIONS_AT_ONCE)
        .try_collect()
        .await
}

/// Follows the feed into the tally; returns once it is live.
async fn listen(
    listener: &mut JoinSet<()>,
    stage: &Stage,
    tally: &Arc<Tally>,
    screen: &Arc<Screen>,
) {
    let (live, is_live) = oneshot::channel();
    let mut live = Some(live);
    let (tokens, tally, teller) = (stage.tokens.clone(), tally.clone(), screen.clone());
    let target = Follow {
        ws_url: stage.ws_url.clone(),
        after: None,
    };
    listener.spawn(async move {
        let followed = follow(
            target,
            &tokens,
            &CancellationToken::new(),
            |step| match step {
                FollowStep::Connected { .. } => {
                    live.take().map(|live| live.send(()));
                }
                FollowStep::Event { message, .. } => {
                    match (message.r#type.as_str(), message.reading_id) {
                        ("TokensMinted", Some(id)) => tally.minted(id, minted_at(&message)),
                        ("MintFinalized", Some(id)) => tally.finalized(id),
                        // A failed mint may be tried again: the re-check tells what became of it.
                        _ => {}
                    }
                }
                FollowStep::Disconnected { reason, .. } => {
                    teller.say(&format!(
                        "The event feed was cut off ({reason}); it goes on where it was."
                    ));
                }
                FollowStep::Gap { .. } | FollowStep::Remark { .. } => {}
            },
        )
        .await;
        if let Err(error) = followed {
            teller.say(&format!("{error}; asking for the states instead."));
        }
    });
    if !matches!(timeout(FEED_LIMIT, is_live).await, Ok(Ok(()))) {
        screen.say("The event feed is not there yet; beginning without it.");
    }
}

/// When the event happened; when it came, should it not say so.
fn minted_at(message: &FeedMessage) -> DateTime<Utc> {
    message
        .timestamp
        .as_deref()
        .and_then(|timestamp| DateTime::parse_from_rfc3339(timestamp).ok())
        .map_or_else(Utc::now, |timestamp| timestamp.to_utc())
}

/// Submits each reading when it is due.
async fn report(
    reports: &[Report],
    service: &Service,
    tally: &Tally,
    concurrency: usize,
) -> Result<(), PlayError> {
    let begin = Instant::now();
    stream::iter(reports)
        .then(|report| async move {
            // A clock so slow that its next tick lies beyond the platform's time never rings.
            if let Some(due) = begin.checked_add(report.due_after) {
                sleep_until(due).await;
            } else {
                std::future::pending::<()>().await;
            }
            &report.submission
        })
        .map(|submission| async move {
            let called_at = Utc::now();
            match service.submit(submission).await {
                Ok(acceptance) => tally.accept(acceptance, called_at),
                Err(ServiceError::Refused { status, reason }) => {
                    tally.refuse(format!("meter {}, {status}: {reason}", submission.meter))
                }
                Err(error) => return Err(PlayError::Service(error)),
            }
            Ok(())
        })
        .buffer_unordered(concurrency)
        .try_collect()
        .await
}

/// Waits until no accepted reading is open. Events do most of it; when they pause, the service is asked.
async fn settle(
    meter: Option<&str>,
    stage: &Stage,
    tally: &Tally,
    screen: &Screen,
) -> Result<(), PlayError> {
    let mut last_counts = tally.counts();
    let mut last_change = Instant::now();
    let mut period = RECHECK_PERIOD;
    let mut next_recheck = last_change + period;
    let mut is_stall_told = false;
    loop {
        let counts = tally.counts();
        if counts.open() == 0 {
            return Ok(());
        }
        if counts != last_counts {
            (last_counts, last_change, is_stall_told) = (counts, Instant::now(), false);
            period = RECHECK_PERIOD;
            next_recheck = last_change + period;
        }
        if last_change.elapsed() >= stage.give_up_after.unwrap_or(STALL_LIMIT) && !is_stall_told {
            let limit = last_change.elapsed();
            let stalled = PlayError::Stalled {
                open: counts.open(),
                accepted: counts.accepted,
                limit,
            };
            if stage.give_up_after.is_some() {
                return Err(stalled);
            }
            screen.say(&stalled.to_string());
            is_stall_told = true;
        }
        if Instant::now() >= next_recheck {
            recheck(meter, &stage.service, tally).await?;
            period = (period * 2).min(RECHECK_PERIOD_LIMIT);
            next_recheck = Instant::now() + period;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Asks for the state of every reading: a missed event, a gap in the feed or a fork leaves nothing behind.
async fn recheck(meter: Option<&str>, service: &Service, tally: &Tally) -> Result<(), PlayError> {
    let mut after = None;
    loop {
        let page = service.readings(meter, after.as_deref()).await?;
        for reading in &page.readings {
            tally.found(reading.reading_id, reading.state);
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::Json;
    use axum::extract::WebSocketUpgrade;
    use axum::routing::{get, post};
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::commands::tokens::test_tokens;

    fn plan(day: Day, speed: Speed) -> Play {
        let calendar = Calendar::before("2026-11-25T04:12:55Z".parse().unwrap());
        Play::plan(day, speed, calendar, &[1; 32]).unwrap()
    }

    /// Accepts everything, tells nothing over the feed, and knows every reading as finalized when asked.
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
        let hello = async |upgrade: WebSocketUpgrade| {
            upgrade.on_upgrade(async |mut socket| {
                let hello = json!({"type": "hello", "connection_id": "c", "seq": 0});
                socket.send(hello.to_string().into()).await.unwrap();
                while socket.recv().await.is_some() {}
            })
        };
        axum::Router::new()
            .route("/api/meters", post(async || Json(json!({}))))
            .route("/api/meters/submit-reading", post(submit))
            .route("/api/readings", get(list))
            .route("/ws", get(hello))
    }

    #[tokio::test]
    async fn events_that_never_come_do_not_hang_the_play() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = silent_service(Arc::default());
        let server = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        let tokens = Arc::new(test_tokens());
        let stage = Stage {
            service: Service::new(&format!("http://{address}"), tokens.clone()).unwrap(),
            ws_url: format!("ws://{address}/ws"),
            tokens,
            give_up_after: None,
        };
        let play = plan("2011-12-24".parse().unwrap(), Speed::Max);
        let readings = play.readings();

        let outcome = timeout(Duration::from_secs(30), play.perform(stage))
            .await
            .unwrap()
            .unwrap();

        let counts = outcome.counts;
        assert_eq!((counts.submitted, counts.accepted), (readings, readings));
        assert_eq!((counts.minted, counts.finalized), (readings, readings));
        assert_eq!(outcome.base_units_minted, Decimal::from(1000 * readings));
        assert_eq!(outcome.latency_ms, LatencyMs::default());
        server.abort();
    }

    #[test]
    fn the_fleet_reports_each_meter_in_its_own_moment_and_all_in_order() {
        let play = plan(Day::Fleet, Speed::DEFAULT);

        assert_eq!((play.meters.len(), play.readings()), (366, 8_380));
        assert!(play.reports.is_sorted_by_key(|report| report.due_after));
        assert!(
            play.reports
                .is_sorted_by_key(|report| report.submission.end)
        );
        assert_eq!(
            play.reports[0].submission.start,
            play.oldest_start().unwrap()
        );
        let last = &play.reports[8_379];
        assert!(
            last.due_after <= Duration::from_secs(60),
            "{:?}",
            last.due_after
        );
        // As many meters as wallets.
        let wallets: std::collections::HashSet<&str> = play
            .meters
            .iter()
            .map(|(_, wallet)| wallet.as_str())
            .collect();
        assert_eq!(wallets.len(), 366);
    }

    #[test]
    fn a_day_of_one_meter_lies_within_the_24_hours_before_the_first_start() {
        let play = plan("2011-12-24".parse().unwrap(), Speed::Max);

        assert_eq!(play.meters.len(), 1);
        for report in &play.reports {
            assert!(
                report.submission.start >= "2026-11-24T04:00:00Z".parse::<DateTime<Utc>>().unwrap()
            );
            assert!(
                report.submission.end <= "2026-11-25T04:00:00Z".parse::<DateTime<Utc>>().unwrap()
            );
            assert_eq!(
                report.submission.end - report.submission.start,
                TimeDelta::minutes(30)
            );
            assert_eq!(report.due_after, Duration::ZERO);
        }
    }
}
