//! Each reading has one trace from its request to its finalized transaction, across processes, and a collector that hangs
//! delays nothing.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use chrono::{TimeDelta, Utc};
use gridtokenx::readings::first_id_at;
use gridtokenx::telemetry::traces;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::support::readings::count;
use crate::support::secrets::assert_absent;
use crate::support::world::world;
use crate::support::{Api, Collector, Exported, Grid, Meter, eventually};

const API: (&str, &str) = ("GRIDTOKENX_ROLE", "api");
const WORKER: (&str, &str) = ("GRIDTOKENX_ROLE", "worker");
/// Soon rather than in large batches.
const SOON: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "100");

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const UNSAMPLED: &str = "00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

// As the protocol numbers them.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

/// Reports with a `traceparent`; returns the reading's id and `traceresponse`, empty if there is none.
async fn report(meter: &Meter, traceparent: &str) -> (String, String) {
    let response = reqwest::Client::new()
        .post(format!("{}/api/meters/submit-reading", meter.api.url))
        .bearer_auth(&meter.api.token)
        .header("traceparent", traceparent)
        .json(&meter.next_submission("1"))
        .send()
        .await
        .unwrap();
    let traceresponse = response.headers().get("traceresponse");
    let traceresponse = traceresponse.map(|value| value.to_str().unwrap().to_owned());
    let body: Value = response.json().await.unwrap();
    let reading = body["reading_id"].as_str().unwrap().to_owned();
    (reading, traceresponse.unwrap_or_default())
}

/// Passes calls on to the chain; keeps the `traceparent` of each `sendTransaction`.
struct Tap {
    url: String,
    sends: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Line {
    http: reqwest::Client,
    sends: Arc<Mutex<Vec<String>>>,
}

impl Tap {
    async fn start() -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let line = Line {
            http: reqwest::Client::new(),
            sends: Arc::default(),
        };
        let sends = Arc::clone(&line.sends);
        let routes = Router::new().fallback(pass_on).with_state(line);
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Tap { url, sends, task }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(State(line): State<Line>, headers: HeaderMap, body: Bytes) -> Bytes {
    let call: Value = serde_json::from_slice(&body).unwrap();
    if call["method"] == "sendTransaction" {
        let traceparent = headers.get("traceparent");
        let traceparent = traceparent.map(|value| value.to_str().unwrap().to_owned());
        line.sends.lock().unwrap().extend(traceparent);
    }
    let passed = line.http.post(world().rpc_url()).body(body);
    let passed = passed.header("content-type", "application/json");
    passed.send().await.unwrap().bytes().await.unwrap()
}

/// The one span of a name.
fn one<'a>(spans: &'a [Exported], name: &str) -> &'a Exported {
    let mut found = spans.iter().filter(|span| span.name == name);
    let one = found.next().unwrap_or_else(|| panic!("no {name}"));
    assert!(found.next().is_none(), "more than one {name}: {spans:#?}");
    one
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_is_one_trace_from_its_request_to_its_finalized_transaction() {
    let (collector, tap) = (Collector::start().await, Tap::start().await);
    let endpoint = format!("http://key:of-the-collector@{}/", collector.address);
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        SOON,
        ("LOG_LEVEL", "warn"),
    ];
    let grid = Grid::on_chain(&tap.url, &settings).await;
    let (api, mut worker) = (grid.spawn(&[API]).await, grid.spawn(&[WORKER]).await);
    let user = api.user("prosumer");
    let meter = user.meter().await;

    let (unsampled, traceresponse) = report(&meter, UNSAMPLED).await;
    assert_eq!(traceresponse, "", "its caller wants no trace");
    let (reading, traceresponse) = report(&meter, &format!("00-{TRACE}-{CALLER}-01")).await;
    let own = meter.report("1").await;
    // Text that a client writes into its address, or a header, stays out of the traces.
    user.get("/api/readings?meter_id=a-secret-of-a-client")
        .await;
    grid.until_count("finalized", 3).await;
    let finalized = "finalize transaction";
    for reading in [&reading, &own] {
        let id = "gridtokenx.reading_id";
        collector.until(finalized, id, reading).await;
    }
    assert!(worker.terminate().await.success(), "its last spans are out");
    let spans = collector.spans();

