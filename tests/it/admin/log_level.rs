//! An admin changes what all processes log, for a while.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::admin_log::entries;
use crate::support::secrets::assert_absent;
use crate::support::world::world;
use crate::support::{CallAction, Grid, Proxy, Server, eventually};

/// The resolver's rounds, in the log of periodic tasks.
const RESOLVER: &str = "resolver rounds";
const FAILS: &str = "periodic task failed";
const RECOVERED: &str = "periodic task recovered";

const INFO: &[(&str, &str)] = &[("LOG_LEVEL", "info"), ("LOG_FORMAT", "json")];

/// Lines of a JSON log.
fn lines(server: &Server) -> Vec<Value> {
    server
        .log()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn changes(server: &Server) -> Vec<String> {
    lines(server)
        .iter()
        .filter(|line| line["message"] == "log level changed")
        .map(|line| line["log_level"].as_str().unwrap().to_owned())
        .collect()
}

fn lines_where(server: &Server, member: &str, value: &str) -> Vec<Value> {
    let mut lines = lines(server);
    lines.retain(|line| line[member] == value);
    lines
}

fn resolver_lines(server: &Server, message: &str) -> Vec<Value> {
    let mut lines = lines_where(server, "message", message);
    lines.retain(|line| line["task"] == RESOLVER);
    lines
}

/// Waits until the log has more than `before` lines with this message of the resolver.
async fn until_logged_again(server: &Server, message: &str, before: usize) {
    eventually(&format!("{message:?} is logged"), async || {
        (resolver_lines(server, message).len() > before).then_some(())
    })
    .await;
}

async fn until_changed(server: &Server, levels: &[&str]) {
    eventually(&format!("the log level was {levels:?}"), async || {
        (changes(server) == levels).then_some(())
    })
    .await;
}

fn debug_lines(server: &Server) -> usize {
    lines(server)
        .iter()
        .filter(|line| line["level"] == "DEBUG")
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_holds_in_all_processes_and_ends() {
    let grid = Grid::without_service(&[]).await;
    let (one, other) = (grid.spawn(INFO).await, grid.spawn(INFO).await);
    let admin = one.admin();
    const DEBUG: &str = "info,gridtokenx=debug";
    let set = admin
        .post(
            "/api/admin/log-level",
            &json!({ "level": DEBUG, "minutes": 5 }),
        )
        .await
        .ok();
    assert_eq!(set["level"], DEBUG);
    assert_eq!(other.admin().get("/api/admin/log-level").await.ok(), set);
    for server in [&one, &other] {
        until_changed(server, &[DEBUG]).await;
    }
    let late = grid.spawn(INFO).await;
    until_changed(&late, &[DEBUG]).await;

    // It expires.
    sqlx::query("UPDATE settings SET log_level_until = now() - INTERVAL '1 second'")
        .execute(&grid.pool)
        .await
        .unwrap();
    for server in [&one, &other, &late] {
        until_changed(server, &[DEBUG, "info"]).await;
    }
    assert_eq!(
        admin.get("/api/admin/log-level").await.ok()["level"],
        Value::Null
    );

    admin
        .post("/api/admin/log-level", &json!({ "level": "warn" }))
        .await
        .ok();
    until_changed(&other, &[DEBUG, "info", "warn"]).await;
    admin
        .post("/api/admin/log-level", &json!({ "level": null }))
        .await
        .ok();
    until_changed(&other, &[DEBUG, "info", "warn", "info"]).await;

    let entries = entries(&admin).await;
    let details: Vec<&Value> = entries
        .iter()
        .filter(|entry| entry["action"] == "set_log_level")
        .map(|entry| &entry["details"])
        .collect();
    let expected = [
        json!({ "level": DEBUG, "minutes": 5 }),
        json!({ "level": "warn", "minutes": 60 }),
        json!({ "level": null, "minutes": null }),
    ];
    assert_eq!(details, expected.iter().collect::<Vec<_>>(), "{entries:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_level_is_refused_and_users_change_nothing() {
    let grid = Grid::start().await;
    let admin = grid.admin();
    for (body, named) in [
        (json!({ "level": "loud" }), "loud"),
        (json!({ "level": "gridtokenx=noisy" }), "noisy"),
        (json!({ "level": "x".repeat(301) }), "300 characters"),
        (json!({ "level": "debug", "minutes": 0 }), "minutes 0"),
        (json!({ "level": "debug", "minutes": 1441 }), "minutes 1441"),
        (json!({ "level": "debug", "minutes": -1 }), "minutes -1"),
    ] {
        let refused = admin.post("/api/admin/log-level", &body).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        let sentence = refused.body["error"].as_str().unwrap();
        assert!(sentence.contains(named), "{sentence}");
    }
    let user = grid.user("prosumer");
    let body = json!({ "level": "debug" });
    assert_eq!(user.post("/api/admin/log-level", &body).await.status, 403);
    assert_eq!(user.get("/api/admin/log-level").await.status, 403);
    let stored: Option<String> = sqlx::query_scalar("SELECT log_level FROM settings")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(stored, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_a_job_leave_one_line_each_and_no_secret_is_in_them() {
    let api_key = Uuid::new_v4().simple().to_string();
    let proxy = Proxy::start(world().rpc_url()).await;
    let grid = Grid::on_chain(&format!("{}/?api-key={api_key}", proxy.url), &[]).await;
    let server = grid.spawn(INFO).await;
    let admin = server.admin();
    admin
        .post("/api/admin/log-level", &json!({ "level": "trace" }))
        .await
        .ok();
    until_changed(&server, &["trace"]).await;
    let user = server.user("prosumer");
    let meter = user.meter().await;
    let mut readings = Vec::new();
    for _ in 0..3 {
        readings.push(meter.report("1").await);
    }
    let again = meter.next_submission("1");
    let bulk = json!({ "readings": [again, again, meter.next_submission("-1")] });
    user.post("/api/meters/submit-readings", &bulk).await.ok();
    // Refused requests too: an invalid token, and the answer to it.
    let mut stranger = user.clone();
    stranger.token = format!("{}x", user.token);
    assert_eq!(
        stranger.get("/api/admin/tokenization/status").await.status,
        401
    );
    grid.until_count("finalized", 4).await;
    let submissions = lines_where(&server, "route", "/api/meters/submit-reading");
    assert_eq!(submissions.len(), 3, "{submissions:#?}");
    for (line, reading) in submissions.iter().zip(&readings) {
        assert_eq!(line["status"], 200);
        assert_eq!(line["span"]["reading_id"], reading.as_str(), "{line}");
        assert!(line["duration_ms"].as_f64().is_some(), "{line}");
    }
    let bulk = &lines_where(&server, "route", "/api/meters/submit-readings")[0];
    for (field, count) in [("accepted", 1), ("duplicates", 1), ("rejected", 1)] {
        assert_eq!(bulk["span"][field], count, "{bulk}");
    }

    // The HTTP client puts the URL into its errors: no connection, an error status, an error of the node, no answer to read.
    let faults = [
        CallAction::Drop,
        CallAction::Status(500),
        CallAction::Error(-32000, "an error of the node"),
        CallAction::Answer(Value::Null),
    ];
    for fault in faults {
        let logged = |message| resolver_lines(&server, message).len();
        let (failed, recovered) = (logged(FAILS), logged(RECOVERED));
        proxy.on_call(move |method, _| match method {
            "getSignatureStatuses" => fault.clone(),
            _ => CallAction::Forward,
        });
        meter.report("1").await;
        until_logged_again(&server, FAILS, failed).await;
        proxy.forward_everything();
        until_logged_again(&server, RECOVERED, recovered).await;
    }
    for line in resolver_lines(&server, FAILS) {
        assert!(line["error"].as_str().unwrap().contains("rpc-1"), "{line}");
    }
    // And when all calls fail, as the status page shows it to admins.
    proxy.on_call(|_, _| CallAction::Drop);
    let shown = eventually("the chain breaker is open", async || {
        let status = admin.get("/api/admin/tokenization/status").await;
        (status.body["chain"]["state"] == "open").then(|| status.body.to_string())
    })
    .await;
    assert!(!shown.contains(&api_key), "{shown}");
    let ready = admin.get("/health/ready").await.body.to_string();
    assert!(!ready.contains(&api_key), "{ready}");
    meter.report("1").await;
    proxy.forward_everything();
    grid.until_count("finalized", 9).await;

    let jobs = lines_where(&server, "job", "MintReading");
    let ended: Vec<&Value> = jobs
        .iter()
        .filter(|line| line["message"] == "job ended" && line["outcome"] == "submitted")
        .collect();
    assert_eq!(ended.len(), 9, "{jobs:#?}");
    for line in &ended {
        assert!(line["duration_ms"].as_f64().unwrap() > 0.0, "{line}");
        assert!(
            line["reading_id"].is_string() && line["job_id"].is_string(),
            "{line}"
        );
    }
    for reading in &readings {
        let of_reading = |line: &&&Value| line["reading_id"] == reading.as_str();
        assert_eq!(ended.iter().filter(of_reading).count(), 1, "{ended:#?}");
    }
    assert!(debug_lines(&server) > 0, "it looked closely");

    let mut secrets = grid.secrets(&[&user, &admin, &stranger]);
    secrets.push(api_key);
    assert_absent(&server.log(), &secrets);
    grid.audit_holds().await;
}
