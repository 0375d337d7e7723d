//! Readings are minted whatever rows are in the queue, and whatever happens to the connection that receives notifications.

use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{PgConnection, PgPool};

use crate::support::{Grid, ListenerProxy, Server, eventually};

/// A valid id, different for each letter.
fn ulid(letter: char) -> String {
    format!("01ARZ3NDEKTSV4RRFFQ69G5FA{letter}")
}

/// Puts a row into the queue that no process of ours wrote. It is due before anything else.
async fn put(transaction: &mut PgConnection, id: &str, kind: &str, payload: &[u8]) {
    sqlx::query(
        "INSERT INTO apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at)
         VALUES ($1, $2, $3, 'Pending', 0, 25, now() - INTERVAL '1 hour')",
    )
    .bind(id)
    .bind(kind)
    .bind(payload)
    .execute(transaction)
    .await
    .unwrap();
}

/// One of each kind of poison, in one transaction: a worker must not take a row before it is spoiled. Returns their ids, and a
/// part of the reason that each must end with.
async fn poison(pool: &PgPool, letters: [char; 8]) -> Vec<(String, &'static str)> {
    let mut transaction = pool.begin().await.unwrap();
    let id = letters.map(ulid);
    let unknown = format!(r#"{{"reading_id":"{}"}}"#, uuid::Uuid::now_v7());
    put(&mut transaction, &id[0], "MintReading", b"\xff\xfe\x00").await;
    put(&mut transaction, &id[1], "MintReading", b"not json").await;
    put(&mut transaction, &id[2], "MintReading", br#"{"reading":1}"#).await;
    put(&mut transaction, &id[3], "MintReading", unknown.as_bytes()).await;
    put(&mut transaction, &id[4], "SweepUnminted", b"{}").await;
    put(&mut transaction, &id[5], "MintReading", unknown.as_bytes()).await;
    put(&mut transaction, &id[6], "MintReading", unknown.as_bytes()).await;
    let no_ulid = format!("by hand {}", letters[7]);
    put(
        &mut transaction,
        &no_ulid,
        "MintReading",
        unknown.as_bytes(),
    )
    .await;
    for (id, change) in [
        (
            &id[5],
            "UPDATE apalis.jobs SET run_at = '1969-01-01' WHERE id = $1",
        ),
        (
            &id[6],
            "UPDATE apalis.jobs SET metadata = 'key=>NULL' WHERE id = $1",
        ),
    ] {
        sqlx::query(change)
            .bind(id)
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
    let [a, b, c, d, e, f, g, _] = id;
    vec![
        (a, "cannot be read"),
        (b, "cannot be read"),
        (c, "missing field `reading_id`"),
        (d, "there is no reading"),
        (e, "missing field `tick`"),
        (f, "run_at lies before 1970"),
        (g, "metadata has a key without a value"),
        (no_ulid, "is not a ULID"),
    ]
}

async fn end_dead(pool: &PgPool, poisoned: &[(String, &'static str)]) {
    for (id, reason) in poisoned {
        let last_result = eventually(&format!("the job {id:?} is dead"), async || {
            sqlx::query_scalar::<_, Value>(
                "SELECT last_result
                 FROM apalis.jobs
                 -- An id that is none is replaced by one, and named in the reason.
                 WHERE status = 'Killed' AND (id = $1 OR strpos(last_result ->> 'Err', $1) > 0)",
            )
            .bind(id)
            .fetch_optional(pool)
            .await
            .unwrap()
        })
        .await;
        let stored = last_result["Err"].as_str().unwrap_or_default();
        assert!(stored.contains(reason), "{id}: {last_result}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_can_never_be_run_ends_visibly_dead_and_blocks_no_other() {
    let grid = Grid::without_service(&[]).await;
    // The schema, and readings that wait behind the poison.
    let mut first = grid.spawn(&[("GRIDTOKENX_ROLE", "api")]).await;
    let meter = first.user("prosumer").meter().await;
    for _ in 0..10 {
        meter.report("1").await;
    }
    first.terminate().await;
    let mut poisoned = poison(&grid.pool, ['A', 'B', 'C', 'D', 'E', 'F', 'G', 'H']).await;

    let server = grid.spawn(&[]).await;
    grid.until_count("finalized", 10).await;
    // Again, while it runs.
    poisoned.extend(poison(&grid.pool, ['J', 'K', 'M', 'N', 'P', 'Q', 'R', 'S']).await);
    let meter = server.user("prosumer").meter().await;
    for _ in 0..10 {
        meter.report("1").await;
    }
    end_dead(&grid.pool, &poisoned).await;
    grid.until_count("finalized", 20).await;

    let status = server
        .admin()
        .get("/api/admin/tokenization/status")
        .await
        .ok();
    assert_eq!(status["queue"]["dead"], 16, "{status}");
    let metrics = server.admin().get_text("/metrics").await;
    for line in [
        r#"gridtokenx_queue_jobs{state="dead"} 16"#,
        r#"gridtokenx_queue_dead_jobs_total{cause="unreadable_row"} 6"#,
        r#"gridtokenx_queue_dead_jobs_total{cause="unreadable_payload"} 8"#,
        r#"gridtokenx_queue_dead_jobs_total{cause="unknown_reading"} 2"#,
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    let audit = grid.audit_holds().await;
    assert_eq!(audit["base_units_chain"], "20000000000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_whose_job_became_unreadable_is_minted_all_the_same() {
    let grid = Grid::without_service(&[("TOKENIZATION_POLLING_INTERVAL_SECS", "1")]).await;
    let mut first = grid.spawn(&[("GRIDTOKENX_ROLE", "api")]).await;
    let meter = first.user("prosumer").meter().await;
    meter.report("1").await;
    first.terminate().await;
    sqlx::query("UPDATE apalis.jobs SET job = 'broken' WHERE job_type = 'MintReading'")
        .execute(&grid.pool)
        .await
        .unwrap();
    let _server = grid.spawn(&[("GRIDTOKENX_ROLE", "worker")]).await;
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}

/// The server processes of the listening connections.
async fn listeners(pool: &PgPool) -> Vec<i32> {
    sqlx::query_scalar(
        "SELECT pid
         FROM pg_stat_activity
         WHERE datname = current_database()
           AND application_name = 'gridtokenx listener'
           AND query LIKE 'LISTEN%'",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

async fn one_listener_beside(pool: &PgPool, old: &[i32]) -> i32 {
    eventually("another connection listens", async || {
        listeners(pool)
            .await
            .into_iter()
            .find(|pid| !old.contains(pid))
    })
    .await
}

async fn listener_is_well(server: &Server, broken: &str) {
    eventually("its health says that the listener is well", async || {
        let health = server.admin().get("/health/ready").await.body;
        (health["checks"]["listener"]["status"] == "ok").then_some(())
    })
    .await;
    let metrics = server.admin().get_text("/metrics").await;
    for line in ["gridtokenx_listener_connected 1", broken] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listening_connection_that_is_ended_is_replaced() {
    let grid = Grid::without_service(&[]).await;
    let server = grid.spawn(&[]).await;
    let first = one_listener_beside(&grid.pool, &[]).await;
    sqlx::query("SELECT pg_terminate_backend($1)")
        .bind(first)
        .execute(&grid.pool)
        .await
        .unwrap();
    one_listener_beside(&grid.pool, &[first]).await;
    listener_is_well(
        &server,
        r#"gridtokenx_listener_broken_total{how="ended"} 1"#,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listening_connection_that_receives_nothing_is_detected_and_replaced() {
    let grid = Grid::without_service(&[]).await;
    let proxy = ListenerProxy::start(&grid.database_url).await;
    let server = grid.spawn(&[("DATABASE_URL", &proxy.url)]).await;
    let first = one_listener_beside(&grid.pool, &[]).await;
    assert_eq!(proxy.listening(), 1);

    let deaf_since = Instant::now();
    proxy.stall_listeners();
    one_listener_beside(&grid.pool, &[first]).await;
    // Ten seconds without a notification, five for the probe, and a reserve for a slow machine.
    let took = deaf_since.elapsed();
    assert!(took < Duration::from_secs(40), "{took:?}");
    assert!(
        listeners(&grid.pool).await.contains(&first),
        "the old one never ended: it was deaf"
    );
    listener_is_well(&server, r#"gridtokenx_listener_broken_total{how="deaf"} 1"#).await;

    // Notifications arrive again: a commit is found immediately, not by the poll.
    let meter = server.user("prosumer").meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}
