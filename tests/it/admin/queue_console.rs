//! The queue console shows the jobs of the queue to admins only, and changes nothing.

use std::time::Duration;

use gridtokenx::meters::Role;
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use crate::support::client::{brief_token, token};
use crate::support::{Grid, eventually};

/// A browser without a cookie jar: the test chooses the cookie of each request.
struct Browser {
    url: String,
    http: reqwest::Client,
}

impl Browser {
    fn new(url: &str) -> Browser {
        Browser {
            url: url.to_owned(),
            http: reqwest::Client::builder()
                .redirect(Policy::none())
                .timeout(Duration::from_secs(30))
                .build()
                .unwrap(),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    async fn get(&self, path: &str, cookie: &str) -> Response {
        self.request(Method::GET, path)
            .header("cookie", cookie)
            .send()
            .await
            .unwrap()
    }

    /// As the login page does; gives the whole `Set-Cookie`, or where a refusal leads.
    async fn log_in(&self, token: &str) -> Result<String, String> {
        let response = self
            .request(Method::POST, "/admin/queue/login")
            .header("sec-fetch-site", "same-origin")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("token={token}"))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 303);
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().unwrap();
            Some(value.to_owned())
        };
        header("set-cookie").ok_or_else(|| header("location").unwrap())
    }

    /// A session's cookie, as a browser sends it back.
    async fn session(&self) -> String {
        let set = self.log_in(&token("an admin", Role::Admin)).await.unwrap();
        set.split(';').next().unwrap().to_owned()
    }

    async fn json(&self, path: &str, cookie: &str) -> Value {
        let response = self.get(path, cookie).await;
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }
}

