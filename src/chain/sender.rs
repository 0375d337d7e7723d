//! How calls travel to an endpoint: one HTTP request each, none while the endpoint's gate is closed.
//!
//! solana-client's own sender waits inside a call for up to ten minutes when it is told 429, and nobody outside learns why.
//! Here a 429 closes the endpoint's gate and is the caller's answer at once, so that another endpoint can be asked.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::Utc;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use solana_client::client_error::{ClientError, ClientErrorKind, Result as ClientResult};
use solana_client::rpc_custom_error::{
    JSON_RPC_SERVER_ERROR_NODE_UNHEALTHY, JSON_RPC_SERVER_ERROR_SEND_TRANSACTION_PREFLIGHT_FAILURE,
    NodeUnhealthyErrorData,
};
use solana_client::rpc_request::{RpcError, RpcRequest, RpcResponseErrorData};
use solana_client::rpc_sender::{RpcSender, RpcTransportStats};
use thiserror::Error;

use super::rate_limit::{RateLimitPause, pause_of};
use crate::telemetry::names;
use crate::telemetry::traces::{Span, TRACEPARENT, attributes};

/// A call that the endpoint did not want to have now. Travels inside [`ClientErrorKind::Middleware`].
#[derive(Clone, Copy, Debug, Error)]
#[error("no more calls for {wait:?}")]
pub(super) struct TooManyCalls {
    pub wait: Duration,
}

/// The way to one endpoint.
pub(super) struct EndpointSender {
    pub http: reqwest::Client,
    pub url: String,
    /// The endpoint's name, for metrics.
    pub endpoint: String,
    pub rate_limit: Arc<RateLimitPause>,
    /// Limit of one request.
    pub call_limit: Duration,
    /// How long a call waits for a closed gate before it fails. Zero in a service, which has other endpoints and can wait
    /// elsewhere; a command that a person started rather waits.
    pub patience: Duration,
    pub next_id: AtomicU64,
}

impl EndpointSender {
    async fn call(&self, request: RpcRequest, params: Value) -> ClientResult<Value> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = request.build_request_json(id, params).to_string();
        let gives_up_at = Instant::now() + self.patience;
        loop {
            let now = Instant::now();
            if let Some(wait) = self.rate_limit.remaining(now) {
                if now + wait > gives_up_at {
                    count(&self.endpoint, request, "held");
                    return Err(too_many_calls(wait));
                }
                tokio::time::sleep(wait).await;
                continue;
            }
            let span = Span::of_call(method_label(request), &self.endpoint);
            let answer = self.post(body.clone(), &span).await;
            let outcome = outcome_of(&answer);
            span.set(attributes::OUTCOME, outcome);
            if answer.is_err() {
                span.fail(outcome);
            }
            metrics::histogram!(
                names::RPC_CALL_SECONDS,
                "endpoint" => self.endpoint.clone(),
                "method" => method_label(request)
            )
            .record(now.elapsed());
            count(&self.endpoint, request, outcome);
            match answer {
                Err(error) if wait_asked(&error).is_some() && !self.patience.is_zero() => {}
                answer => return answer,
            }
        }
    }

    async fn post(&self, body: String, span: &Span) -> ClientResult<Value> {
        let mut request = self
            .http
            .post(&self.url)
            .timeout(self.call_limit)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        if let Some(context) = span.context() {
            request = request.header(TRACEPARENT, context.to_string());
        }
        let response = request.send().await.map_err(without_url)?;
        if let Some(pause) = pause_asked(&response) {
            self.rate_limit.extend(pause, Instant::now());
            return Err(too_many_calls(pause));
        }
        let response = response.error_for_status().map_err(without_url)?;
        let answer: Value = response.json().await.map_err(without_url)?;
        result_of(answer)
    }
}

impl RpcSender for EndpointSender {
    // The trait is written with `async_trait`; this is what it stands for.
    fn send<'life, 'future>(
        &'life self,
        request: RpcRequest,
        params: Value,
    ) -> Pin<Box<dyn Future<Output = ClientResult<Value>> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(self.call(request, params))
    }

    fn get_transport_stats(&self) -> RpcTransportStats {
        RpcTransportStats::default()
    }

    /// Not the URL, which may hold an access key: the client puts it into its logs.
    fn url(&self) -> String {
        self.endpoint.clone()
    }
}

/// 429 always, and 503 with a Retry-After.
fn pause_asked(response: &Response) -> Option<Duration> {
    let header = response.headers().get(RETRY_AFTER);
    let asked = match response.status() {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::SERVICE_UNAVAILABLE => header.is_some(),
        _ => false,
    };
    asked.then(|| pause_of(header.and_then(|text| text.to_str().ok()), Utc::now()))
}

