//! Each slice of a sweep drops the jobs that ended long enough ago, however many, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use crate::support::world::world;
use crate::support::{CallAction, Grid, Proxy, eventually, insert_backlog};

const TOGGLE: &str = "/api/admin/tokenization/toggle-auto-mint";
/// A period so long that only the requested sweep runs during a test.
const NO_TICKS: (&str, &str) = ("TOKENIZATION_POLLING_INTERVAL_SECS", "86400");
const EACH_SECOND: (&str, &str) = ("TOKENIZATION_POLLING_INTERVAL_SECS", "1");
const ATTEMPTS_MAX: i32 = 25;

/// Jobs that every sweep deletes.
const OLD: Jobs = Jobs {
    name: "done long ago",
    count: 10,
    status: "Done",
    attempts: 1,
    ago: "11 minutes",
    stay: false,
};

/// Jobs of one kind.
struct Jobs {
    name: &'static str,
    count: i32,
    status: &'static str,
    attempts: i32,
    /// How long ago they ended.
    ago: &'static str,
    stay: bool,
}

impl Jobs {
    /// Due in an hour, so that none is run.
    async fn insert(&self, pool: &PgPool) {
        sqlx::query(
            "INSERT INTO apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, done_at, idempotency_key)
             SELECT upper(left(md5($1 || number), 26)), 'MintReading',
                    convert_to('{\"reading_id\":\"' || gen_random_uuid() || '\"}', 'UTF8'),
                    $2, $3, $4, now() + INTERVAL '1 hour', now() - $5::INTERVAL, $1 || '/' || number
             FROM generate_series(1, $6) AS number",
        )
        .bind(self.name)
        .bind(self.status)
        .bind(self.attempts)
        .bind(ATTEMPTS_MAX)
        .bind(self.ago)
        .bind(self.count)
        .execute(pool)
        .await
        .unwrap();
    }
}

/// By name.
async fn jobs(pool: &PgPool) -> BTreeMap<String, i64> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT split_part(idempotency_key, '/', 1) AS name, count(*)
         FROM apalis.jobs
         WHERE job_type = 'MintReading'
         GROUP BY name",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    rows.into_iter().collect()
}

