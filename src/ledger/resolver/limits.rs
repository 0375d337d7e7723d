//! Settings of the resolver.

use std::time::Duration;

use crate::ledger::retry_schedule::RetrySchedule;

/// Limits on time and attempts.
#[derive(Clone, Debug)]
pub struct ResolverLimits {
    /// How long a transaction may stay unproven after its expiry, counted while an endpoint answers.
    pub quarantine_after: Duration,
    /// Limit on one transaction of the database: a session that stops answering must not stop the confirmations of all
    /// processes. Rounds have no limit: each call to the chain has its own, and a history scan may be long.
    pub transaction_limit: Duration,
    /// For readings whose transaction failed on chain.
    pub schedule: RetrySchedule,
}
