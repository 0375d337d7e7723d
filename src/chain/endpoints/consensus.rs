//! Finds out which consensus an endpoint's cluster runs, and so which commitments its calls name.
//!
//! It is queried, never assumed, and queried again: a cluster can migrate while this process runs.

use std::time::{Duration, Instant};

use serde_json::Value;
use solana_client::rpc_request::RpcRequest;
use solana_commitment_config::CommitmentConfig;

use super::endpoint::Endpoint;
use crate::chain::commitment::{Consensus, Finality};
use crate::chain::error::ChainError;

/// A migration is announced weeks ahead, and calls work before, during and after it: `confirmed` is removed later.
const ASK_EVERY: Duration = Duration::from_secs(600);
/// The certificate with which Alpenglow took over; nodes since Agave 4.3 have the method.
const METHOD: RpcRequest = RpcRequest::GetAgGenesisCert;
/// JSON-RPC: method not found.
const METHOD_NOT_FOUND: i64 = -32601;

impl Endpoint {
    /// As the endpoint reported it last.
    pub fn consensus(&self) -> Consensus {
        self.commitments.consensus()
    }

    /// The commitment that a call to this endpoint names for an answer of this finality.
    pub fn commitment(&self, finality: Finality) -> CommitmentConfig {
        self.commitments.of(finality)
    }

    /// Queries it if the last answer is old, or if the endpoint has failed or refused `confirmed` since.
    pub(super) async fn refresh_consensus(&self, now: Instant) {
        let asked_at = self.health().consensus_asked_at;
        let is_due = asked_at.is_none_or(|at| {
            now.duration_since(at) >= ASK_EVERY || self.commitments.was_refused_after(at)
        });
        if !is_due {
            return;
        }
        let answer = self.hot().send(METHOD, Value::Null).await;
        let Some(consensus) = consensus_of(&self.answer(answer)) else {
            return;
        };
        let before = self.consensus();
        if before != consensus {
            tracing::info!(
                endpoint = self.name(),
                consensus = consensus.label(),
                before = before.label(),
                "RPC endpoint reports another consensus"
            );
        }
        self.commitments.set_consensus(consensus);
        self.health().consensus_asked_at = Some(now);
    }
}

/// `None`: the answer shows nothing.
fn consensus_of(answer: &Result<Value, ChainError>) -> Option<Consensus> {
    match answer {
        Ok(Value::Object(_)) => Some(Consensus::Alpenglow),
        Ok(Value::Null) => Some(Consensus::Tower),
        Err(ChainError::ErrorResponse {
            code: METHOD_NOT_FOUND,
            ..
        }) => Some(Consensus::Unknown),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_known_answer_counts() {
        let error = |code| {
            Err(ChainError::ErrorResponse {
                endpoint: "rpc-1".to_owned(),
                method: "getAgGenesisCert",
                code,
                message: "no".to_owned(),
            })
        };
        for (answer, expected) in [
            (Ok(json!({ "slot": 7 })), Some(Consensus::Alpenglow)),
            (Ok(Value::Null), Some(Consensus::Tower)),
            (error(-32601), Some(Consensus::Unknown)),
            (error(-32000), None),
            (Ok(json!("certificate")), None),
            (Ok(json!(false)), None),
        ] {
            assert_eq!(consensus_of(&answer), expected, "{answer:?}");
        }
    }
}
