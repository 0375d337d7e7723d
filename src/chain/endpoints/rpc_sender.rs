//! How a call of one class reaches an endpoint: one HTTP request, none during the pause of its budget.
//!
//! solana-client's own sender waits inside a call for up to ten minutes after a 429, and the caller does not learn why. Here a
//! 429 starts a pause. A hot call fails at once, so that another endpoint can be queried; a background call waits in place and is
//! made again, so that nothing that was read so far is lost.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;
use solana_client::client_error::{ClientError, ClientErrorKind, Result as ClientResult};
use solana_client::rpc_custom_error::{
    JSON_RPC_SERVER_ERROR_NODE_UNHEALTHY, JSON_RPC_SERVER_ERROR_SEND_TRANSACTION_PREFLIGHT_FAILURE,
    NodeUnhealthyErrorData,
};
use solana_client::rpc_request::{RpcError, RpcRequest, RpcResponseErrorData};
use solana_client::rpc_sender::{RpcSender, RpcTransportStats};

use super::call_budget::CallBudgets;
use super::rate_limit::{pause_of, rate_limited, requested_pause};
use super::rpc_class::RpcClass;
use crate::chain::commitment::Commitments;
use crate::telemetry::names;
use crate::telemetry::traces::{Span, TRACEPARENT, attributes};

/// Sends calls to one endpoint.
pub(super) struct EndpointSender {
    http: reqwest::Client,
    url: String,
    /// The endpoint's name, for metrics.
    endpoint: String,
    class: RpcClass,
    budgets: Arc<CallBudgets>,
    commitments: Arc<Commitments>,
    /// Limit of one request.
    call_limit: Duration,
    next_id: AtomicU64,
}

impl EndpointSender {
    pub fn new(
        http: reqwest::Client,
        url: String,
        endpoint: String,
        class: RpcClass,
        budgets: Arc<CallBudgets>,
        commitments: Arc<Commitments>,
        call_limit: Duration,
    ) -> EndpointSender {
        EndpointSender {
            http,
            url,
            endpoint,
            class,
            budgets,
            commitments,
            call_limit,
            next_id: AtomicU64::new(0),
        }
    }

    /// With a commitment that the endpoint takes.
    async fn call(&self, request: RpcRequest, params: Value) -> ClientResult<Value> {
        let params = self.commitments.adapt(params, Instant::now());
        let answer = self.call_with(request, &params).await;
        let repeated = self
            .commitments
            .after_refusal(&answer, &params, Instant::now());
        let Some(params) = repeated else {
            return answer;
        };
        let answer = self.call_with(request, &params).await;
        if self.commitments.note_repeated(&answer, Instant::now()) {
            tracing::info!(
                endpoint = self.endpoint,
                "RPC endpoint refuses the commitment `confirmed`; it is called with `finalized`"
            );
        }
        answer
    }

    async fn call_with(&self, request: RpcRequest, params: &Value) -> ClientResult<Value> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = request.build_request_json(id, params.clone()).to_string();
        let budget = self.budgets.of(self.class);
        let gives_up_at = Instant::now() + budget.pause_wait;
        loop {
            budget.pacer.turn().await;
            let now = Instant::now();
            if let Some(wait) = budget.pause.remaining(now) {
                if now + wait > gives_up_at {
                    count(&self.endpoint, request, "held");
                    return Err(rate_limited(wait));
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
                Err(error) if pause_of(&error).is_some() && !budget.pause_wait.is_zero() => {}
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
        let requested = requested_pause(response.headers());
        let refuses = match response.status() {
            StatusCode::TOO_MANY_REQUESTS => true,
            StatusCode::SERVICE_UNAVAILABLE => requested.is_some(),
            _ => false,
        };
        if refuses {
            let pause = self
                .budgets
                .note_refusal(self.class, requested, Instant::now());
            return Err(rate_limited(pause));
        }
        self.budgets.note_answer(self.class);
        let response = response.error_for_status().map_err(without_url)?;
        let answer: Value = response.json().await.map_err(without_url)?;
        result_of(answer)
    }
}

impl RpcSender for EndpointSender {
    // The trait is declared with `async_trait`; this is the expansion.
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

    /// Not the URL, which may hold an access key: the client writes it into its logs.
    fn url(&self) -> String {
        self.endpoint.clone()
    }
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

fn outcome_of(answer: &ClientResult<Value>) -> &'static str {
    match answer {
        Ok(_) => "answered",
        Err(error) if pause_of(error).is_some() => "rate_limited",
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
    fn a_rate_limited_call_is_counted_as_such() {
        let error = rate_limited(Duration::from_secs(9));
        assert_eq!(outcome_of(&Err(error)), "rate_limited");
    }

    #[test]
    fn methods_that_are_not_ours_share_one_label() {
        assert_eq!(method_label(RpcRequest::SendTransaction), "sendTransaction");
        assert_eq!(method_label(RpcRequest::GetInflationRate), "other");
    }
}
