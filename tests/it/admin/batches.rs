//! An admin's trigger mints all unminted readings now, each once, and reports the outcome of each.

use std::time::{Duration, Instant};

use gridtokenx::meters::Role;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::world::world;
use crate::support::{Api, CallAction, Grid, Proxy, Server, eventually, insert_backlog};

const TRIGGER: &str = "/api/admin/tokenization/trigger-batch";
const BATCHES: &str = "/api/admin/tokenization/batches";

/// Nothing is minted unless an admin triggers it.
const HELD: (&str, &str) = ("TOKENIZATION_AUTO_MINT_ENABLED", "false");
/// A sweep is a batch too, and would reach a failpoint before the one that a test triggers.
const NO_TICKS: (&str, &str) = ("TOKENIZATION_POLLING_INTERVAL_SECS", "86400");

fn admin_of(server: &Server) -> Api {
    Api::new(&server.api_url, "an admin", Role::Admin)
}

/// Triggers and waits for the end.
async fn trigger(admin: &Api, body: Value) -> Value {
    let answer = admin.post(TRIGGER, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

fn figures(batch: &Value) -> (u64, u64, u64) {
    let of = |member: &str| batch[member].as_u64().unwrap();
    assert_eq!(
        of("processed_readings"),
        of("successful_mints") + of("failed_mints") + of("waiting_mints")
    );
    (
        of("total_readings"),
        of("successful_mints"),
        of("failed_mints"),
    )
}

async fn ended(admin: &Api, batch: &str) -> Value {
    eventually("the batch ends", async || {
        let batch = admin.get(&format!("{BATCHES}/{batch}")).await.ok();
        ["completed", "failed"]
            .contains(&batch["state"].as_str().unwrap())
            .then_some(batch)
    })
    .await
}

async fn completions(pool: &PgPool) -> Vec<Value> {
    let bodies: Vec<String> = sqlx::query_scalar(
        "SELECT body FROM outbox WHERE event_type = 'BatchMintingCompleted'
         UNION ALL
         SELECT body FROM events WHERE event_type = 'BatchMintingCompleted'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    bodies
        .iter()
        .map(|body| serde_json::from_str(body).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_mints_what_is_held_back_and_reports_the_outcome_of_each() {
    let grid = Grid::start_with(&[HELD]).await;
    let meter = grid.meter().await;
    let mut reported = Vec::new();
    for _ in 0..5 {
        reported.push(meter.report("1").await);
    }

    let batch = trigger(&grid.admin(), json!({})).await;

    assert_eq!(batch["success"], true, "{batch:#}");
    assert_eq!(figures(&batch), (5, 5, 0));
    assert_eq!(batch["state"], "completed");
    assert_eq!(batch["next"], Value::Null);
    let results = batch["results"].as_array().unwrap();
    for id in &reported {
        let result = results.iter().find(|result| result["reading_id"] == **id);
        let result = result.unwrap_or_else(|| panic!("{id} has no result"));
        assert_eq!(result["success"], true);
        assert_eq!(result["error"], Value::Null);
        let reading = meter.api.get(&format!("/api/readings/{id}")).await.ok();
        assert_eq!(
            result["transaction_signature"],
            reading["transaction_signature"]
        );
        assert!(["minted", "finalized"].contains(&reading["state"].as_str().unwrap()));
    }

    let events = completions(&grid.pool).await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["batch_id"], batch["batch_id"]);
    assert_eq!(events[0]["total_readings"], 5);
    assert_eq!(events[0]["successful_mints"], 5);
    assert_eq!(events[0]["failed_mints"], 0);
    let logged: Vec<(String, String)> =
        sqlx::query_as("SELECT actor, details FROM admin_log WHERE action = 'trigger_batch'")
            .fetch_all(&grid.pool)
            .await
            .unwrap();
    assert_eq!(logged.len(), 1);
    assert_eq!(logged[0].0, "an admin");
    assert!(logged[0].1.contains(batch["batch_id"].as_str().unwrap()));
    let status = grid
        .admin()
        .get("/api/admin/tokenization/status")
        .await
        .ok();
    assert_eq!(
        status["recent_batch_stats"][0]["batch_id"],
        batch["batch_id"]
    );
    assert_eq!(status["recent_batch_stats"][0]["successful_mints"], 5);
    let listed = grid.admin().get(&format!("{BATCHES}?limit=1")).await.ok();
    assert_eq!(listed["batches"][0]["batch_id"], batch["batch_id"]);

    let again = trigger(&grid.admin(), json!({})).await;
    assert_eq!(figures(&again), (0, 0, 0), "nothing is left");
    assert_eq!(completions(&grid.pool).await.len(), 1, "and no event");
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_does_not_wait_for_a_backoff() {
    let grid = Grid::start_with(&[("TOKENIZATION_POLLING_INTERVAL_SECS", "1")]).await;
    let meters = insert_backlog(&grid.pool, 1, 3).await;
    sqlx::query("UPDATE settings SET auto_mint_enabled = TRUE")
        .execute(&grid.pool)
        .await
        .unwrap();
    sqlx::query(
        "UPDATE readings
         SET next_attempt_at = now() + INTERVAL '1 hour', attempts = 1, last_error = 'refused once'
         WHERE state = 'pending'",
    )
    .execute(&grid.pool)
    .await
    .unwrap();
    let batch = trigger(&grid.admin(), json!({ "meter_id": meters[0] })).await;
    // Readings that the sweep found before their backoff began do not belong to the trigger.
    let (total, successful, failed) = figures(&batch);
    assert_eq!((total, failed), (successful, 0), "{batch:#}");
    grid.until_count("finalized", 3).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_what_is_minted() {
    let grid = Grid::start_with(&[HELD]).await;
    let admin = grid.admin();
    let (first, second) = (grid.meter().await, grid.meter().await);
    let other = grid.user("another").meter().await;
    // Each reports the newest quarter of an hour first.
    for meter in [&first, &second, &other] {
        for _ in 0..3 {
            meter.report("1").await;
        }
    }
    let newest_end = first.next_submission("1")["reading_timestamp"].clone();

    let batch = trigger(&admin, json!({ "user_id": "another" })).await;
    assert_eq!(figures(&batch), (3, 3, 0));
    assert_eq!(batch["filters"]["user_id"], "another");
    let batch = trigger(&admin, json!({ "user_id": "nobody" })).await;
    assert_eq!(figures(&batch), (0, 0, 0));

    // The three ends are newest_end + 45, + 30 and + 15 minutes: two lie before + 45.
    let before = chrono::DateTime::parse_from_rfc3339(newest_end.as_str().unwrap()).unwrap()
        + chrono::TimeDelta::minutes(45);
    let batch = trigger(
        &admin,
        json!({ "meter_id": first.serial, "before": before.to_rfc3339() }),
    )
    .await;
    assert_eq!(figures(&batch), (2, 2, 0));
    assert_eq!(batch["filters"]["meter_id"], first.serial);
    assert_eq!(grid.count("pending").await, 4);

    sqlx::query(
        "UPDATE readings
         SET state = 'failed', attempts = 4, last_error = 'refused'
         WHERE meter = (SELECT id FROM meters WHERE serial = $1)",
    )
    .bind(&second.serial)
    .execute(&grid.pool)
    .await
    .unwrap();
    let batch = trigger(&admin, json!({})).await;
    assert_eq!(figures(&batch), (1, 1, 0), "failed ones are left alone");
    let batch = trigger(&admin, json!({ "include_failed": true })).await;
    assert_eq!(figures(&batch), (3, 3, 0), "unless they are asked for");
    grid.until_count("finalized", 9).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_triggers_are_refused() {
    let grid = Grid::start_with(&[HELD]).await;
    let admin = grid.admin();
    for (body, status, sentence) in [
        (json!({ "wait_secs": 301 }), 400, "wait_secs 301"),
        (json!({ "wait_secs": -1 }), 400, "wait_secs -1"),
        (json!({ "before": "yesterday" }), 400, "before"),
        (json!({ "user_id": "" }), 400, "user_id"),
        (json!({ "meter_id": "" }), 400, "meter_id"),
        (json!({ "meter_id": "unheard-of" }), 404, "unheard-of"),
        (json!([]), 400, "object"),
    ] {
        let answer = admin.post(TRIGGER, &body).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        let error = answer.body["error"].as_str().unwrap();
        assert!(error.contains(sentence), "{body}: {error}");
    }
    let user = grid.user("prosumer");
    assert_eq!(user.post(TRIGGER, &json!({})).await.status, 403);
    assert_eq!(user.get(BATCHES).await.status, 403);
    let unknown = format!("{BATCHES}/{}", uuid::Uuid::now_v7());
    assert_eq!(user.get(&unknown).await.status, 403);
    assert_eq!(admin.get(&unknown).await.status, 404);
    assert_eq!(admin.get(&format!("{unknown}?after=x")).await.status, 400);
    assert_eq!(admin.get(&format!("{BATCHES}?limit=0")).await.status, 400);
    let batches: i64 = sqlx::query_scalar("SELECT count(*) FROM batches WHERE kind = 'trigger'")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(batches, 0, "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_does_not_wait_pages_through_the_results_as_they_arrive() {
    const READINGS: usize = 2_000;
    let grid = Grid::start_with(&[HELD]).await;
    insert_backlog(&grid.pool, 20, READINGS / 20).await;
    let admin = grid.admin();
    let response = reqwest::Client::new()
        .post(format!("{}{TRIGGER}", admin.url))
        .bearer_auth(&admin.token)
        .json(&json!({ "wait_secs": 0 }))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 202);
    let address = response.headers()["location"].to_str().unwrap().to_owned();
    let begun: Value = response.json().await.unwrap();
    assert_eq!(
        address,
        format!("{BATCHES}/{}", begun["batch_id"].as_str().unwrap())
    );
    assert!(["queued", "running"].contains(&begun["state"].as_str().unwrap()));
    assert_eq!(begun["success"], false);

    let mut seen = Vec::new();
    let mut after = 0;
    let last = eventually("the last page", async || {
        let page = admin
            .get(&format!("{address}?after={after}&limit=70"))
            .await
            .ok();
        let results = page["results"].as_array().unwrap();
        assert!(results.len() <= 70);
        seen.extend(results.iter().map(|result| {
            assert_eq!(result["success"], true, "{result}");
            result["reading_id"].as_str().unwrap().to_owned()
        }));
        match page["next"].as_i64() {
            Some(next) => {
                after = next;
                None
            }
            None => Some(page),
        }
    })
    .await;
    assert_eq!(figures(&last), (READINGS as u64, READINGS as u64, 0));
    assert_eq!(seen.len(), READINGS);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), READINGS, "each of them once");
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing_and_is_right() {
    let grid = Grid::start_with(&[HELD, ("MINT_LINGER_MS", "500")]).await;
    let meters = [
        grid.meter().await,
        grid.meter().await,
        grid.meter().await,
        grid.meter().await,
    ];
    for meter in &meters {
        for _ in 0..4 {
            meter.report("1").await;
        }
    }
    let admin = grid.admin();
    let dry = trigger(&admin, json!({ "dry_run": true })).await;
    assert_eq!(
        dry,
        json!({
            "dry_run": true,
            "processed_readings": 16,
            "refused_readings": 0,
            "transactions": 1,
            "account_creations": 4,
            "fee_lamports": 5_000,
            "priority_fee_lamports": 0,
            "rent_lamports": 4 * 1_488_440,
        })
    );
    let one = json!({ "dry_run": true, "meter_id": meters[0].serial });
    assert_eq!(trigger(&admin, one).await["processed_readings"], 4);
    assert_eq!(grid.count("pending").await, 16);
    let kept: (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM batches WHERE kind = 'trigger'), (SELECT count(*) FROM admin_log)",
    )
    .fetch_one(&grid.pool)
    .await
    .unwrap();
    assert_eq!(kept, (0, 0));

    let batch = trigger(&admin, json!({})).await;
    assert_eq!(figures(&batch), (16, 16, 0));
    let (transactions, creations, lamports): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), sum(account_creations), sum(fee_lamports)::BIGINT FROM mint_transactions",
    )
    .fetch_one(&grid.pool)
    .await
    .unwrap();
    assert_eq!((transactions, creations, lamports), (1, 4, 5_000));

    for meter in &meters {
        meter.report("1").await;
    }
    let dry = trigger(&admin, json!({ "dry_run": true })).await;
    assert_eq!(dry["account_creations"], 0, "the accounts are there now");
    assert_eq!(dry["processed_readings"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_triggers_over_three_processes_mint_nothing_twice() {
    const READINGS: u64 = 600;
    let grid = Grid::without_service(&[HELD]).await;
    let servers = [
        grid.spawn(&[]).await,
        grid.spawn(&[]).await,
        grid.spawn(&[]).await,
    ];
    insert_backlog(&grid.pool, 30, READINGS as usize / 30).await;
    let mut triggers = tokio::task::JoinSet::new();
    for index in 0..20 {
        let admin = admin_of(&servers[index % 3]);
        triggers.spawn(async move { admin.post(TRIGGER, &json!({ "wait_secs": 25 })).await });
    }
    let mut total = 0;
    for answer in triggers.join_all().await {
        assert!([200, 202].contains(&answer.status), "{answer:?}");
        let id = answer.body["batch_id"].as_str().unwrap();
        let batch = ended(&admin_of(&servers[0]), id).await;
        assert_eq!(batch["state"], "completed", "{batch:#}");
        let (found, successful, failed) = figures(&batch);
        assert_eq!((found, failed), (successful, 0));
        total += found;
    }
    assert_eq!(total, READINGS, "each reading is of one batch");
    grid.until_count("finalized", READINGS as i64).await;
    let audit = grid.audit_holds().await;
    assert_eq!(
        audit["base_units_chain"],
        (READINGS * 10_000_000).to_string()
    );
}

/// Kills the only worker at a step of the batch; another worker continues the batch.
async fn a_killed_batch_continues(failpoint: &str) {
    const READINGS: u64 = 400;
    let grid = Grid::without_service(&[HELD, NO_TICKS]).await;
    let mut first = grid.spawn(&[("FAILPOINTS", failpoint)]).await;
    insert_backlog(&grid.pool, 20, READINGS as usize / 20).await;
    // The process may be killed before it has answered.
    let _ = admin_of(&first)
        .try_post(TRIGGER, &json!({ "wait_secs": 0 }))
        .await;
    assert!(!first.ended().await.success(), "it was killed");
    let begun: String = sqlx::query_scalar("SELECT id::text FROM batches WHERE kind = 'trigger'")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    let next = grid.spawn(&[]).await;
    let batch = ended(&admin_of(&next), &begun).await;
    assert_eq!(batch["state"], "completed", "{batch:#}");
    assert_eq!(figures(&batch), (READINGS, READINGS, 0));
    assert_eq!(
        batch["results"].as_array().unwrap().len() as u64,
        READINGS,
        "each has one result"
    );
    assert_eq!(completions(&grid.pool).await.len(), 1);
    grid.until_count("finalized", READINGS as i64).await;
    let audit = grid.audit_holds().await;
    assert_eq!(
        audit["base_units_chain"],
        (READINGS * 10_000_000).to_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_worker_is_killed_after_a_claim_continues_in_another_process() {
    a_killed_batch_continues("queue.batch_claimed=2*off->return(kill)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_worker_is_killed_after_minting_continues_in_another_process() {
    a_killed_batch_continues("queue.batch_handed_in=1*off->return(kill)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_worker_is_killed_at_its_end_is_announced_once() {
    a_killed_batch_continues("batch.before_finish_commit=return(kill)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_job_is_lost_is_rescued_by_the_sweep() {
    let grid = Grid::without_service(&[HELD, ("TOKENIZATION_POLLING_INTERVAL_SECS", "1")]).await;
    // Makes the tables.
    grid.spawn(&[]).await.terminate().await;
    insert_backlog(&grid.pool, 2, 5).await;
    let batch = uuid::Uuid::now_v7();
    sqlx::query("INSERT INTO batches (id, kind, requested_by) VALUES ($1, 'trigger', 'an admin')")
        .bind(batch)
        .execute(&grid.pool)
        .await
        .unwrap();
    let server = grid.spawn(&[]).await;
    let batch = ended(&admin_of(&server), &batch.to_string()).await;
    assert_eq!(figures(&batch), (10, 10, 0));
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_chain_is_unavailable_a_batch_reports_it_and_loses_nothing() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[HELD]).await;
    grid.serve().await;
    insert_backlog(&grid.pool, 10, 40).await;
    proxy.on_call(|method, _| match method {
        "simulateTransaction" => CallAction::Status(503),
        _ => CallAction::Forward,
    });
    let begun = Instant::now();
    let admin = grid.admin();
    let started = admin.post(TRIGGER, &json!({ "wait_secs": 0 })).await.ok();
    let batch = ended(&admin, started["batch_id"].as_str().unwrap()).await;
    assert!(
        begun.elapsed() < Duration::from_secs(90),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(batch["state"], "failed", "{batch:#}");
    assert_eq!(batch["success"], false);
    assert!(!batch["error"].as_str().unwrap().is_empty());
    let (total, successful, failed) = figures(&batch);
    assert_eq!((successful, failed), (0, total));
    assert!((1..400).contains(&total), "it claims no more: {total}");
    assert_eq!(batch["results"][0]["success"], false);
    assert_eq!(batch["results"][0]["error"], batch["error"]);
    assert_eq!(grid.count("pending").await, 400, "nothing is lost");

    proxy.forward_everything();
    let batch = trigger(&admin, json!({})).await;
    assert_eq!(figures(&batch), (400, 400, 0));
    grid.until_count("finalized", 400).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_ledger_breaker_is_open_a_batch_reports_it() {
    let grid = Grid::start_with(&[HELD]).await;
    insert_backlog(&grid.pool, 2, 10).await;
    // An unresolved landed mint holds it open.
    sqlx::query("INSERT INTO foreign_mints (signature, slot, base_units) VALUES ('x', 1, 1)")
        .execute(&grid.pool)
        .await
        .unwrap();
    sqlx::query(
        "UPDATE ledger
         SET breaker = 'mismatch', breaker_reason = 'for the test', breaker_opened_at = now()",
    )
    .execute(&grid.pool)
    .await
    .unwrap();
    let admin = grid.admin();
    let started = admin.post(TRIGGER, &json!({ "wait_secs": 0 })).await.ok();
    let batch = ended(&admin, started["batch_id"].as_str().unwrap()).await;
    assert_eq!(batch["state"], "failed", "{batch:#}");
    assert_eq!(figures(&batch), (20, 0, 20));
    let error = batch["error"].as_str().unwrap();
    assert!(error.contains("breaker"), "{error}");
    assert_eq!(grid.count("pending").await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_reading_is_a_failed_one_of_its_batch_and_its_neighbours_are_minted() {
    let grid = Grid::start_with(&[HELD]).await;
    insert_backlog(&grid.pool, 2, 3).await;
    // A wallet that was paid at finality and has no account any more: its owner closed it.
    sqlx::query(
        "INSERT INTO token_accounts (wallet)
         SELECT wallet FROM meters ORDER BY id LIMIT 1",
    )
    .execute(&grid.pool)
    .await
    .unwrap();
    let admin = grid.admin();
    let dry = trigger(&admin, json!({ "dry_run": true })).await;
    assert_eq!(dry["refused_readings"], 3);
    let batch = trigger(&admin, json!({})).await;
    assert_eq!(batch["state"], "completed");
    assert_eq!(batch["success"], false);
    assert_eq!(figures(&batch), (6, 3, 3));
    let refused: Vec<&Value> = batch["results"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|result| result["success"] == false)
        .collect();
    assert_eq!(refused.len(), 3);
    for result in refused {
        let error = result["error"].as_str().unwrap();
        assert!(error.contains("was closed by its owner"), "{error}");
        assert_eq!(result["transaction_signature"], Value::Null);
    }
    grid.until_count("finalized", 3).await;
    assert_eq!(grid.count("failed").await, 3);
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_continues_in_another_process_when_its_process_drains() {
    const READINGS: u64 = 3_000;
    let grid = Grid::without_service(&[HELD]).await;
    let mut first = grid.spawn(&[]).await;
    insert_backlog(&grid.pool, 60, READINGS as usize / 60).await;
    let begun = admin_of(&first)
        .post(TRIGGER, &json!({ "wait_secs": 0 }))
        .await
        .ok();
    grid.until("some are minted", async || grid.count("minted").await > 0)
        .await;
    let status = first.terminate().await;
    assert!(status.success(), "{status}");
    let unfinished = "SELECT count(*) FROM batches WHERE kind = 'trigger' AND finished_at IS NULL";
    let handed_on: i64 = sqlx::query_scalar(unfinished)
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(handed_on, 1, "it had not come to its end");
    let next = grid.spawn(&[]).await;
    let batch = ended(&admin_of(&next), begun["batch_id"].as_str().unwrap()).await;
    assert_eq!(batch["state"], "completed", "{batch:#}");
    assert_eq!(figures(&batch), (READINGS, READINGS, 0));
    grid.until_count("finalized", READINGS as i64).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_process_answers_for_a_batch_that_a_worker_runs() {
    let grid = Grid::without_service(&[HELD]).await;
    let _worker = grid.spawn(&[("GRIDTOKENX_ROLE", "worker")]).await;
    let api = grid.spawn(&[("GRIDTOKENX_ROLE", "api")]).await;
    insert_backlog(&grid.pool, 3, 4).await;
    let batch = trigger(&admin_of(&api), json!({})).await;
    assert_eq!(figures(&batch), (12, 12, 0));
    grid.audit_holds().await;
}
