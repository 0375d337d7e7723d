//! The API's guarantees on a running service: every refusal has one shape, the documentation works offline, figures are
//! correct, settings survive a restart.

use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use crate::support::metrics::value_in;
use crate::support::{Grid, IdentityProvider, eventually};

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    async fn to(request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let answer = Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.text().await.unwrap(),
        };
        answer.header("x-request-id");
        answer
    }

    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .unwrap_or_else(|| panic!("no header {name}: {:?}", self.headers))
            .to_str()
            .unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Asserts exactly this problem document.
    fn is_problem(&self, status: u16, slug: &str, title: &str, sentence: &str) {
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(
            self.json(),
            json!({
                "type": format!("/problems/{slug}"),
                "title": title,
                "status": status,
                "detail": sentence,
                "error": sentence,
            })
        );
        assert_eq!(self.status, status);
    }
}

async fn get(url: &str) -> Answer {
    Answer::to(Client::new().get(url)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_a_problem_document() {
    let mut grid = Grid::start().await;
    let api = grid.api_url();
    let user = grid.user("prosumer");
    let http = Client::new();

    get(&format!("{api}/api/meters")).await.is_problem(
        401,
        "unauthorized",
        "Unauthorized",
        "a bearer token is needed: send `Authorization: Bearer TOKEN`",
    );
    let forged = http.get(format!("{api}/api/meters")).bearer_auth("a.b.c");
    Answer::to(forged).await.is_problem(
        401,
        "unauthorized",
        "Unauthorized",
        "the bearer token is not a JWT: its header cannot be read",
    );
    let status = format!("{api}/api/admin/tokenization/status");
    Answer::to(http.get(&status).bearer_auth(&user.token))
        .await
        .is_problem(
            403,
            "forbidden",
            "Forbidden",
            "this is for admins: the token's role must be \"admin\"",
        );
    get(&format!("{api}/nothing")).await.is_problem(
        404,
        "not-found",
        "Not found",
        "there is nothing at this path; `GET /docs` lists the paths",
    );
    let wrong_method = Answer::to(http.delete(format!("{api}/api/meters"))).await;
    wrong_method.is_problem(
        405,
        "method-not-allowed",
        "Method not allowed",
        "DELETE is not allowed here; the header `Allow` lists what is",
    );
    let mut allowed: Vec<&str> = wrong_method.header("allow").split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);

    let submit = || {
        http.post(format!("{api}/api/meters/submit-reading"))
            .bearer_auth(&user.token)
    };
    Answer::to(submit().header("content-type", "text/plain").body("{}"))
        .await
        .is_problem(
            415,
            "unsupported-media-type",
            "Unsupported media type",
            "the request body is declared as \"text/plain\"; send JSON with `content-type: application/json`",
        );
    let json = || submit().header("content-type", "application/json");
    Answer::to(json().body(" ".repeat((1 << 20) + 1)))
        .await
        .is_problem(
            413,
            "payload-too-large",
            "Payload too large",
            "the request body is larger than 1048576 bytes; send fewer readings at once",
        );
    Answer::to(json().body("{\n  oops}")).await.is_problem(
        400,
        "malformed-request",
        "Malformed request",
        "the request body is not valid JSON: key must be a string at line 2 column 3",
    );
    assert!(grid.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_of_a_running_service_is_browsable_and_whole() {
    let mut grid = Grid::start().await;
    let api = grid.api_url();
    let docs = get(&format!("{api}/docs")).await;
    assert_eq!(docs.status, 200, "after the redirect to /docs/");
    assert!(docs.body.contains("swagger-ui"));
    assert!(!docs.body.contains("https://"));
    let document = get(&format!("{api}/api/openapi.json")).await.json();
    for path in [
        "/api/meters",
        "/api/meters/submit-reading",
        "/api/meters/submit-readings",
        "/api/readings",
        "/api/readings/{id}",
        "/api/events",
        "/api/events/stream",
        "/ws",
        "/api/admin/tokenization/status",
        "/health/live",
        "/health/ready",
        "/metrics",
    ] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    assert_eq!(get(&format!("{api}/")).await.status, 200);
    assert!(grid.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_over_its_rate_limit_waits_and_others_do_not() {
    let mut grid = Grid::start_with(&[("API_RATE_LIMIT", "5")]).await;
    let ask = async |subject: &str| {
        let user = grid.user(subject);
        let request = Client::new().get(format!("{}/api/meters", user.url));
        Answer::to(request.bearer_auth(&user.token)).await
    };
    for _ in 0..5 {
        assert_eq!(ask("greedy").await.status, 200);
    }
    let refused = ask("greedy").await;
    refused.is_problem(
        429,
        "rate-limited",
        "Rate limited",
        "more than 5 requests a minute; wait, or send readings in bulk",
    );
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=12).contains(&wait), "{wait}");
    assert_eq!(ask("modest").await.status, 200);
    for _ in 0..10 {
        assert_eq!(
            get(&format!("{}/health/ready", grid.api_url()))
                .await
                .status,
            200
        );
    }
    assert!(grid.stop().await);
}

async fn metric(api: &str, name: &str) -> f64 {
    value_in(&get(&format!("{api}/metrics")).await.body, name)
}

/// Everything that one process runs on a period when it has every part and every lock: name, period, limit, seconds.
const PERIODIC_TASKS: [(&str, f64, Option<f64>); 26] = [
    ("JWKS refresh", 530.0, None),
    ("canary freshness", 5.0, Some(5.0)),
    ("canary sender", 60.0, None),
    ("chain charges", 3_600.0, Some(30.0)),
    ("chain monitor", 5.0, None),
    ("disk watch", 5.0, Some(5.0)),
    ("endpoint capabilities", 10.0, None),
    ("event hub", 0.4, Some(60.0)),
    ("event retention", 60.0, Some(60.0)),
    ("event sequencer", 0.4, Some(60.0)),
    ("expiry proofs", 2.0, None),
    ("folding of counts", 5.0, None),
    ("hand-back of jobs", 2.0, None),
    ("heartbeat check", 1.0, Some(1.0)),
    ("late transactions", 2.0, None),
    ("ledger breaker", 60.0, None),
    ("log level", 5.0, Some(5.0)),
    ("metric samples", 5.0, None),
    ("outage announcements", 1.0, Some(60.0)),
    ("quarantine", 2.0, None),
    ("queue poll", 1.0, None),
    ("rate limiter cleanup", 60.0, None),
    ("reading of charges", 5.0, None),
    ("resolver rounds", 0.4, None),
    ("sweep", 1.0, Some(60.0)),
    ("worker watch", 2.0, Some(2.0)),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_status_lists_what_runs_on_a_period_and_how_often_it_ran() {
    let provider = IdentityProvider::away().await;
    provider.come_back();
    let grid = Grid::start_with(&[
        ("CANARY_ENABLED", "true"),
        ("JWT_JWKS_URL", &provider.jwks_url),
        ("TOKENIZATION_POLLING_INTERVAL_SECS", "1"),
    ])
    .await;
    let mut admin = grid.admin();
    admin.token = provider.token("an admin", "admin");
    eventually("every task has run", async || {
        let shown = admin.get("/api/admin/tokenization/status").await;
        // A loaded machine: the database did not answer in time.
        if shown.status == 503 {
            return None;
        }
        let shown = shown.ok();
        let tasks = shown["periodic_tasks"].as_array().unwrap();
        let figure = |task: &Value, field: &str| task[field].as_f64();
        let mut listed: Vec<(&str, f64, Option<f64>)> = tasks
            .iter()
            .map(|task| {
                let name = task["name"].as_str().unwrap();
                let every_secs = figure(task, "every_secs").unwrap();
                (name, every_secs, figure(task, "limit_secs"))
            })
            .collect();
        listed.sort_by_key(|(name, ..)| *name);
        assert_eq!(listed, PERIODIC_TASKS);
        let all_have_run = tasks.iter().all(|task| task["runs"].as_u64() > Some(0));
        all_have_run.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_metrics_show_what_waits_and_why() {
    let mut grid = Grid::start_with(&[("TOKENIZATION_AUTO_MINT_ENABLED", "false")]).await;
    let api = grid.api_url();
    let meter = grid.meter().await;
    for _ in 0..3 {
        meter.report("1").await;
    }
    let admin = grid.admin();
    let status = async || admin.get("/api/admin/tokenization/status").await.ok();
    let shown = status().await;
    assert_eq!(shown["auto_mint_enabled"], false);
    assert_eq!(shown["unminted_readings_count"], 3);
    assert_eq!(shown["held_readings_count"], 3);
    assert_eq!(shown["readings_by_state"]["pending"], 3);
    assert_eq!(
        shown["oldest_waiting_at"],
        Value::Null,
        "held ones wait for a person"
    );
    assert_eq!(shown["breaker"]["state"], "closed");
    assert_eq!(shown["configuration"]["SHUTDOWN_TIMEOUT_SECS"], "20");
    assert_eq!(shown["configuration"]["DATABASE_URL"], "***");
    eventually("the scrape shows it", async || {
        (metric(&api, "gridtokenx_unminted_readings_count").await == 3.0).then_some(())
    })
    .await;
    assert_eq!(metric(&api, "gridtokenx_held_readings_count").await, 3.0);
    assert_eq!(metric(&api, "gridtokenx_database_figures_stale").await, 0.0);

    // Every process follows a change of the stored settings.
    sqlx::query("UPDATE settings SET auto_mint_enabled = TRUE")
        .execute(&grid.pool)
        .await
        .unwrap();
    eventually("the setting is followed", async || {
        (status().await["auto_mint_enabled"] == true).then_some(())
    })
    .await;

    // A stored setting takes precedence over a different configuration at the next start.
    assert!(grid.stop().await);
    grid.serve().await;
    let shown = grid
        .admin()
        .get("/api/admin/tokenization/status")
        .await
        .ok();
    assert_eq!(shown["auto_mint_enabled"], true);
    assert!(grid.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_by_state_sum_to_the_accepted_readings_at_every_moment() {
    let mut grid = Grid::start_with(&[("MINT_LINGER_MS", "1")]).await;
    let meter = grid.meter().await;
    let counted_right = async || -> bool {
        // One statement, so one snapshot.
        sqlx::query_scalar(
            "SELECT (SELECT json_object_agg(state, readings) FROM (
                         SELECT state, sum(readings) AS readings
                         FROM (
                             SELECT state, readings FROM reading_counts
                             UNION ALL
                             SELECT state, change FROM reading_count_changes
                         ) AS counted
                         GROUP BY state
                         HAVING sum(readings) <> 0
                         ORDER BY state
                     ) AS written)::TEXT
                    IS NOT DISTINCT FROM
                    (SELECT json_object_agg(state, readings) FROM (
                         SELECT state, count(*) AS readings FROM readings GROUP BY state ORDER BY state
                     ) AS true_counts)::TEXT",
        )
        .fetch_one(&grid.pool)
        .await
        .unwrap()
    };
    let minting = async {
        for _ in 0..30 {
            meter.report("1").await;
        }
        grid.until_count("finalized", 30).await;
    };
    let looking = async {
        loop {
            assert!(counted_right().await);
        }
    };
    tokio::select! {
        () = minting => {}
        () = looking => {}
    }
    let folded = async || {
        let changes: i64 = sqlx::query_scalar("SELECT count(*) FROM reading_count_changes")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
        changes == 0
    };
    grid.until("the changes are folded", folded).await;
    let shown = grid
        .admin()
        .get("/api/admin/tokenization/status")
        .await
        .ok();
    assert_eq!(shown["accepted_readings_count"], 30);
    assert_eq!(shown["readings_by_state"]["finalized"], 30);
    assert!(grid.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_database_became_read_only_is_not_ready() {
    let mut grid = Grid::start().await;
    let ready = format!("{}/health/ready", grid.api_url());
    assert_eq!(get(&ready).await.status, 200);
    let database = grid.database_url.rsplit('/').next().unwrap().to_owned();
    let database = database.split('?').next().unwrap();
    // As after a fail-over to a standby: sessions end, and new ones cannot write.
    let set = async |value: &str| {
        let mut connection = grid.pool.acquire().await.unwrap();
        for statement in [
            "SET default_transaction_read_only = off".to_owned(),
            format!("ALTER DATABASE {database} SET default_transaction_read_only = {value}"),
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()"
                .to_owned(),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .execute(&mut *connection)
                .await
                .unwrap();
        }
    };
    set("on").await;
    eventually("it says so", async || {
        let answer = get(&ready).await;
        let reason = answer.json()["checks"]["database"]["reason"].clone();
        (answer.status == 503 && reason == "the database is read-only (a standby?)").then_some(())
    })
    .await;
    set("off").await;
    eventually("it is ready again", async || {
        (get(&ready).await.status == 200).then_some(())
    })
    .await;
    assert!(grid.stop().await);
}
