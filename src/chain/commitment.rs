//! Finality that an answer must have, and the commitment that a call names for it. No other file names a commitment.
//!
//! Under Tower `confirmed` comes a slot or two after the block and may still vanish in a fork; `finalized` comes seconds later.
//! Under Alpenglow both mean the same block, and `confirmed` is to be removed. So a call names what the endpoint's cluster
//! takes, and an endpoint that refuses `confirmed` is called with `finalized`, whatever its cluster runs.
//!
//! Invariant: an answer is never less final than the caller needs. `finalized` may stand for `confirmed`, never the reverse.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use solana_client::client_error::{ClientErrorKind, Result as ClientResult};
use solana_client::rpc_request::RpcError;
use solana_commitment_config::CommitmentConfig;

/// Finality that an answer must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finality {
    /// The newest block that the endpoint has, even if the cluster drops it: for an upper bound.
    Newest,
    /// The cluster has agreed on it: good enough to pay by, since a simulation follows and the resolver notices a fork.
    Confirmed,
    /// It cannot be rolled back: for proofs and for the books.
    Final,
}

/// The consensus that a cluster runs. It can change while this process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consensus {
    /// `confirmed` is `finalized`.
    Alpenglow,
    Tower,
    /// The endpoint cannot report it, or has not been queried: it is called as under Tower.
    #[default]
    Unknown,
}

impl Consensus {
    /// On the status page, and one of [`CONSENSUSES`](crate::telemetry::names::CONSENSUSES).
    pub fn label(self) -> &'static str {
        match self {
            Consensus::Alpenglow => "alpenglow",
            Consensus::Tower => "tower",
            Consensus::Unknown => "unknown",
        }
    }

    /// Of a cluster, from what its endpoints report: one that cannot report it does not contradict the others, and a
    /// certificate of Alpenglow outweighs a node that has not seen it yet.
    pub fn of_cluster(reported: impl IntoIterator<Item = Consensus>) -> Consensus {
        reported
            .into_iter()
            .fold(Consensus::Unknown, |cluster, endpoint| {
                match (cluster, endpoint) {
                    (Consensus::Alpenglow, _) | (_, Consensus::Alpenglow) => Consensus::Alpenglow,
                    (Consensus::Tower, _) | (_, Consensus::Tower) => Consensus::Tower,
                    (Consensus::Unknown, Consensus::Unknown) => Consensus::Unknown,
                }
            })
    }
}

/// How long an endpoint that refused `confirmed` is called with `finalized` before `confirmed` is tried again: behind one address
/// there may be several nodes, and under Tower `finalized` costs seconds of a blockhash's life.
const REFUSAL_COUNTS_FOR: Duration = Duration::from_secs(600);
/// After a call that was refused with either commitment, so for another reason, no refusal is taken for one of the commitment
/// for this long: an endpoint that refuses each question of a kind must not be called twice each time.
const OTHER_REASON_COUNTS_FOR: Duration = Duration::from_secs(60);
/// JSON-RPC: invalid method parameters.
const INVALID_PARAMS: i64 = -32602;
/// The members of a call's configuration that name a commitment.
const MEMBERS: [&str; 2] = ["commitment", "preflightCommitment"];
const CONFIRMED: &str = "confirmed";
const FINALIZED: &str = "finalized";

/// The commitments that one endpoint takes.
#[derive(Debug, Default)]
pub(super) struct Commitments(Mutex<CommitmentState>);

#[derive(Debug, Default)]
struct CommitmentState {
    consensus: Consensus,
    refused_confirmed_at: Option<Instant>,
    refused_both_at: Option<Instant>,
}

impl Commitments {
    fn state(&self) -> MutexGuard<'_, CommitmentState> {
        // Every change is a single assignment: a panic leaves no half-made change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn consensus(&self) -> Consensus {
        self.state().consensus
    }

    /// Whether a call was refused because of `confirmed` after this moment: the cluster may have migrated since.
    pub fn was_refused_after(&self, moment: Instant) -> bool {
        self.state()
            .refused_confirmed_at
            .is_some_and(|at| at > moment)
    }

    pub fn set_consensus(&self, consensus: Consensus) {
        self.state().consensus = consensus;
    }

    pub fn of(&self, finality: Finality) -> CommitmentConfig {
        match finality {
            Finality::Newest => CommitmentConfig::processed(),
            Finality::Confirmed if self.takes_confirmed(Instant::now()) => {
                CommitmentConfig::confirmed()
            }
            Finality::Confirmed | Finality::Final => CommitmentConfig::finalized(),
        }
    }

    /// The commitment of calls that name none. Before the endpoint is known it is that of Tower; [`Self::adapt`] corrects it.
    pub fn default_of_calls() -> CommitmentConfig {
        CommitmentConfig::confirmed()
    }

    fn takes_confirmed(&self, now: Instant) -> bool {
        let state = self.state();
        state.consensus != Consensus::Alpenglow
            && state
                .refused_confirmed_at
                .is_none_or(|at| now.duration_since(at) >= REFUSAL_COUNTS_FOR)
    }

    /// The parameters of a call, with `finalized` instead of a `confirmed` that the endpoint does not take.
    pub fn adapt(&self, parameters: Value, now: Instant) -> Value {
        if self.takes_confirmed(now) {
            parameters
        } else {
            with_finalized(&parameters).unwrap_or(parameters)
        }
    }

    /// If this answer may mean that the endpoint refuses `confirmed`: the parameters to repeat the call with.
    pub fn after_refusal(
        &self,
        answer: &ClientResult<Value>,
        parameters: &Value,
        now: Instant,
    ) -> Option<Value> {
        let refused_both_at = self.state().refused_both_at;
        let may_be_meant = is_invalid_params(answer)
            && refused_both_at.is_none_or(|at| now.duration_since(at) >= OTHER_REASON_COUNTS_FOR);
        may_be_meant.then(|| with_finalized(parameters)).flatten()
    }

    /// The answer to the repeated call shows whether `confirmed` was the reason. Returns whether it was.
    pub fn note_repeated(&self, answer: &ClientResult<Value>, now: Instant) -> bool {
        let mut state = self.state();
        let for_another_reason = is_invalid_params(answer);
        if for_another_reason {
            state.refused_both_at = Some(now);
        } else {
            state.refused_confirmed_at = Some(now);
        }
        !for_another_reason
    }
}

