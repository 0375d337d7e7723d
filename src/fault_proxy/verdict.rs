//! What may happen to one call.

use std::time::Duration;

use serde_json::Value;

/// What happens to one call.
#[derive(Clone, Debug)]
pub enum Verdict {
    Forward,
    /// Forwarded after so long.
    Delay(Duration),
    /// Forwarded, and the client is told that it took too long.
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
    /// The same with all that an error object may hold.
    ErrorObject(Value),
    /// Not forwarded; this HTTP status is the answer.
    Status(u16),
    /// The same with the header Retry-After, seconds.
    RetryAfter {
        status: u16,
        secs: u64,
    },
    /// Answered as it was so many slots ago: heights, slots, blockhashes, and what landed.
    Lag {
        slots: u64,
    },
    /// As a node without history answers.
    ForgetHistory,
    /// As a node answers that keeps nothing of the slots before this one.
    Prune {
        before_slot: u64,
    },
    /// Signatures that landed are said not to be found.
    SayNotFound,
    /// Signatures that did not land are said to be confirmed.
    SayConfirmed,
}
