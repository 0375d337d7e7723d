//! The requests to the minter and its outcomes.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::defer_reason::DeferReason;
use crate::domain::ReadingState;

/// On whose authority a reading is minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MintPermission {
    /// A job or a sweep: not before the reading is due, and not while an admin's setting holds it back.
    WhenDue,
    /// An admin's trigger: even before a backoff is over, and while auto-mint is off.
    Now,
}

/// The outcome of a reading that was handed in.
#[derive(Clone, Debug)]
pub enum MintOutcome {
    /// Recorded by this batch and on its way.
    Submitted,
    /// Another worker has it, or it is paid already.
    AlreadyHandled(ReadingState),
    /// Pending, but auto-mint is off, or its meter is not rolled out yet.
    OnHold,
    /// Pending, but its backoff is not over.
    NotDue(DateTime<Utc>),
    /// Refused now; it is tried again at this moment.
    RetryAt(DateTime<Utc>),
    /// Refused permanently, unless an admin retries it.
    Failed,
    /// The reading is fine: the chain, the database or a breaker does not let it be minted now.
    Deferred(DeferReason),
    /// The reading is fine: the fee payer cannot pay for its wallet's new token account now. Other readings can be paid.
    InsufficientFunds(DeferReason),
    /// There is no such reading.
    Unknown,
}

/// One reading as it enters a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct MintRequest {
    pub reading: Uuid,
    pub permission: MintPermission,
    /// It has already waited for one more linger, so that transactions leave full under load.
    pub carried: bool,
}

/// Answer of a batch to one request.
#[derive(Clone, Debug)]
pub(super) enum BatchAnswer {
    Done(MintOutcome),
    /// It would have left in a transaction that is not full while others filled theirs: hand it in again.
    Carry,
}