fn result_of(mut answer: Value) -> ClientResult<Value> {
    if !answer.is_object() {
        return Err(RpcError::RpcRequestError("the answer is no JSON object".to_owned()).into());
    }
    if answer["error"].is_null() {
        return Ok(answer["result"].take());
    }
    let error = answer["error"].take();
    let (Some(code), Some(message)) = (error["code"].as_i64(), error["message"].as_str()) else {
        let text = "the answer is an error without code and message";
        return Err(RpcError::RpcRequestError(text.to_owned()).into());
    };
    let data = match code {
        JSON_RPC_SERVER_ERROR_SEND_TRANSACTION_PREFLIGHT_FAILURE => {
            serde_json::from_value(error["data"].clone())
                .map(RpcResponseErrorData::SendTransactionPreflightFailure)
                .unwrap_or(RpcResponseErrorData::Empty)
        }
        JSON_RPC_SERVER_ERROR_NODE_UNHEALTHY => serde_json::from_value(error["data"].clone())
            .map(|NodeUnhealthyErrorData { num_slots_behind }| {
                RpcResponseErrorData::NodeUnhealthy { num_slots_behind }
            })
            .unwrap_or(RpcResponseErrorData::Empty),
        _ => RpcResponseErrorData::Empty,
    };
    Err(RpcError::RpcResponseError {
        code,
        message: message.to_owned(),
        data,
    }
    .into())
}

fn without_url(error: reqwest::Error) -> ClientError {
    error.without_url().into()
}

fn too_many_calls(wait: Duration) -> ClientError {
    ClientErrorKind::Middleware(TooManyCalls { wait }.into()).into()
}

/// How long the endpoint asked to be left alone, if that is what the error says.
pub(super) fn wait_asked(error: &ClientError) -> Option<Duration> {
    match error.kind() {
        ClientErrorKind::Middleware(error) => {
            error.downcast_ref::<TooManyCalls>().map(|asked| asked.wait)
        }
        _ => None,
    }
}

fn outcome_of(answer: &ClientResult<Value>) -> &'static str {
    match answer {
        Ok(_) => "answered",
        Err(error) if wait_asked(error).is_some() => "rate_limited",
        Err(error) => match error.kind() {
            ClientErrorKind::RpcError(RpcError::RpcResponseError { .. }) => "error",
            _ => "unreachable",
        },
    }
}

fn count(endpoint: &str, request: RpcRequest, outcome: &'static str) {
    metrics::counter!(
        names::RPC_CALLS,
        "endpoint" => endpoint.to_owned(),
        "method" => method_label(request),
        "outcome" => outcome,
    )
    .increment(1);
}

/// One of [`names::RPC_METHODS`].
fn method_label(request: RpcRequest) -> &'static str {
    let method = request.to_string();
    names::RPC_METHODS
        .iter()
        .find(|known| **known == method)
        .copied()
        .unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_a_result_or_an_error_with_its_code() {
        assert_eq!(result_of(json!({"result": 7})).unwrap(), json!(7));
        assert_eq!(result_of(json!({"result": null})).unwrap(), Value::Null);
        let behind = json!({"error": {"code": -32005, "message": "Node is behind by 42 slots",
                                      "data": {"numSlotsBehind": 42}}});
        let error = result_of(behind).unwrap_err();
        let ClientErrorKind::RpcError(RpcError::RpcResponseError { code, data, .. }) = error.kind()
        else {
            panic!("{error}");
        };
        assert_eq!(*code, -32005);
        let RpcResponseErrorData::NodeUnhealthy { num_slots_behind } = data else {
            panic!("{data}");
        };
        assert_eq!(*num_slots_behind, Some(42));
        for nonsense in [json!("text"), json!([]), json!({"error": "no"})] {
            assert!(result_of(nonsense).is_err());
        }
    }

    #[test]
    fn what_an_endpoint_asked_for_survives_the_way_through_the_client() {
        let wait = Duration::from_secs(9);
        assert_eq!(wait_asked(&too_many_calls(wait)), Some(wait));
        assert_eq!(outcome_of(&Err(too_many_calls(wait))), "rate_limited");
    }

    #[test]
    fn methods_that_are_not_ours_share_one_label() {
        assert_eq!(method_label(RpcRequest::SendTransaction), "sendTransaction");
        assert_eq!(method_label(RpcRequest::GetInflationRate), "other");
    }
}
