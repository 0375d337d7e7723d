//! An action of an admin and its log entry commit together or not at all, and every change of the log is detected.

use futures_util::future::join_all;
use gridtokenx::meters::Role;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::admin_log::entries;
use crate::support::audit::difference;
use crate::support::{Api, Grid};

const TOGGLE: &str = "/api/admin/tokenization/toggle-auto-mint";
const PERCENTAGE: &str = "/api/admin/tokenization/auto-mint-percentage";

/// As an outsider computes it, from the API's answer and `docs/admin-log.md` alone.
fn hash_of(entry: &Value) -> String {
    let text = |member: &str| entry[member].as_str().unwrap().to_owned();
    let at: chrono::DateTime<chrono::Utc> = text("at").parse().unwrap();
    let previous = text("previous_hash");
    let previous: Vec<u8> = (0..32)
        .map(|byte| u8::from_str_radix(&previous[2 * byte..2 * byte + 2], 16).unwrap())
        .collect();
    let mut hasher = Sha256::new();
    hasher.update(b"gridtokenx admin log 1");
    hasher.update(previous);
    hasher.update(entry["number"].as_u64().unwrap().to_be_bytes());
    hasher.update(at.timestamp_micros().to_be_bytes());
    for text in [text("actor"), text("action"), entry["details"].to_string()] {
        hasher.update((text.len() as u32).to_be_bytes());
        hasher.update(text);
    }
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn chained(entries: &[Value]) {
    let mut previous = "0".repeat(64);
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!(entry["number"], index + 1);
        assert_eq!(entry["previous_hash"], previous, "{entry}");
        assert_eq!(entry["hash"], hash_of(entry), "{entry}");
        previous = entry["hash"].as_str().unwrap().to_owned();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_admins_did_is_listed_in_order_and_its_hashes_can_be_recomputed() {
    let grid = Grid::start().await;
    let admin = grid.admin();
    let other = Api::new(&grid.api_url(), "Ölmüller \"Ö\"", Role::Admin);
    assert!(entries(&admin).await.is_empty());
    let report = grid.audit_holds().await;
    assert_eq!(report["admin_log"]["entries"], 0);

    for (who, path, body) in [
        (&admin, TOGGLE, json!({"enabled": false})),
        // Changes nothing, and is logged.
        (&other, TOGGLE, json!({"enabled": false, "unknown": 1})),
        (&other, PERCENTAGE, json!({"percentage": 30})),
        (&admin, TOGGLE, json!({"enabled": true})),
    ] {
        who.post(path, &body).await.ok();
    }
    // Refused, and not logged.
    for (path, body) in [
        (PERCENTAGE, json!({"percentage": 101})),
        (PERCENTAGE, json!({"percentage": -1})),
        (PERCENTAGE, json!({"percentage": 30.5})),
        (PERCENTAGE, json!({"percentage": "30"})),
        (PERCENTAGE, json!({})),
        (TOGGLE, json!({"enabled": "no"})),
        (TOGGLE, json!({})),
    ] {
        let answer = admin.post(path, &body).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
    }

    let log = entries(&admin).await;
    chained(&log);
    let listed: Vec<(&str, &str, String)> = log
        .iter()
        .map(|entry| {
            let text = |member: &str| entry[member].as_str().unwrap();
            (text("actor"), text("action"), entry["details"].to_string())
        })
        .collect();
    let off = r#"{"enabled":false}"#.to_owned();
    assert_eq!(
        listed,
        [
            ("an admin", "toggle_auto_mint", off.clone()),
            ("Ölmüller \"Ö\"", "toggle_auto_mint", off),
            (
                "Ölmüller \"Ö\"",
                "set_auto_mint_percentage",
                r#"{"percentage":30}"#.to_owned()
            ),
            (
                "an admin",
                "toggle_auto_mint",
                r#"{"enabled":true}"#.to_owned()
            ),
        ]
    );
    let report = grid.audit_holds().await;
    let last = log.last().unwrap();
    assert_eq!(
        report["admin_log"],
        json!({"ok": true, "entries": 4, "last_hash": last["hash"]})
    );
    for query in ["after=-1", "after=x", "limit=0", "limit=501"] {
        let answer = admin.get(&format!("/api/admin/log?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_admins_decide_and_read() {
    let grid = Grid::start().await;
    let user = grid.user("prosumer");
    let reading = format!(
        "/api/admin/tokenization/readings/{}/retry",
        uuid::Uuid::now_v7()
    );
    let signature = solana_sdk::signature::Signature::from([7; 64]);
    let transaction = format!("/api/admin/tokenization/transactions/{signature}/resolve");
    let http = reqwest::Client::new();
    for (path, body) in [
        (TOGGLE, json!({"enabled": false})),
        (PERCENTAGE, json!({"percentage": 1})),
        (&reading, json!({})),
        (
            &transaction,
            json!({"outcome": "dead", "reason": "because"}),
        ),
    ] {
        assert_eq!(user.post(path, &body).await.status, 403, "{path}");
        let stranger = http.post(format!("{}{path}", grid.api_url())).json(&body);
        assert_eq!(stranger.send().await.unwrap().status(), 401, "{path}");
    }
    assert_eq!(user.get("/api/admin/log").await.status, 403);
    let stranger = http.get(format!("{}/api/admin/log", grid.api_url()));
    assert_eq!(stranger.send().await.unwrap().status(), 401);
    assert!(entries(&grid.admin()).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn admins_of_two_processes_at_once_leave_one_chain() {
    let grid = Grid::without_service(&[]).await;
    let (one, other) = (grid.spawn(&[]).await, grid.spawn(&[]).await);
    let actions = (0..20).map(|index| {
        let admin = if index % 2 == 0 { &one } else { &other }.admin();
        async move {
            let body = json!({"percentage": index});
            admin.post(PERCENTAGE, &body).await.ok();
        }
    });
    join_all(actions).await;
    let log = entries(&one.admin()).await;
    assert_eq!(log.len(), 20);
    chained(&log);
    // The settings are what the last one set: actions and entries were in one order.
    let last = &log[19]["details"]["percentage"];
    let status = one.admin().get("/api/admin/tokenization/status").await.ok();
    assert_eq!(&status["auto_mint_percentage"], last);
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_whose_process_is_killed_leaves_neither_a_change_nor_an_entry() {
    let grid = Grid::without_service(&[("TOKENIZATION_AUTO_MINT_ENABLED", "false")]).await;
    let mut server = grid
        .spawn(&[("FAILPOINTS", "admin.before_retry_commit=return(kill)")])
        .await;
    let reading = server.user("prosumer").meter().await.report("1").await;
    let path = format!("/api/admin/tokenization/readings/{reading}/retry");
    let answer = server.admin().try_post(&path, &json!({})).await;
    assert!(answer.is_err(), "{answer:?}");
    server.ended().await;
    let revision: i64 = sqlx::query_scalar("SELECT revision FROM readings")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(revision, 0);
    let next = grid.spawn(&[]).await;
    assert!(entries(&next.admin()).await.is_empty());
    next.admin().post(&path, &json!({})).await.ok();
    chained(&entries(&next.admin()).await);
    grid.audit_holds().await;
}

/// A log of five entries, on a service that is stopped.
async fn five_entries() -> Grid {
    let mut grid = Grid::start().await;
    for percentage in [10, 20, 30, 40, 50] {
        let body = json!({"percentage": percentage});
        grid.admin().post(PERCENTAGE, &body).await.ok();
    }
    grid.stop().await;
    grid
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_refuses_to_change_the_log() {
    let grid = five_entries().await;
    for (statement, refusal) in [
        ("UPDATE admin_log SET actor = 'nobody'", "append-only"),
        // Even where nothing would change.
        (
            "UPDATE admin_log SET actor = 'x' WHERE FALSE",
            "append-only",
        ),
        ("DELETE FROM admin_log WHERE number = 5", "append-only"),
        ("TRUNCATE admin_log", "append-only"),
        ("DELETE FROM admin_log_head", "append-only"),
        ("TRUNCATE admin_log_head", "append-only"),
        (
            "UPDATE admin_log_head SET last_number = 4",
            "moves from 5 to 6 only",
        ),
        (
            "SET session_replication_role = replica; DELETE FROM admin_log",
            "append-only",
        ),
    ] {
        let mut connection = grid.pool.acquire().await.unwrap().detach();
        let refused = sqlx::raw_sql(statement).execute(&mut connection).await;
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(refusal), "{statement}: {error}");
    }
    let report = grid.audit_holds().await;
    assert_eq!(report["admin_log"]["entries"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_around_the_triggers_is_found_and_the_entry_named() {
    let grid = five_entries().await;
    let execute = async |statement: &'static str| {
        sqlx::raw_sql(statement).execute(&grid.pool).await.unwrap();
    };
    execute(
        "ALTER TABLE admin_log DISABLE TRIGGER ALL;
         ALTER TABLE admin_log_head DISABLE TRIGGER ALL;
         CREATE TABLE written AS TABLE admin_log;
         CREATE TABLE written_head AS TABLE admin_log_head",
    )
    .await;
    for (change, number, reason) in [
        (
            "UPDATE admin_log SET actor = 'another admin' WHERE number = 3",
            3,
            "was changed",
        ),
        (
            "UPDATE admin_log SET details = '{\"percentage\":31}' WHERE number = 3",
            3,
            "was changed",
        ),
        (
            "UPDATE admin_log SET at = at + INTERVAL '1 microsecond' WHERE number = 1",
            1,
            "was changed",
        ),
        (
            "UPDATE admin_log SET hash = sha256('x') WHERE number = 2",
            2,
            "was changed",
        ),
        (
            "UPDATE admin_log SET previous_hash = sha256('x') WHERE number = 2",
            2,
            "does not name the hash of the one before it",
        ),
        // The tail.
        ("DELETE FROM admin_log WHERE number = 5", 5, "is missing"),
        ("DELETE FROM admin_log", 1, "is missing"),
        // The middle, and the beginning.
        ("DELETE FROM admin_log WHERE number = 3", 3, "is missing"),
        ("DELETE FROM admin_log WHERE number = 1", 1, "is missing"),
        (
            "DELETE FROM admin_log WHERE number = 3;
             UPDATE admin_log SET number = number - 1 WHERE number = 4;
             UPDATE admin_log SET number = number - 1 WHERE number = 5;
             UPDATE admin_log_head SET last_number = 4",
            3,
            "does not name the hash of the one before it",
        ),
        // An entry without an actor.
        (
            "INSERT INTO admin_log
             SELECT 6, at, actor, action, details, hash, sha256('x') FROM admin_log WHERE number = 5",
            6,
            "was changed",
        ),
        (
            "UPDATE admin_log_head SET last_number = 3",
            4,
            "was not written by the service",
        ),
        (
            "UPDATE admin_log_head SET last_hash = sha256('x')",
            5,
            "is not the one that was written last",
        ),
        ("DELETE FROM admin_log_head", 6, "the head of the log is missing"),
    ] {
        execute(change).await;
        let report = grid.audit().await;
        let broken = difference(&report, "admin_log_broken");
        assert_eq!(broken["number"], number, "{change}: {broken}");
        let sentence = broken["message"].as_str().unwrap();
        assert!(sentence.contains(reason), "{change}: {sentence}");
        assert!(sentence.contains(&format!("entry {number} ")), "{sentence}");
        assert_eq!(report["admin_log"]["ok"], false);
        execute(
            "TRUNCATE admin_log; INSERT INTO admin_log TABLE written;
             TRUNCATE admin_log_head; INSERT INTO admin_log_head TABLE written_head",
        )
        .await;
    }
    grid.audit_holds().await;
}
