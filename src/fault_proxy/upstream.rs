//! The node behind the proxy.

use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

/// Forwards calls to the node.
pub(super) struct Upstream {
    http: reqwest::Client,
    url: String,
}

impl Upstream {
    pub fn new(url: &str) -> Upstream {
        Upstream {
            http: reqwest::Client::new(),
            url: url.to_owned(),
        }
    }

    /// The node's whole answer; `None` when it gave none.
    pub async fn forward(&self, call: &Value) -> Option<Value> {
        let request = self
            .http
            .post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .body(call.to_string());
        request.send().await.ok()?.json().await.ok()
    }

    /// A call of the proxy itself; `Null` when there is no result.
    pub async fn call(&self, method: &str, params: Value) -> Value {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.forward(&call).await;
        answer
            .map(|mut answer| answer["result"].take())
            .unwrap_or_default()
    }
}