    let of_trace: Vec<Exported> = spans
        .iter()
        .filter(|span| span.trace == TRACE)
        // Jobs may be run without effect before the one that submits.
        .filter(|span| span.attribute("gridtokenx.outcome") != "deferred")
        .cloned()
        .collect();
    let request = one(&of_trace, "POST /api/meters/submit-reading");
    assert_eq!(request.parent, CALLER);
    assert_eq!(traceresponse, format!("00-{TRACE}-{}-01", request.id));
    assert_eq!(request.span.kind, SERVER);
    assert_eq!(
        request.attribute("http.route"),
        "/api/meters/submit-reading"
    );
    assert_eq!(request.attribute("http.response.status_code"), "200");
    let submission = one(&of_trace, "submit reading");
    assert_eq!(submission.parent, request.id);
    assert_eq!(submission.span.kind, PRODUCER);
    assert_eq!(submission.attribute("gridtokenx.outcome"), "stored");
    let job = one(&of_trace, "mint reading");
    assert_eq!(job.span.kind, CONSUMER);
    assert_eq!(job.attribute("gridtokenx.outcome"), "submitted");
    assert_ne!(job.instance(), request.instance(), "another process");
    let sent = one(&of_trace, "send transaction");
    let confirmed = one(&of_trace, "confirm transaction");
    let finalized = one(&of_trace, finalized);
    assert_eq!(of_trace.len(), 6, "{of_trace:#?}");
    for step in [job, sent, confirmed, finalized] {
        assert_eq!(step.parent, submission.id, "{step:#?}");
        assert_eq!(step.attribute("gridtokenx.reading_id"), reading);
        assert!(step.span.start_time_unix_nano <= step.span.end_time_unix_nano);
    }
    let signature = sent.attribute("gridtokenx.signature");
    let view = user.get(&format!("/api/readings/{reading}")).await.ok();
    assert_eq!(view["transaction_signature"], signature);
    for step in [confirmed, finalized] {
        assert_eq!(step.attribute("gridtokenx.signature"), signature);
        assert_ne!(step.attribute("gridtokenx.slot"), "0");
    }
    assert!(confirmed.span.end_time_unix_nano <= finalized.span.end_time_unix_nano);

    // The transaction has a separate trace, which each of its readings is linked with, in both directions.
    let transaction = spans.iter().find(|span| {
        span.name == "mint transaction" && span.attribute("gridtokenx.signature") == signature
    });
    let transaction = transaction.unwrap();
    assert_ne!(transaction.trace, TRACE);
    let of_submission = (TRACE.to_owned(), submission.id.clone());
    assert!(transaction.links().contains(&of_submission));
    let of_transaction = (transaction.trace.clone(), transaction.id.clone());
    assert_eq!(sent.links(), [of_transaction]);
    let batch = spans.iter().find(|span| span.id == transaction.parent);
    assert_eq!(batch.unwrap().name, "mint batch");
    let call = spans
        .iter()
        .find(|span| span.parent == transaction.id && span.name == "sendTransaction");
    let call = call.unwrap();
    assert_eq!(call.span.kind, CLIENT);
    let traceparent = format!("00-{}-{}-01", call.trace, call.id);
    assert!(tap.sends.lock().unwrap().contains(&traceparent));

