//! For tests that send requests through the router, without a database.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::Value;
use solana_sdk::pubkey::Pubkey;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::auth::authenticated::{AdminOnly, Authenticated};
use super::auth::authenticator::{Authenticator, TokenKeys};
use super::auth::caller_auth::CallerAuth;
use super::chain_access::{ChainAccess, MintingStatus, ShownSettings};
use super::extract::JsonBody;
use super::live_feed::LiveFeed;
use super::operations::operations_state::Operations;
use super::origin::CorsOrigins;
use super::problem::Problem;
use super::server::layers::with_middleware;
use super::state::AppState;
use crate::chain::{CircuitBreaker, Endpoints, FeeBudget, MintAccounts, PriorityFees};
use crate::config::Config;
use crate::domain::BaseUnits;
use crate::feed::{DrainSchedule, Hub, Seq};
use crate::meters::Role;
use crate::mint::{ChainHandle, Estimator, FeePayerSource};
use crate::periodic::TaskList;
use crate::readings::Intake;
use crate::telemetry::{Health, Metrics};

/// Nothing listens there.
pub const NO_DATABASE: &str = "postgres://nobody@127.0.0.1:9/none";

/// A state whose database is at `database`.
pub fn test_state(database: &str, requests_per_minute: u32) -> AppState {
    let config = Config::defaults();
    let pool = sqlx::postgres::PgPoolOptions::new()
        .acquire_timeout(Duration::from_secs(30))
        .connect_lazy(database)
        .unwrap();
    let secret = TokenKeys::Secret("0123456789abcdef0123456789abcdef".to_owned());
    let authenticator = Authenticator::new(secret, None, None).unwrap();
    let intake = Intake::start(
        pool.clone(),
        &config.intake,
        &config.tokenization,
        &config.blockchain,
        &TaskTracker::new(),
    );
    let hub = Hub::at(
        pool.clone(),
        Seq::default(),
        config.tokenization.transaction_timeout,
    );
    let endpoints = Endpoints::new(&["http://127.0.0.1:9".to_owned()], Duration::from_secs(1));
    let fee_budget = FeeBudget::default();
    AppState {
        auth: CallerAuth::new(authenticator, requests_per_minute.try_into().unwrap()),
        intake,
        operations: Operations::new(
            pool.clone(),
            Health::default(),
            Metrics::install().unwrap(),
            fee_budget.clone(),
        ),
        minting: MintingStatus {
            circuit_breaker: CircuitBreaker::default(),
            fee_budget,
            estimator: estimator(&config, endpoints.clone()),
            settings: Arc::new(ShownSettings {
                polling_interval_secs: 60,
                batch_size: 50,
                transaction_timeout: Duration::from_secs(60),
                all: config.effective,
            }),
            periodic_tasks: TaskList::default(),
        },
        chain: ChainAccess {
            endpoints,
            mint: Pubkey::default(),
        },
        feed: LiveFeed {
            hub,
            limits: Arc::new(config.websocket),
            drain_schedule: DrainSchedule::within(CancellationToken::new(), Duration::from_secs(1)),
            draining: CancellationToken::new(),
            connections: TaskTracker::new(),
        },
        cors_origins: CorsOrigins::new(vec![HeaderValue::from_static("https://grid.example")]),
        pool,
    }
}

fn estimator(config: &Config, endpoints: Endpoints) -> Estimator {
    let accounts = MintAccounts {
        genesis_hash: Default::default(),
        mint: Pubkey::default(),
        authority: Pubkey::default(),
        decimals: config.tokenization.decimals,
    };
    let priority_fees = PriorityFees::new(
        config.blockchain.priority_fee,
        config.blockchain.priority_fee_max,
    );
    let chain = ChainHandle::new(
        endpoints,
        accounts,
        FeePayerSource::Ledger(None),
        priority_fees,
    );
    Estimator::new(chain, 50, BaseUnits::new(1))
}

#[derive(Deserialize)]
struct Sample {
    name: String,
}

/// A few routes that show what extractors and middleware do.
pub fn sample_routes(state: AppState) -> Router {
    let routes = Router::new()
        .route(
            "/sample",
            post(|JsonBody(sample): JsonBody<Sample>| async { sample.name }),
        )
        .route(
            "/own",
            get(|Authenticated(principal): Authenticated| async { principal.caller.subject }),
        )
        .route("/admins", get(|_: AdminOnly| async { "admins" }))
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("a secret cause");
                }
            }),
        )
        .route(
            "/busy",
            get(|| async { Problem::unavailable("come back later") }),
        );
    let cors_origins = state.cors_origins.clone();
    with_middleware(routes.with_state(state), &cors_origins)
}

/// The answer to a test's request.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no header {name}"))
            .to_str()
            .unwrap()
    }

    /// The sentence of a problem document, all of whose members are checked.
    pub fn problem(&self, status: u16, slug: &str) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(self.status.as_u16(), status, "{document}");
        assert_eq!(document["status"], status);
        assert_eq!(document["type"], format!("/problems/{slug}"));
        assert!(document["title"].is_string());
        assert_eq!(document["detail"], document["error"]);
        document["error"].as_str().unwrap().to_owned()
    }
}

/// The answer; the headers of every answer are checked.
pub async fn call(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 16 << 20).await.unwrap();
    assert!(parts.headers.contains_key("x-request-id"));
    assert_eq!(parts.headers["x-content-type-options"], "nosniff");
    assert!(parts.headers.contains_key("content-security-policy"));
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

pub fn request(method: &str, path: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .body(Body::empty())
        .unwrap()
}

pub fn with_token(path: &str, token: &str) -> Request<Body> {
    Request::builder()
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Body::empty())
        .unwrap()
}

pub fn with_json(body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method("POST")
        .uri("/sample")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

pub fn token(state: &AppState, role: Role) -> String {
    state.auth.issue("alice", role)
}
