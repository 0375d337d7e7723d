//! The actions that the proxy can take on a call.

use std::time::Duration;

use serde_json::Value;

/// The action that the proxy takes on one call.
#[derive(Clone, Debug)]
pub enum CallAction {
    Forward,
    /// Forwarded after this delay.
    Delay(Duration),
    /// Forwarded; the client gets a time-out (504) as its answer.
    ForwardThenTimeOut,
    /// Not forwarded, and never answered.
    Hang,
    /// Not forwarded; the connection is closed without an answer.
    Drop,
    /// Not forwarded; this is the result.
    Answer(Value),
    /// Forwarded; the result is changed on its way back.
    Edit(fn(Value) -> Value),
    /// Not forwarded; this JSON-RPC error is the answer.
    Error(i64, &'static str),
    /// The same with a whole error object.
    ErrorObject(Value),
    /// Not forwarded; this HTTP status is the answer.
    Status(u16),
    /// The same with the header Retry-After, seconds.
    RetryAfter {
        status: u16,
        secs: u64,
    },
    /// Answered as it was this many slots ago: heights, slots, blockhashes, and what landed.
    Lag {
        slots: u64,
    },
    /// Answered as by a node without history.
    WithoutHistory,
    /// Answered as by a node that has pruned the slots before this one.
    Prune {
        before_slot: u64,
    },
    /// Answered as by a node of a cluster under Alpenglow: what is confirmed is final.
    Alpenglow(ConfirmedCommitment),
    /// Signatures that landed are reported as not found.
    ReportNotFound,
    /// Signatures that did not land are reported as confirmed.
    ReportConfirmed,
    /// A call that carries a v1 transaction gets the error of a node that does not know the format; any other is forwarded.
    RefuseV1,
}

/// The response of a node under Alpenglow to calls at the commitment `confirmed`, which is planned for removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfirmedCommitment {
    Accepted,
    Refused,
}
