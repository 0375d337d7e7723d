//! `GET /health/ready` names what is wrong, each part by a real fault; it is 503 only when no reading can be accepted.

use std::time::Duration;

use futures_util::future::join_all;
use gridtokenx::embedded::{PostgresCluster, PostgresOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::time::{Instant, timeout};

use crate::support::world::world;
use crate::support::{Api, Grid, IdentityProvider, eventually};

/// The documented limit of a probe. On a machine that is busy with other tests single probes may be delayed, so the median of
/// several concurrent probes must meet it.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
/// The limit of the slowest of them; everything that hangs in these tests hangs for longer.
const ANSWERED_AT_WORST_WITHIN: Duration = Duration::from_secs(5);
const PROBES_TOGETHER: usize = 7;
/// A service that cannot accept readings reports it within this time.
const REPORTED_WITHIN: Duration = Duration::from_secs(15);

const PARTS: [&str; 8] = [
    "breaker",
    "chain",
    "database",
    "disk",
    "listener",
    "migrations",
    "queue",
    "workers",
];

/// Waits until the part has the status, and returns it.
async fn until(api: &Api, part: &str, status: &str, http_status: u16) -> Value {
    eventually(&format!("{part} is {status}"), async || {
        let ready = api.get("/health/ready").await;
        let check = ready.body["checks"][part].clone();
        (check["status"] == status && ready.status == http_status).then_some(check)
    })
    .await
}

/// The same for status `unavailable`, which must be reported within the documented time. Returns the reason.
async fn until_unavailable(api: &Api, part: &str) -> String {
    let shown = until(api, part, "unavailable", 503);
    let check = timeout(REPORTED_WITHIN, shown)
        .await
        .unwrap_or_else(|_| panic!("{part} was not unavailable within {REPORTED_WITHIN:?}"));
    check["reason"].as_str().unwrap().to_owned()
}

/// Waits until readiness reports all these reasons, within the documented time; returns the document.
async fn until_reported(api: &Api, reasons: &[(&str, String)]) -> Value {
    let what = format!("readiness reports {reasons:?}");
    let shown = eventually(&what, async || {
        let ready = api.get("/health/ready").await;
        let reports = |(part, sentence): &(&str, String)| {
            let check = &ready.body["checks"][part];
            let reason = check["reason"].as_str().unwrap_or_default();
            check["status"] == "unavailable" && reason.contains(sentence.as_str())
        };
        let all = ready.status == 503 && reasons.iter().all(reports);
        all.then_some(ready.body)
    });
    timeout(REPORTED_WITHIN, shown)
        .await
        .unwrap_or_else(|_| panic!("not reported within {REPORTED_WITHIN:?}: {reasons:?}"))
}

async fn execute(pool: &PgPool, statement: impl Into<String>) {
    sqlx::query(AssertSqlSafe(statement.into()))
        .execute(pool)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_is_named_with_its_state_and_since_when() {
    let grid = Grid::start().await;
    let api = grid.admin();
    for part in PARTS {
        let check = until(&api, part, "ok", 200).await;
        let since = check["since"].as_str().unwrap();
        assert!(
            chrono::DateTime::parse_from_rfc3339(since).is_ok(),
            "{since}"
        );
        assert!(check.get("reason").is_none(), "{check}");
    }
    let ready = api.get("/health/ready").await;
    assert!(
        ready.body["checks"].get("tokens").is_none(),
        "a secret is always there: {ready:?}"
    );
}

/// The tables that a submission uses, the privilege that it needs on each, and the part of the service that each belongs to.
const TABLES: [(&str, &str, &str); 6] = [
    ("meters", "SELECT", "database"),
    ("readings", "INSERT", "database"),
    ("reading_count_changes", "INSERT", "database"),
    ("metered_intervals", "INSERT", "database"),
    ("outbox", "INSERT", "database"),
    ("apalis.jobs", "INSERT", "queue"),
];

/// A service on a database of its own user, as production has it: a superuser may do whatever was revoked.
async fn grid_of_ordinary_user() -> (Grid, String) {
    let name = format!("grid_{}", uuid::Uuid::now_v7().simple());
    let database_url = world().cluster.create_database(&name).await.unwrap();
    let superuser = PgPool::connect(&database_url).await.unwrap();
    execute(
        &superuser,
        format!("CREATE ROLE {name} LOGIN PASSWORD 'ordinary'"),
    )
    .await;
    execute(&superuser, format!("ALTER DATABASE {name} OWNER TO {name}")).await;
    superuser.close().await;
    let mut theirs: url::Url = database_url.parse().unwrap();
    theirs.set_username(&name).unwrap();
    theirs.set_password(Some("ordinary")).unwrap();
    let mut grid = Grid::on(theirs.as_str(), world().rpc_url(), &[]).await;
    grid.serve().await;
    (grid, name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_table_of_submissions_is_503_until_it_exists_again() {
    let grid = Grid::start().await;
    let api = grid.admin();
    let meter = grid.meter().await;
    for (table, _, part) in TABLES {
        let name = table.rsplit('.').next().unwrap();
        execute(
            &grid.pool,
            format!("ALTER TABLE {table} RENAME TO {name}_away"),
        )
        .await;
        until_reported(&api, &[(part, format!("the table {table} is missing"))]).await;
        let refused = meter
            .api
            .post("/api/meters/submit-reading", &meter.next_submission("1"))
            .await;
        assert!(refused.status >= 500, "it answered correctly: {refused:?}");
        execute(
            &grid.pool,
            format!("ALTER TABLE {table}_away RENAME TO {name}"),
        )
        .await;
        until(&api, part, "ok", 200).await;
    }
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}

async fn lock<'p>(pool: &'p PgPool, table: &str) -> sqlx::Transaction<'p, sqlx::Postgres> {
    let mut rival = pool.begin().await.unwrap();
    sqlx::query(AssertSqlSafe(format!(
        "LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"
    )))
    .execute(&mut *rival)
    .await
    .unwrap();
    rival
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_submissions_that_is_locked_or_not_granted_is_503_until_it_is_usable() {
    let (grid, user) = grid_of_ordinary_user().await;
    let api = grid.admin();
    until(&api, "database", "ok", 200).await;

    // One table is locked: the others are not reported.
    let rival = lock(&grid.pool, "readings").await;
    let locked = |table: &str| format!("another session keeps the table {table} locked");
    let shown = until_reported(&api, &[("database", locked("readings"))]).await;
    assert_eq!(shown["checks"]["database"]["reason"], locked("readings"));
    assert_eq!(shown["checks"]["queue"]["status"], "ok", "{shown}");
    rival.rollback().await.unwrap();
    until(&api, "database", "ok", 200).await;

    let mut rivals = Vec::new();
    for (table, _, _) in TABLES {
        rivals.push(lock(&grid.pool, table).await);
    }
    until_reported(&api, &TABLES.map(|(table, _, part)| (part, locked(table)))).await;
    for rival in rivals {
        rival.rollback().await.unwrap();
    }
    until(&api, "queue", "ok", 200).await;

    for (table, privilege, _) in TABLES {
        execute(
            &grid.pool,
            format!("REVOKE {privilege} ON {table} FROM {user}"),
        )
        .await;
    }
    let not_granted = TABLES.map(|(table, privilege, part)| {
        let sentence = format!("{privilege} on the table {table} is not granted");
        (part, sentence)
    });
    until_reported(&api, &not_granted).await;
    for (table, privilege, _) in TABLES {
        execute(
            &grid.pool,
            format!("GRANT {privilege} ON {table} TO {user}"),
        )
        .await;
    }
    until(&api, "queue", "ok", 200).await;

    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_too_old_is_503() {
    let grid = Grid::start().await;
    let api = grid.admin();
    until(&api, "migrations", "ok", 200).await;
    execute(
        &grid.pool,
        "UPDATE _sqlx_migrations SET success = FALSE WHERE version = 13",
    )
    .await;
    let reason = until_unavailable(&api, "migrations").await;
    assert!(reason.contains("the first is 13"), "{reason}");
    execute(
        &grid.pool,
        "UPDATE _sqlx_migrations SET success = TRUE WHERE version = 13",
    )
    .await;
    until(&api, "migrations", "ok", 200).await;
}

/// Several concurrent probes: the status of each, and how long the median and the slowest of them took.
async fn probe_together(api: &Api) -> (Vec<Value>, Duration, Duration) {
    let probe = async || {
        let asked_at = Instant::now();
        let ready = api.get("/health/ready").await;
        (asked_at.elapsed(), ready)
    };
    let mut answers = join_all((0..PROBES_TOGETHER).map(|_| probe())).await;
    answers.sort_by_key(|(took, _)| *took);
    let (middle, slowest) = (
        answers[PROBES_TOGETHER / 2].0,
        answers[PROBES_TOGETHER - 1].0,
    );
    let unavailable = answers
        .into_iter()
        .filter(|(_, ready)| ready.status == 503)
        .map(|(_, ready)| ready.body);
    (unavailable.collect(), middle, slowest)
}

/// Every probe is answered although the database answers nothing; the first probes may still return the earlier result.
async fn until_answered_with_503(api: &Api) -> Value {
    let started = Instant::now();
    loop {
        let (mut unavailable, middle, slowest) = probe_together(api).await;
        assert!(middle < ANSWERED_WITHIN, "the middle one: {middle:?}");
        assert!(slowest < ANSWERED_AT_WORST_WITHIN, "{slowest:?}");
        if unavailable.len() == PROBES_TOGETHER {
            return unavailable.remove(0);
        }
        // A probe notices within three seconds: that leaves enough for any machine.
        assert!(
            started.elapsed() < REPORTED_WITHIN,
            "not reported within {REPORTED_WITHIN:?}"
        );
    }
}

/// Parts that only the database could report are unavailable as "not known"; an earlier report is not repeated.
fn assert_not_known(document: &Value) {
    for part in ["migrations", "queue"] {
        let check = &document["checks"][part];
        assert_eq!(check["status"], "unavailable", "{document}");
        let reason = check["reason"].as_str().unwrap();
        assert!(reason.starts_with("not known"), "{reason}");
    }
}

/// Postmaster and backends, which are its children.
fn processes_of(cluster: &PostgresCluster) -> Vec<Pid> {
    let postmaster = cluster.pid();
    let children =
        std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
    let mut processes: Vec<Pid> = children
        .split_whitespace()
        .map(|pid| Pid::from_raw(pid.parse().unwrap()))
        .collect();
    processes.insert(0, Pid::from_raw(i32::try_from(postmaster).unwrap()));
    processes
}

fn signal_all(processes: &[Pid], signal: Signal) {
    for process in processes {
        // A backend may have ended meanwhile.
        let _ = kill(*process, signal);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_or_crashes_is_503_answered_in_time_and_recovers() {
    let mut cluster = PostgresCluster::start(PostgresOptions::ephemeral())
        .await
        .unwrap();
    let database_url = cluster.create_database("grid").await.unwrap();
    let mut grid = Grid::on(&database_url, world().rpc_url(), &[]).await;
    grid.serve().await;
    let api = grid.admin();
    until(&api, "database", "ok", 200).await;

    let processes = processes_of(&cluster);
    signal_all(&processes, Signal::SIGSTOP);
    let hanging = until_answered_with_503(&api).await;
    signal_all(&processes, Signal::SIGCONT);
    assert_eq!(hanging["checks"]["database"]["status"], "unavailable");
    assert_not_known(&hanging);
    for part in ["database", "migrations", "queue"] {
        until(&api, part, "ok", 200).await;
    }

    signal_all(&processes_of(&cluster)[..1], Signal::SIGKILL);
    cluster.exited().await;
    let reason = until_unavailable(&api, "database").await;
    assert!(
        !reason.contains("127.0.0.1"),
        "no address is shown: {reason}"
    );
    until(&api, "listener", "degraded", 503).await;
    cluster.ensure_alive().await.unwrap();
    for part in PARTS {
        until(&api, part, "ok", 200).await;
    }

    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
    assert!(grid.stop().await);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_workers_and_with_a_full_disk_readings_are_accepted_all_the_same() {
    let grid = Grid::without_service(&[]).await;
    let full = ("DISK_FREE_MIN_MB", "1000000000");
    let server = grid.spawn(&[("GRIDTOKENX_ROLE", "api"), full]).await;
    let api = server.admin();
    let workers = until(&api, "workers", "degraded", 200).await;
    assert!(
        workers["reason"]
            .as_str()
            .unwrap()
            .contains("--role worker")
    );
    let disk = until(&api, "disk", "degraded", 200).await;
    let reason = disk["reason"].as_str().unwrap();
    assert!(reason.contains("DISK_FREE_MIN_MB=1000000000"), "{reason}");
    server.user("prosumer").meter().await.report("1").await;

    let mut worker = grid.spawn(&[("GRIDTOKENX_ROLE", "worker")]).await;
    until(&api, "workers", "ok", 200).await;
    grid.until_count("finalized", 1).await;
    assert!(worker.terminate().await.success());
    until(&api, "workers", "degraded", 200).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_reports_the_databases_error_once() {
    const TARGET: &str = "gridtokenx::api::operations::database_probe";
    let grid = Grid::without_service(&[]).await;
    let level = format!("info,{TARGET}=debug");
    let logged = [("LOG_LEVEL", level.as_str()), ("LOG_FORMAT", "json")];
    let server = grid.spawn(&logged).await;
    let api = server.admin();
    until(&api, "database", "ok", 200).await;

    let mut elsewhere: url::Url = grid.database_url.parse().unwrap();
    let database = elsewhere.path().trim_start_matches('/').to_owned();
    elsewhere.set_path("/postgres");
    let elsewhere = PgPool::connect(elsewhere.as_str()).await.unwrap();
    execute(
        &elsewhere,
        format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false"),
    )
    .await;
    execute(
        &elsewhere,
        format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
        ),
    )
    .await;
    let shown = until_reported(&api, &[("database", "the log says how".to_owned())]).await;
    assert_not_known(&shown);
    let lines = |level: &str| {
        let log = server.log();
        let lines = log.lines().map(|line| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        });
        let ours = |line: &Value| line["target"] == TARGET && line["level"] == level;
        lines.filter(ours).collect::<Vec<Value>>()
    };
    eventually("it is asked several times", async || {
        api.get("/health/ready").await;
        (lines("DEBUG").len() >= 2).then_some(())
    })
    .await;
    let warnings = lines("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let error = warnings[0]["error"].as_str().unwrap();
    assert!(error.contains("accepting connections"), "{error}");

    execute(
        &elsewhere,
        format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true"),
    )
    .await;
    for part in PARTS {
        until(&api, part, "ok", 200).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_that_checks_tokens_it_is_503_until_the_provider_is_back() {
    let provider = IdentityProvider::away().await;
    let grid = Grid::start_with(&[("JWT_JWKS_URL", &provider.jwks_url)]).await;
    let mut api = grid.admin();
    api.token = provider.token("an admin", "admin");
    let reason = until_unavailable(&api, "tokens").await;
    assert!(
        reason.contains("JWT_JWKS_URL has returned no keys"),
        "{reason}"
    );
    assert_eq!(api.get("/api/meters").await.status, 503);

    provider.come_back();
    // Without a request that needs the keys: a health check does not.
    let back = until(&api, "tokens", "ok", 200);
    timeout(REPORTED_WITHIN, back)
        .await
        .expect("it is asked again");
    assert_eq!(api.get("/api/meters").await.status, 200);

    let worker = grid.spawn(&[("GRIDTOKENX_ROLE", "worker")]).await;
    let ready = worker.admin().get("/health/ready").await;
    let checks = &ready.body["checks"];
    assert_eq!(checks["database"]["status"], "ok", "{ready:?}");
    assert!(checks.get("tokens").is_none(), "it checks none: {ready:?}");
}