/// The whole of these tables.
async fn books(pool: &PgPool) -> Vec<String> {
    let mut books = Vec::new();
    for table in ["readings", "mint_transactions", "mint_transaction_readings"] {
        let rows = format!("SELECT row::TEXT FROM {table} AS row ORDER BY row::TEXT");
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(rows))
            .fetch_all(pool)
            .await
            .unwrap();
        assert!(!rows.is_empty(), "{table}");
        books.extend(rows);
    }
    books
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_prunes_finished_jobs_and_nothing_of_the_ledger() {
    let grid = Grid::start_with(&[NO_TICKS]).await;
    let meter = grid.meter().await;
    for _ in 0..3 {
        meter.report("1").await;
    }
    grid.until_count("finalized", 3).await;
    // The last that the ledger stores of them.
    grid.until("their charges are read", async || {
        let unread: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM mint_transactions WHERE fee_lamports_charged IS NULL",
        )
        .fetch_one(&grid.pool)
        .await
        .unwrap();
        unread == 0
    })
    .await;
    eventually("their jobs are done", async || {
        let done = "UPDATE apalis.jobs
                    SET done_at = now() - INTERVAL '11 minutes'
                    WHERE job_type = 'MintReading'
                      AND status = 'Done'";
        let aged = sqlx::query(done).execute(&grid.pool).await.unwrap();
        (aged.rows_affected() == 3).then_some(())
    })
    .await;

    let (done, failed, killed) = ("Done", "Failed", "Killed");
    let kinds = [
        // More than one statement deletes.
        ("done long ago", 2_500, done, 1, "11 minutes", false),
        ("done", 3, done, 1, "9 minutes", true),
        // Retried, however old.
        ("backing off", 4, failed, ATTEMPTS_MAX - 1, "8 days", true),
        (
            "used up long ago",
            5,
            failed,
            ATTEMPTS_MAX,
            "11 minutes",
            false,
        ),
        ("used up", 6, failed, ATTEMPTS_MAX, "9 minutes", true),
        ("dead for a week", 7, killed, 1, "8 days", false),
        ("dead", 8, killed, 1, "6 days", true),
    ]
    .map(|(name, count, status, attempts, ago, stay)| Jobs {
        name,
        count,
        status,
        attempts,
        ago,
        stay,
    });
    for kind in &kinds {
        kind.insert(&grid.pool).await;
    }
    sqlx::query(
        "INSERT INTO apalis.workers (id, worker_type, storage_name, last_seen)
         SELECT id, 'MintReading', 'test', now() - INTERVAL '2 hours'
         FROM UNNEST(ARRAY['forgotten', 'remembered']) AS id",
    )
    .execute(&grid.pool)
    .await
    .unwrap();
    sqlx::query("UPDATE apalis.jobs SET lock_by = 'remembered' WHERE idempotency_key = 'done/1'")
        .execute(&grid.pool)
        .await
        .unwrap();
    let books_before = books(&grid.pool).await;

    for enabled in [false, true] {
        let toggled = json!({ "enabled": enabled });
        grid.admin().post(TOGGLE, &toggled).await.ok();
    }
    eventually("the one sweep is over", async || {
        let sweeps: Vec<String> =
            sqlx::query_scalar("SELECT status FROM apalis.jobs WHERE job_type = 'SweepUnminted'")
                .fetch_all(&grid.pool)
                .await
                .unwrap();
        (sweeps == ["Done"]).then_some(())
    })
    .await;

    let left = kinds.iter().filter(|kind| kind.stay);
    let left: BTreeMap<String, i64> = left
        .map(|kind| (kind.name.to_owned(), i64::from(kind.count)))
        .collect();
    assert_eq!(jobs(&grid.pool).await, left);
    let workers: Vec<String> =
        sqlx::query_scalar("SELECT id FROM apalis.workers WHERE storage_name = 'test'")
            .fetch_all(&grid.pool)
            .await
            .unwrap();
    assert_eq!(workers, ["remembered"]);
    assert_eq!(books(&grid.pool).await, books_before);
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_pruned_during_a_long_sweep() {
    // One reading at a time, and half a second for each: the sweep takes several slices.
    const READINGS: usize = 240;
    let proxy = Proxy::start(world().rpc_url()).await;
    proxy.on_call(|method, _| match method {
        "sendTransaction" => CallAction::Delay(Duration::from_millis(500)),
        _ => CallAction::Forward,
    });
    let settings = [
        EACH_SECOND,
        ("TOKENIZATION_BATCH_SIZE", "1"),
        ("BLOCKCHAIN_MAX_BATCH_SIZE", "1"),
        ("BLOCKCHAIN_CONCURRENT_BATCHES", "1"),
    ];
    let mut grid = Grid::on_chain(&proxy.url, &settings).await;
    grid.serve().await;
    insert_backlog(&grid.pool, 1, READINGS).await;
    let running = async || -> Vec<Uuid> {
        let running = "SELECT id FROM batches WHERE finished_at IS NULL AND total_readings > 0";
        let running = sqlx::query_scalar(running);
        running.fetch_all(&grid.pool).await.unwrap()
    };
    let begun = eventually("the sweep has begun", async || {
        Some(running().await).filter(|running| running.len() == 1)
    })
    .await;
    OLD.insert(&grid.pool).await;
    grid.until("the old jobs are gone", async || {
        !jobs(&grid.pool).await.contains_key(OLD.name)
    })
    .await;
    assert_eq!(running().await, begun, "it is not ended");
    proxy.forward_everything();
    grid.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_does_not_keep_others_from_running() {
    let grid = Grid::start_with(&[EACH_SECOND]).await;
    // The first step finds a trigger that has lost its job, and cannot enqueue another.
    for statement in [
        "CREATE FUNCTION refuse() RETURNS TRIGGER LANGUAGE plpgsql AS $$
         BEGIN
             RAISE EXCEPTION 'no more of these';
         END
         $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON apalis.jobs FOR EACH ROW
         WHEN (NEW.job_type = 'TriggerBatch')
         EXECUTE FUNCTION refuse()",
        "INSERT INTO batches (id, kind, requested_by, include_failed)
         VALUES (gen_random_uuid(), 'trigger', 'an admin', FALSE)",
    ] {
        sqlx::query(statement).execute(&grid.pool).await.unwrap();
    }
    OLD.insert(&grid.pool).await;
    grid.until("the old jobs are gone", async || {
        !jobs(&grid.pool).await.contains_key(OLD.name)
    })
    .await;
}