async fn is_login_page(response: Response) -> bool {
    let status = response.status();
    let policy = response.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    let text = response.text().await.unwrap();
    status == 200
        && policy.starts_with("default-src 'none'")
        && text.contains("action=\"/admin/queue/login\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_session_there_is_a_login_and_nothing_else() {
    let grid = Grid::start().await;
    let browser = Browser::new(&grid.api_url());
    for path in ["/admin/queue", "/admin/queue/queues/MintReading"] {
        assert!(is_login_page(browser.get(path, "").await).await, "{path}");
    }
    let with_slash = browser.get("/admin/queue/", "").await;
    assert_eq!(with_slash.headers()["location"], "/admin/queue");
    let user = format!("gridtokenx_queue={}", token("anna", Role::User));
    let forged = "gridtokenx_queue=eyJhbGciOiJub25lIn0.eyJyb2xlIjoiYWRtaW4ifQ.".to_owned();
    for cookie in [
        "",
        "gridtokenx_queue=",
        "gridtokenx_queue=x",
        &user,
        &forged,
    ] {
        assert!(is_login_page(browser.get("/admin/queue", cookie).await).await);
        for path in [
            "/admin/queue/api/v1/queues",
            "/admin/queue/api/v1/tasks",
            "/admin/queue/api/v1/events",
            "/admin/queue/api/v1/queues/MintReading/tasks",
        ] {
            let response = browser.get(path, cookie).await;
            let status = response.status().as_u16();
            assert!([401, 403].contains(&status), "{path}: {status}");
            let problem: Value = response.json().await.unwrap();
            assert_eq!(problem["status"], status);
        }
    }
    // A token in a header does not open a session: the board sends no header, and a page of another site cannot send the cookie.
    let with_header = browser
        .request(Method::GET, "/admin/queue/api/v1/queues")
        .bearer_auth(token("an admin", Role::Admin))
        .send()
        .await
        .unwrap();
    assert_eq!(with_header.status(), 401);

    for (token, place) in [
        (token("anna", Role::User), "/admin/queue/login?refused=role"),
        ("nonsense".to_owned(), "/admin/queue/login?refused=token"),
        ("x".repeat(5_000), "/admin/queue/login?refused=size"),
    ] {
        assert_eq!(browser.log_in(&token).await, Err(place.to_owned()));
        let page = browser.get(place, "").await.text().await.unwrap();
        assert!(page.contains("role=\"alert\""), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_a_cookie_that_ends_with_its_token_or_by_logout() {
    let grid = Grid::start().await;
    let browser = Browser::new(&grid.api_url());
    let set = browser
        .log_in(&token("an admin", Role::Admin))
        .await
        .unwrap();
    for attribute in ["Path=/admin/queue", "HttpOnly", "SameSite=Strict"] {
        assert!(set.contains(attribute), "{set}");
    }
    assert!(!set.contains("Secure"), "on the loopback, in the clear");
    let max_age = set.split("Max-Age=").nth(1).unwrap();
    let max_age: i64 = max_age.split(';').next().unwrap().parse().unwrap();
    assert!((3_500..=3_600).contains(&max_age), "{set}");

    let behind_tls = browser
        .request(Method::POST, "/admin/queue/login")
        .header("sec-fetch-site", "same-origin")
        .header("x-forwarded-proto", "https")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("token={}", token("an admin", Role::Admin)))
        .send()
        .await
        .unwrap();
    let set = behind_tls.headers()["set-cookie"].to_str().unwrap();
    assert!(set.ends_with("; Secure"), "{set}");

    let cookie = browser.session().await;
    let page = browser.get("/admin/queue", &cookie).await;
    assert!(page.text().await.unwrap().contains("Apalis Board"));
    let logout = browser
        .request(Method::POST, "/admin/queue/logout")
        .header("cookie", &cookie)
        .header("sec-fetch-site", "same-origin")
        .send()
        .await
        .unwrap();
    assert_eq!(logout.status(), 303);
    let cleared = logout.headers()["set-cookie"].to_str().unwrap();
    assert!(cleared.starts_with("gridtokenx_queue=; "), "{cleared}");
    assert!(cleared.contains("Max-Age=0"), "{cleared}");

    // Clock skew is tolerated, so an expired token is accepted for another half minute.
    let brief = brief_token("an admin", Role::Admin, Duration::from_secs(1));
    let brief = format!("gridtokenx_queue={brief}");
    assert_eq!(
        browser
            .get("/admin/queue/api/v1/queues", &brief)
            .await
            .status(),
        200
    );
    eventually("the session ends with its token", async || {
        let response = browser.get("/admin/queue/api/v1/queues", &brief).await;
        (response.status() == 401).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_changes_anything_wherever_it_comes_from() {
    let grid = Grid::start().await;
    let browser = Browser::new(&grid.api_url());
    let cookie = browser.session().await;
    let admin = token("an admin", Role::Admin);
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
        ("x-nothing", ""),
    ] {
        for path in ["/admin/queue/login", "/admin/queue/logout"] {
            let response = browser
                .request(Method::POST, path)
                .header("cookie", &cookie)
                .header(name, value)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(format!("token={admin}"))
                .send()
                .await
                .unwrap();
            assert_eq!(response.status(), 403, "{path} with {name}: {value}");
            assert!(!response.headers().contains_key("set-cookie"));
        }
    }
    let job = r#"{"reading_id":"00000000-0000-0000-0000-000000000000"}"#;
    for (method, path) in [
        (Method::PUT, "/admin/queue/api/v1/queues/MintReading/tasks"),
        (
            Method::PUT,
            "/admin/queue/api/v1/queues/SweepUnminted/tasks",
        ),
        (Method::PUT, "/admin/queue/api/v1/tasks"),
        (Method::POST, "/admin/queue/api/v1/queues/MintReading/tasks"),
        (Method::DELETE, "/admin/queue/api/v1/queues/MintReading"),
        (Method::POST, "/admin/queue"),
    ] {
        let response = browser
            .request(method.clone(), path)
            .header("cookie", &cookie)
            .header("sec-fetch-site", "same-origin")
            .header("content-type", "application/json")
            .body(job)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 405, "{method} {path}");
        assert_eq!(response.headers()["allow"], "GET, HEAD");
    }
    let jobs: i64 =
        sqlx::query_scalar("SELECT count(*) FROM apalis.jobs WHERE job_type = 'MintReading'")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    assert_eq!(jobs, 0, "no job was put in");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_sees_all_queues_and_what_is_in_them_dead_jobs_too() {
    let grid = Grid::start_with(&[("TOKENIZATION_POLLING_INTERVAL_SECS", "1")]).await;
    let meter = grid.meter().await;
    let reading = meter.report("1").await;
    grid.until_count("finalized", 1).await;
    sqlx::query(
        "INSERT INTO apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at)
         VALUES ('01ARZ3NDEKTSV4RRFFQ69G5FAV', 'MintReading', 'no json', 'Pending', 0, 25, now())",
    )
    .execute(&grid.pool)
    .await
    .unwrap();
    let browser = Browser::new(&grid.api_url());
    let cookie = browser.session().await;

    let queues = browser.json("/admin/queue/api/v1/queues", &cookie).await;
    let names: Vec<&str> = queues
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|queue| queue["name"].as_str())
        .collect();
    for kind in ["MintReading", "SweepUnminted"] {
        assert!(names.contains(&kind), "{queues}");
        let base = format!("/admin/queue/api/v1/queues/{kind}");
        for figures in ["stats", "workers", "tasks?status=Done"] {
            // A job is marked as done a moment after its reading is final.
            eventually(&format!("{base} has {figures}"), async || {
                let listed = browser.json(&format!("{base}/{figures}"), &cookie).await;
                (!listed.as_array().unwrap().is_empty()).then_some(())
            })
            .await;
        }
    }
    let done = browser
        .json(
            "/admin/queue/api/v1/queues/MintReading/tasks?status=Done",
            &cookie,
        )
        .await;
    assert_eq!(done[0]["args"]["reading_id"], reading.as_str(), "{done}");
    let dead = eventually("the dead job is shown", async || {
        let path = "/admin/queue/api/v1/queues/MintReading/tasks?status=Killed";
        let dead = browser.json(path, &cookie).await;
        dead.as_array().unwrap().first().cloned()
    })
    .await;
    assert_eq!(dead["args"], "no json", "{dead}");
    let one = "/admin/queue/api/v1/queues/MintReading/tasks/01ARZ3NDEKTSV4RRFFQ69G5FAV";
    assert_eq!(browser.json(one, &cookie).await["args"], "no json");
    let mut grid = grid;
    let events = browser.get("/admin/queue/api/v1/events", &cookie).await;
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    assert!(grid.stop().await, "the open stream holds up no drain");
    assert_eq!(events.text().await.unwrap(), "", "it streams no logs");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_all_that_it_loads_are_under_its_own_address() {
    let grid = Grid::start().await;
    let browser = Browser::new(&grid.api_url());
    let cookie = browser.session().await;
    let response = browser.get("/admin/queue", &cookie).await;
    let policy = response.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(policy.contains("'wasm-unsafe-eval'"), "{policy}");
    assert!(!policy.contains("'unsafe-eval'"), "{policy}");
    let page = response.text().await.unwrap();
    let mut loaded = 0;
    for quote in ['"', '\''] {
        for path in page
            .split(quote)
            .filter(|part| part.starts_with("/admin/queue/"))
        {
            if !path.contains('.') {
                continue;
            }
            let response = browser.get(path, &cookie).await;
            assert_eq!(response.status(), 200, "{path}");
            let kind = response.headers()["content-type"].to_str().unwrap();
            let expected = match path.rsplit_once('.').unwrap().1 {
                "js" => "application/javascript",
                "css" => "text/css",
                "wasm" => "application/wasm",
                other => panic!("{other}"),
            };
            assert_eq!(kind, expected, "{path}");
            assert_eq!(browser.get(path, "").await.status(), 401, "{path}");
            loaded += 1;
        }
    }
    assert!(loaded >= 5, "{page}");
}