fn is_invalid_params(answer: &ClientResult<Value>) -> bool {
    let Err(error) = answer else {
        return false;
    };
    matches!(
        error.kind(),
        ClientErrorKind::RpcError(RpcError::RpcResponseError {
            code: INVALID_PARAMS,
            ..
        })
    )
}

/// `None` when the call names `confirmed` nowhere.
fn with_finalized(parameters: &Value) -> Option<Value> {
    let names_confirmed = |member: &Value| MEMBERS.iter().any(|name| member[*name] == CONFIRMED);
    let position = parameters.as_array()?.iter().position(names_confirmed)?;
    let mut adapted = parameters.clone();
    for name in MEMBERS {
        if adapted[position][name] == CONFIRMED {
            adapted[position][name] = FINALIZED.into();
        }
    }
    Some(adapted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use solana_client::rpc_request::RpcResponseErrorData;

    use super::*;

    fn refusal(code: i64) -> ClientResult<Value> {
        Err(RpcError::RpcResponseError {
            code,
            message: "Invalid params: unknown variant `confirmed`".to_owned(),
            data: RpcResponseErrorData::Empty,
        }
        .into())
    }

    fn call() -> Value {
        json!(["address", { "encoding": "base64", "commitment": "confirmed" }])
    }

    #[test]
    fn under_alpenglow_nothing_is_requested_as_confirmed() {
        let commitments = Commitments::default();
        for consensus in [Consensus::Unknown, Consensus::Tower] {
            commitments.set_consensus(consensus);
            assert_eq!(
                commitments.of(Finality::Confirmed),
                CommitmentConfig::confirmed()
            );
            assert_eq!(commitments.adapt(call(), Instant::now()), call());
        }
        commitments.set_consensus(Consensus::Alpenglow);
        assert_eq!(
            commitments.of(Finality::Confirmed),
            CommitmentConfig::finalized()
        );
        assert_eq!(
            commitments.of(Finality::Newest),
            CommitmentConfig::processed()
        );
        let adapted = commitments.adapt(call(), Instant::now());
        assert_eq!(adapted[1]["commitment"], "finalized");
        assert_eq!(adapted[1]["encoding"], "base64");
    }

    #[test]
    fn an_endpoint_that_refuses_confirmed_is_called_with_finalized_for_a_while() {
        let (commitments, now) = (Commitments::default(), Instant::now());
        let repeated = commitments.after_refusal(&refusal(-32602), &call(), now);
        assert_eq!(repeated.unwrap()[1]["commitment"], "finalized");
        assert!(commitments.note_repeated(&Ok(json!(7)), now));
        assert_eq!(
            commitments.of(Finality::Confirmed),
            CommitmentConfig::finalized()
        );
        assert_eq!(commitments.adapt(call(), now)[1]["commitment"], "finalized");
        assert_eq!(commitments.adapt(call(), now + REFUSAL_COUNTS_FOR), call());
    }

    #[test]
    fn a_call_that_is_refused_for_another_reason_is_not_repeated_each_time() {
        let (commitments, now) = (Commitments::default(), Instant::now());
        let after = |answer, parameters: &Value, now| {
            commitments
                .after_refusal(&answer, parameters, now)
                .is_some()
        };
        assert!(!after(refusal(-32005), &call(), now));
        assert!(!after(refusal(-32602), &json!([["signature"]]), now));
        assert!(!after(Ok(json!(null)), &call(), now));
        assert!(after(refusal(-32602), &call(), now));
        assert!(!commitments.note_repeated(&refusal(-32602), now));
        assert_eq!(
            commitments.of(Finality::Confirmed),
            CommitmentConfig::confirmed()
        );
        assert!(!after(refusal(-32602), &call(), now));
        assert!(after(
            refusal(-32602),
            &call(),
            now + OTHER_REASON_COUNTS_FOR
        ));
    }

    #[test]
    fn the_commitment_of_the_preflight_is_adapted_too() {
        let send = json!(["bytes", { "skipPreflight": true, "preflightCommitment": "confirmed" }]);
        let adapted = with_finalized(&send).unwrap();
        assert_eq!(adapted[1]["preflightCommitment"], "finalized");
        assert_eq!(with_finalized(&adapted), None);
    }

    #[test]
    fn a_certificate_outweighs_what_other_endpoints_report() {
        use Consensus::{Alpenglow, Tower, Unknown};
        for (reported, cluster) in [
            (vec![], Unknown),
            (vec![Unknown, Unknown], Unknown),
            (vec![Unknown, Tower], Tower),
            (vec![Tower, Alpenglow, Unknown], Alpenglow),
        ] {
            assert_eq!(Consensus::of_cluster(reported), cluster);
        }
    }
}
