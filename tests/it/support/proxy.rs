//! A JSON-RPC proxy between service and chain that injects faults: in this process by a closure, or as the program
//! `gridtokenx-faultproxy` by a document.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gridtokenx::domain::signed_bytes;
pub use gridtokenx::fault_proxy::CallAction;
use gridtokenx::fault_proxy::FaultProxy;
use serde_json::{Value, json};
use solana_sdk::pubkey::Pubkey;
use solana_sdk::transaction::VersionedTransaction;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::children::group_of_run;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gridtokenx-faultproxy");
const START_MAX: Duration = Duration::from_secs(60);

/// A proxy for one test; dropping it stops it.
pub struct Proxy {
    pub url: String,
    proxy: FaultProxy,
}

impl Proxy {
    /// Starts a proxy that forwards everything.
    pub async fn start(target: &str) -> Proxy {
        let listen = "127.0.0.1:0".parse().unwrap();
        let proxy = FaultProxy::start(listen, target).await.unwrap();
        let url = proxy.url();
        Proxy { url, proxy }
    }

    /// From now on `rule` decides the action for each call, by method and parameters.
    pub fn on_call(&self, rule: impl Fn(&str, &Value) -> CallAction + Send + 'static) {
        self.proxy.on_call(rule);
    }

    pub fn forward_everything(&self) {
        self.on_call(|_, _| CallAction::Forward);
    }

    /// Calls received so far, of one method or of all (`*`).
    pub fn received(&self, method: &str) -> u64 {
        self.proxy.calls(method).received
    }
}

/// The program; dropping it kills its process.
pub struct ProxyProgram {
    pub url: String,
    http: reqwest::Client,
    _child: Child,
}

impl ProxyProgram {
    pub async fn start(target: &str) -> ProxyProgram {
        let mut child = Command::new(PROGRAM)
            .args(["--target", target])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .process_group(group_of_run())
            .spawn()
            .expect("gridtokenx-faultproxy starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(START_MAX, lines.next_line())
            .await
            .expect("gridtokenx-faultproxy listens in time")
            .unwrap()
            .expect("gridtokenx-faultproxy reports its address");
        let address = line.strip_prefix("listening=").unwrap();
        ProxyProgram {
            url: format!("http://{address}"),
            http: reqwest::Client::new(),
            _child: child,
        }
    }

    /// Replaces the rules; returns the status of the response.
    pub async fn put(&self, rules: Value) -> u16 {
        let request = self
            .http
            .put(format!("{}/control", self.url))
            .json(&json!({ "rules": rules }));
        request.send().await.unwrap().status().as_u16()
    }

    /// One fault for all calls of the method (or `*`).
    pub async fn put_fault(&self, method: &str, fault: &str) {
        let rules = json!([{ "method": method, "fault": fault }]);
        assert_eq!(self.put(rules).await, 204);
    }

    pub async fn forward_everything(&self) {
        assert_eq!(self.put(json!([])).await, 204);
    }

    /// Rules and counts.
    pub async fn control(&self) -> Value {
        let request = self.http.get(format!("{}/control", self.url));
        request.send().await.unwrap().json().await.unwrap()
    }

    /// Calls of the method received so far.
    pub async fn received(&self, method: &str) -> u64 {
        let control = self.control().await;
        control["calls"][method]["received"]
            .as_u64()
            .unwrap_or_default()
    }
}

/// The transaction that a call of `sendTransaction` or `simulateTransaction` carries, in whatever format.
pub fn carried_transaction(parameters: &Value) -> VersionedTransaction {
    let signed_bytes = STANDARD.decode(parameters[0].as_str().unwrap()).unwrap();
    signed_bytes::decode(&signed_bytes).unwrap()
}

/// The position of the first instruction that mentions the address.
pub fn instruction_with(transaction: &VersionedTransaction, address: &Pubkey) -> Option<usize> {
    let keys = transaction.message.static_account_keys();
    let mentions = |index: &u8| keys[usize::from(*index)] == *address;
    let mut instructions = transaction.message.instructions().iter();
    instructions.position(|instruction| instruction.accounts.iter().any(mentions))
}

/// Drops what is sent, and lets what is signed meanwhile expire after 30 blocks instead of 150: blockhashes are 120 blocks old.
pub fn never_lands(method: &str, parameters: &Value) -> CallAction {
    match method {
        "sendTransaction" => drop_send(parameters),
        "getLatestBlockhash" => CallAction::Lag { slots: 120 },
        _ => CallAction::Forward,
    }
}

/// Drops a sent transaction, but answers with its signature, as an RPC node would.
pub fn drop_send(parameters: &Value) -> CallAction {
    let transaction = carried_transaction(parameters);
    CallAction::Answer(json!(transaction.signatures[0].to_string()))
}
