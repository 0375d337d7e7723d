//! Sends a call of one class to an endpoint: one HTTP request, none during the pause of its budget.
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
use super::limit_recognition::{ProviderLimit, limit_met, limit_of, limited};
use super::provider_limits::ProviderLimits;
use super::rate_limit::{pause_of, rate_limited, requested_pause};
use super::rpc_class::RpcClass;
use super::rpc_method::method_name;
use super::url_secrets::UrlSecrets;
use crate::chain::commitment::Commitments;
use crate::telemetry::names;
use crate::telemetry::traces::{Span, TRACEPARENT, attributes};

/// Bytes of a refusal that are read: it is a sentence, and a page is not read at all.
const REFUSAL_BYTES_MAX: usize = 2_000;

/// Sends calls to one endpoint.
pub(super) struct EndpointSender {
    http: reqwest::Client,
    url: String,
    /// The endpoint's name, for metrics.
    endpoint: String,
    class: RpcClass,
    budgets: Arc<CallBudgets>,
    commitments: Arc<Commitments>,
    limits: Arc<ProviderLimits>,
    secrets: UrlSecrets,
    /// Limit of one request.
    call_limit: Duration,
    next_id: AtomicU64,
}

/// What the senders of both classes of one endpoint share.
#[derive(Clone)]
pub(super) struct SharedState {
    pub budgets: Arc<CallBudgets>,
    pub commitments: Arc<Commitments>,
    pub limits: Arc<ProviderLimits>,
}