    // A reading without a caller's trace has its own; one whose caller's trace is not sampled has none.
    let of_own = spans
        .iter()
        .filter(|span| span.attribute("gridtokenx.reading_id") == own);
    let mut own_traces: Vec<&str> = of_own.map(|span| span.trace.as_str()).collect();
    assert!(own_traces.len() >= 5, "{own_traces:?}");
    own_traces.dedup();
    assert_eq!(own_traces.len(), 1, "{own_traces:?}");
    assert_ne!(own_traces, [TRACE]);
    let exported = format!("{spans:?}");
    assert!(!exported.contains(&unsampled));
    let stored = "SELECT count(*) FROM reading_traces";
    eventually("traces that are complete are not stored", async || {
        (count(&grid.pool, stored).await == 0).then_some(())
    })
    .await;

    for span in &spans {
        assert!(span.instance().starts_with("gridtokenx-"), "{span:?}");
    }
    assert!(
        !exported.contains("/v1/traces"),
        "the export itself is not a span"
    );
    assert!(!collector.authorizations().is_empty());
    assert_absent(&exported, &grid.secrets(&[&user]));
    for secret in [
        "of-the-collector",
        "a-secret-of-a-client",
        "Bearer",
        &meter.serial,
    ] {
        assert!(!exported.contains(secret), "{secret} is exported");
    }
    let log = worker.log();
    assert!(!log.contains("collector"), "{log}");
    grid.audit_holds().await;
}

/// Takes connections and never answers.
async fn hanging() -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    (url, task)
}

async fn spans_by_outcome(api: &Api, outcome: &str) -> u64 {
    let text = api.get_text("/metrics").await;
    let series = format!("gridtokenx_trace_spans_total{{outcome=\"{outcome}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&series));
    line.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_or_has_ended_delays_nothing() {
    let (hangs, _task) = hanging().await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = format!("http://{}", gone.local_addr().unwrap());
    let grid = Grid::without_service(&[SOON, ("LOG_LEVEL", "warn")]).await;
    const EXPORT_TO: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let mut one = grid.spawn(&[(EXPORT_TO, &hangs)]).await;
    let mut other = grid.spawn(&[(EXPORT_TO, &gone)]).await;
    let mut readings = 0;
    for server in [&one, &other] {
        let meter = server.user("prosumer").meter().await;
        for _ in 0..20 {
            let started = Instant::now();
            meter.report("0.5").await;
            readings += 1;
            assert!(started.elapsed() < Duration::from_secs(4));
        }
    }
    grid.until_count("finalized", readings).await;
    for server in [&one, &other] {
        let admin = server.admin();
        eventually("spans are lost", async || {
            (spans_by_outcome(&admin, "failed").await > 0).then_some(())
        })
        .await;
        assert_eq!(spans_by_outcome(&admin, "exported").await, 0);
    }
    for server in [&mut one, &mut other] {
        let started = Instant::now();
        assert!(server.terminate().await.success());
        let took = started.elapsed();
        assert!(took < Duration::from_secs(12), "{took:?}");
        let log = server.log();
        let complaints = log.lines().filter(|line| line.contains("collector"));
        assert_eq!(complaints.count(), 1, "{log}");
    }
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_nothing_is_kept_and_what_stays_behind_is_pruned() {
    let grid = Grid::start().await;
    let meter = grid.meter().await;
    let (_, traceresponse) = report(&meter, &format!("00-{TRACE}-{CALLER}-01")).await;
    assert_eq!(traceresponse, "");
    let stored = "SELECT count(*) FROM reading_traces";
    assert_eq!(count(&grid.pool, stored).await, 0);

    let limit = Utc::now() - TimeDelta::days(2);
    for id in [first_id_at(limit - TimeDelta::seconds(1)), Uuid::now_v7()] {
        sqlx::query("INSERT INTO reading_traces VALUES ($1, $2)")
            .bind(id)
            .bind(format!("00-{TRACE}-{CALLER}-01"))
            .execute(&grid.pool)
            .await
            .unwrap();
    }
    let pruned = traces::prune(&grid.pool, first_id_at(limit)).await.unwrap();
    assert_eq!(pruned, 1);
    assert_eq!(count(&grid.pool, stored).await, 1);
}
