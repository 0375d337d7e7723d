//! The health that each part of the service reports, for `GET /health/ready`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::serialize_rfc3339_millis;

/// The status of a part of the service, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// Something is slower or paused; readings are still accepted.
    Degraded,
    /// Readings cannot be accepted.
    Unavailable,
}

/// A part of the service that reports its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthPart {
    /// The ledger breaker: whether the ledger lets anything be signed.
    Breaker,
    /// Whether canary readings are minted.
    Canary,
    /// Whether the chain's nodes answer, and the fee payer can pay.
    Chain,
    /// Whether Postgres answers.
    Database,
    /// Free space of the data directory.
    Disk,
    /// Whether the fee payer can pay for new token accounts.
    FeePayer,
    /// How long ago the authority's history was read to its end.
    History,
    /// Whether notifications of the database arrive.
    Listener,
    /// Whether the schema is the one that this program needs.
    Migrations,
    /// Whether the queue's tables are usable.
    Queue,
    /// Whether the process drains.
    Shutdown,
    /// Whether keys are known that verify callers' tokens.
    Tokens,
    /// Whether any process runs jobs.
    Workers,
}

impl HealthPart {
    /// The key of the part in `checks` of `GET /health/ready`.
    pub fn name(self) -> &'static str {
        match self {
            HealthPart::Breaker => "breaker",
            HealthPart::Canary => "canary",
            HealthPart::Chain => "chain",
            HealthPart::Database => "database",
            HealthPart::Disk => "disk",
            HealthPart::FeePayer => "fee_payer",
            HealthPart::History => "history",
            HealthPart::Listener => "listener",
            HealthPart::Migrations => "migrations",
            HealthPart::Queue => "queue",
            HealthPart::Shutdown => "shutdown",
            HealthPart::Tokens => "tokens",
            HealthPart::Workers => "workers",
        }
    }
}

/// The status of one part, its reason, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Check {
    pub status: Status,
    /// A sentence for the operator; only when the status is not `ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the part entered this status.
    #[serde(serialize_with = "serialize_rfc3339_millis")]
    pub since: DateTime<Utc>,
}

/// The whole service and its parts.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// The worst of the parts.
    pub status: Status,
    /// By the parts' names.
    pub checks: BTreeMap<&'static str, Check>,
}

/// The registry to which all parts report. Clones share it.
#[derive(Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Default)]
struct Inner {
    checks: Mutex<BTreeMap<&'static str, Check>>,
    draining: AtomicBool,
}

impl Health {
    /// The part works.
    pub fn ok(&self, part: HealthPart) {
        self.set(part, Status::Ok, None);
    }

    /// The part is slower or paused, for this reason; readings are still accepted.
    pub fn degraded(&self, part: HealthPart, reason: impl Into<String>) {
        self.set(part, Status::Degraded, Some(reason.into()));
    }

    /// Without this part no reading can be accepted.
    pub fn unavailable(&self, part: HealthPart, reason: impl Into<String>) {
        self.set(part, Status::Unavailable, Some(reason.into()));
    }

    fn set(&self, part: HealthPart, status: Status, reason: Option<String>) {
        // A panic under the lock leaves the map consistent, because each entry is replaced as a whole.
        let mut checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner);
        match checks.get_mut(part.name()) {
            Some(check) if check.status == status => check.reason = reason,
            known => {
                if known.is_some() || status != Status::Ok {
                    tracing::info!(part = part.name(), ?status, reason, "health changed");
                }
                let since = Utc::now();
                checks.insert(
                    part.name(),
                    Check {
                        status,
                        reason,
                        since,
                    },
                );
            }
        }
    }

    /// Reports from now on that this process accepts no more work.
    pub fn start_draining(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
        self.unavailable(HealthPart::Shutdown, "this process is draining");
    }

    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    pub fn readiness(&self) -> Readiness {
        let checks = self
            .0
            .checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let status = checks
            .values()
            .map(|check| check.status)
            .max()
            .unwrap_or(Status::Ok);
        Readiness { status, checks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_part_decides_and_since_stays_while_the_status_does() {
        let health = Health::default();
        assert_eq!(health.readiness().status, Status::Ok);
        health.ok(HealthPart::Database);
        health.degraded(HealthPart::Chain, "rpc-1 does not answer");
        let first = health.readiness();
        assert_eq!(first.status, Status::Degraded);
        health.degraded(HealthPart::Chain, "no endpoint answers");
        let second = health.readiness();
        assert_eq!(second.checks["chain"].since, first.checks["chain"].since);
        assert_eq!(
            second.checks["chain"].reason.as_deref(),
            Some("no endpoint answers")
        );
        health.ok(HealthPart::Chain);
        assert_eq!(health.readiness().status, Status::Ok);
        health.start_draining();
        assert_eq!(health.readiness().status, Status::Unavailable);
        assert!(health.is_draining());
    }

    #[test]
    fn the_document_has_a_reason_only_when_there_is_one() {
        let health = Health::default();
        health.ok(HealthPart::Database);
        health.degraded(HealthPart::Workers, "none has reported for 60 s");
        let document = serde_json::to_value(health.readiness()).unwrap();
        assert_eq!(document["status"], "degraded");
        assert_eq!(document["checks"]["database"]["status"], "ok");
        assert!(document["checks"]["database"].get("reason").is_none());
        assert_eq!(
            document["checks"]["workers"]["reason"],
            "none has reported for 60 s"
        );
    }
}