impl EndpointSender {
    pub fn new(
        http: reqwest::Client,
        url: String,
        endpoint: String,
        class: RpcClass,
        call_limit: Duration,
        shared: SharedState,
    ) -> EndpointSender {
        let SharedState {
            budgets,
            commitments,
            limits,
        } = shared;
        EndpointSender {
            http,
            secrets: UrlSecrets::of(&url),
            url,
            endpoint,
            class,
            budgets,
            commitments,
            limits,
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
        let pause_wait = self.budgets.pause_wait(self.class);
        let gives_up_at = Instant::now() + pause_wait;
        loop {
            budget.pacer.turn().await;
            let now = Instant::now();
            if let Some(wait) = budget.pause.remaining(now) {
                if now + wait > gives_up_at {
                    count(&self.endpoint, self.class, request, "held");
                    return Err(rate_limited(wait));
                }
                tokio::time::sleep(wait).await;
                continue;
            }
            let span = Span::of_call(method_name(request), &self.endpoint);
            let answer = self.post(request, body.clone(), &span).await;
            let outcome = outcome_of(&answer);
            span.set(attributes::OUTCOME, outcome);
            if answer.is_err() {
                span.fail(outcome);
            }
            metrics::histogram!(
                names::RPC_CALL_SECONDS,
                "endpoint" => self.endpoint.clone(),
                "method" => method_name(request)
            )
            .record(now.elapsed());
            count(&self.endpoint, self.class, request, outcome);
            match answer {
                Err(error) if pause_of(&error).is_some() && !pause_wait.is_zero() => {}
                answer => return answer,
            }
        }
    }

    async fn post(&self, request: RpcRequest, body: String, span: &Span) -> ClientResult<Value> {
        let mut call = self
            .http
            .post(&self.url)
            .timeout(self.call_limit)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        if let Some(context) = span.context() {
            call = call.header(TRACEPARENT, context.to_string());
        }
        let response = call.send().await.map_err(without_url)?;
        let status = response.status();
        let requested = requested_pause(response.headers());
        let failure = response.error_for_status_ref().err();
        let body = response.bytes().await.map_err(without_url)?;
        let answer = match serde_json::from_slice::<Value>(&body) {
            Ok(mut answer) if status.is_success() && is_result(&answer) => {
                self.budgets.note_answer(self.class);
                return Ok(answer["result"].take());
            }
            answer => answer,
        };
        let error_text = ErrorText::of(answer.as_ref().ok(), &body);
        let mut limit = limit_of(status, error_text.code, &error_text.text);
        if status == StatusCode::SERVICE_UNAVAILABLE && requested.is_some() {
            limit = Some(ProviderLimit::Rate);
        }
        if let Some(limit) = limit.filter(|limit| !is_optional(request, *limit)) {
            return Err(self.refused(request, limit, requested, &error_text.describe(status)));
        }
        self.budgets.note_answer(self.class);
        match (answer, failure) {
            // The node's own error, whatever the HTTP status beside it.
            (Ok(answer), _) if is_error_of_node(&answer) => result_of(answer, &self.secrets),
            (_, Some(failure)) => Err(without_url(failure)),
            (Ok(answer), None) => result_of(answer, &self.secrets),
            (Err(error), None) => Err(ClientErrorKind::SerdeJson(error).into()),
        }
    }

    /// The error of a call that met a limit of the provider.
    fn refused(
        &self,
        request: RpcRequest,
        limit: ProviderLimit,
        requested: Option<Duration>,
        answer: &str,
    ) -> ClientError {
        let (method, now) = (method_name(request), Instant::now());
        let answer = self.secrets.redact(answer);
        self.limits.note(method, limit, &answer, now);
        if limit == ProviderLimit::Rate {
            return rate_limited(self.budgets.note_refusal(self.class, requested, now));
        }
        limited(limit, answer)
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

/// The content of an answer without a result: the code and text of its JSON-RPC error, with or without the envelope, or the body as
/// text.
struct ErrorText {
    code: Option<i64>,
    text: String,
}

impl ErrorText {
    fn of(answer: Option<&Value>, body: &[u8]) -> ErrorText {
        let body = String::from_utf8_lossy(&body[..body.len().min(REFUSAL_BYTES_MAX)]);
        let Some(answer) = answer else {
            // The words of a page are mostly decoration: its status alone counts.
            let is_page = body.trim_start().starts_with('<');
            return ErrorText {
                code: None,
                text: if is_page {
                    String::new()
                } else {
                    body.into_owned()
                },
            };
        };
        let error = answer.get("error").filter(|error| error.is_object());
        let error = error.unwrap_or(answer);
        let text = error["message"].as_str().or(answer["error"].as_str());
        ErrorText {
            code: error["code"].as_i64(),
            text: text.or(answer.as_str()).unwrap_or_default().to_owned(),
        }
    }

    fn describe(&self, status: StatusCode) -> String {
        let code = self.code.map(|code| format!(", error {code}"));
        let text = Some(self.text.trim()).filter(|text| !text.is_empty());
        format!(
            "HTTP {}{}{}",
            status.as_u16(),
            code.unwrap_or_default(),
            text.map(|text| format!(": {text}")).unwrap_or_default()
        )
    }
}

/// Whether the callers expect this answer and handle it: methods that older nodes and some providers do not have, and transactions
/// that are too large for the node.
fn is_optional(request: RpcRequest, limit: ProviderLimit) -> bool {
    match limit {
        ProviderLimit::Method => matches!(
            request,
            RpcRequest::GetAgGenesisCert | RpcRequest::GetHealth
        ),
        // A transaction cannot be made smaller here: another format may be needed, which the caller decides.
        ProviderLimit::Size => matches!(
            request,
            RpcRequest::SendTransaction | RpcRequest::SimulateTransaction
        ),
        ProviderLimit::Rate | ProviderLimit::Access => false,
    }
}

/// Gateways put their own HTTP status where JSON-RPC has a code.
fn is_error_of_node(answer: &Value) -> bool {
    let code = answer["error"]["code"].as_i64();
    code.is_some_and(|code| (-32_768..=-32_000).contains(&code))
}

fn is_result(answer: &Value) -> bool {
    answer.get("result").is_some() && answer["error"].is_null()
}

fn result_of(mut answer: Value, secrets: &UrlSecrets) -> ClientResult<Value> {
    if !answer.is_object() {
        return Err(RpcError::RpcRequestError("the answer is not a JSON object".to_owned()).into());
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
        message: secrets.redact(message),
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
        Err(error) if limit_met(error).is_some() => "refused",
        Err(error) => match error.kind() {
            ClientErrorKind::RpcError(RpcError::RpcResponseError { .. }) => "error",
            _ => "unreachable",
        },
    }
}

fn count(endpoint: &str, class: RpcClass, request: RpcRequest, outcome: &'static str) {
    metrics::counter!(
        names::RPC_CALLS,
        "endpoint" => endpoint.to_owned(),
        "method" => method_name(request),
        "class" => class.label(),
        "outcome" => outcome,
    )
    .increment(1);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_a_result_or_an_error_with_its_code() {
        let result_of = |answer| result_of(answer, &UrlSecrets::of(""));
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
    fn a_refused_call_is_counted_as_such() {
        let error = rate_limited(Duration::from_secs(9));
        assert_eq!(outcome_of(&Err(error)), "rate_limited");
        let error = limited(ProviderLimit::Method, "HTTP 403".to_owned());
        assert_eq!(outcome_of(&Err(error)), "refused");
    }

    #[test]
    fn an_error_is_read_with_and_without_its_envelope() {
        let read = |body: &str| {
            let answer = serde_json::from_str(body).ok();
            let error_text = ErrorText::of(answer.as_ref(), body.as_bytes());
            error_text.describe(StatusCode::OK)
        };
        for (body, expected) in [
            (
                r#"{"jsonrpc":"2.0","error":{"code":-32007,"message":"50/second request limit reached"},"id":1}"#,
                "HTTP 200, error -32007: 50/second request limit reached",
            ),
            (
                r#"{"code":-32007,"message":"50/second request limit reached"}"#,
                "HTTP 200, error -32007: 50/second request limit reached",
            ),
            (
                r#"{"error":"Too many requests"}"#,
                "HTTP 200: Too many requests",
            ),
            (r#""max usage reached""#, "HTTP 200: max usage reached"),
            ("max usage reached", "HTTP 200: max usage reached"),
            ("<html>Too many requests</html>", "HTTP 200"),
            ("", "HTTP 200"),
        ] {
            assert_eq!(read(body), expected, "{body}");
        }
    }
}
