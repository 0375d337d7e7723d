//! A user of the REST API.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Timelike, Utc};
use gridtokenx::api::{Authenticator, TokenKeys};
use gridtokenx::meters::Role;
use serde_json::{Value, json};
use solana_sdk::signature::{Keypair, Signer};

/// The secret that all test services check tokens with.
pub const JWT_SECRET: &str = "a secret of the tests, longer than 32 bytes";

/// A caller with one token.
#[derive(Clone)]
pub struct Api {
    pub url: String,
    pub token: String,
    http: reqwest::Client,
}

/// A status and a JSON body.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    /// The body of a 2xx answer.
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.body
    }
}

pub fn token(subject: &str, role: Role) -> String {
    brief_token(subject, role, Duration::from_secs(3600))
}

pub fn brief_token(subject: &str, role: Role, ttl: Duration) -> String {
    Authenticator::new(TokenKeys::Secret(JWT_SECRET.to_owned()), None, None)
        .unwrap()
        .issue(subject, role, ttl)
        .unwrap()
}

impl Api {
    pub fn new(url: &str, subject: &str, role: Role) -> Api {
        Api {
            url: url.to_owned(),
            token: token(subject, role),
            http: reqwest::Client::builder()
                .timeout(Duration::from_secs(30))
                .build()
                .unwrap(),
        }
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body).await.unwrap()
    }

    /// `Err` when the connection broke before the answer.
    pub async fn try_post(&self, path: &str, body: &Value) -> reqwest::Result<Answer> {
        let request = self.http.post(format!("{}{path}", self.url)).json(body);
        answer(request.bearer_auth(&self.token).send().await?).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        let request = self.http.get(format!("{}{path}", self.url));
        answer(request.bearer_auth(&self.token).send().await.unwrap())
            .await
            .unwrap()
    }

    /// A document that is not JSON.
    pub async fn get_text(&self, path: &str) -> String {
        let request = self.http.get(format!("{}{path}", self.url));
        request.send().await.unwrap().text().await.unwrap()
    }

    /// Registers a meter with a new wallet.
    pub async fn meter(&self) -> Meter {
        let wallet = Keypair::new();
        let serial = format!("meter-{}", uuid::Uuid::now_v7());
        self.post(
            "/api/meters",
            &json!({ "meter_id": serial, "wallet_address": wallet.pubkey().to_string() }),
        )
        .await
        .ok();
        let hour = Utc::now()
            .with_minute(0)
            .and_then(|time| time.with_second(0))
            .and_then(|time| time.with_nanosecond(0))
            .unwrap();
        Meter {
            serial,
            wallet,
            api: self.clone(),
            newest: hour,
            intervals: AtomicI64::new(0),
        }
    }
}

async fn answer(response: reqwest::Response) -> reqwest::Result<Answer> {
    let status = response.status().as_u16();
    let bytes = response.bytes().await?;
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Ok(Answer { status, body })
}

/// A registered meter; each report covers another quarter of an hour.
pub struct Meter {
    pub serial: String,
    pub wallet: Keypair,
    pub api: Api,
    newest: DateTime<Utc>,
    intervals: AtomicI64,
}

impl Meter {
    /// The body of a submission for the next unreported quarter of an hour.
    pub fn next_submission(&self, kwh: &str) -> Value {
        let back = self.intervals.fetch_add(1, Ordering::Relaxed);
        let end = self.newest - TimeDelta::minutes(15 * back);
        json!({
            "meter_id": self.serial,
            "kwh_amount": kwh,
            "reading_timestamp": end.to_rfc3339_opts(SecondsFormat::Secs, true),
        })
    }

    /// The same meter, reporting to another service.
    pub fn at(self, api: &Api) -> Meter {
        Meter {
            api: api.clone(),
            ..self
        }
    }

    /// Reports a reading and returns its id.
    pub async fn report(&self, kwh: &str) -> String {
        let submission = self.next_submission(kwh);
        let body = self
            .api
            .post("/api/meters/submit-reading", &submission)
            .await
            .ok();
        body["reading_id"].as_str().unwrap().to_owned()
    }

    /// Reports this many readings in one request and returns their ids.
    pub async fn report_many(&self, kwh: &str, readings: usize) -> Vec<String> {
        let submissions: Vec<Value> = (0..readings).map(|_| self.next_submission(kwh)).collect();
        let body = json!({ "readings": submissions });
        let answer = self
            .api
            .post("/api/meters/submit-readings", &body)
            .await
            .ok();
        assert_eq!(answer["accepted"], readings, "{answer}");
        let results = answer["results"].as_array().unwrap().iter();
        results
            .map(|result| result["reading_id"].as_str().unwrap().to_owned())
            .collect()
    }
}
