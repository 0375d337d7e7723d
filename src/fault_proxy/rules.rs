//! The document of rules: which method meets which fault, for how long.
//!
//! ```json
//! {"rules": [
//!   {"method": "sendTransaction", "fault": "forward-then-time-out", "for_calls": 2},
//!   {"method": "*", "fault": "rate-limit", "retry_after_secs": 3, "for_secs": 10}
//! ]}
//! ```
//! The first rule that matches a call and has not ended decides; without one the call is forwarded.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::call_action::{CallAction, ConfirmedCommitment};

/// A rule that cannot be carried out.
#[derive(Clone, Debug, Error)]
pub enum RuleError {
    #[error("the document is not a list of rules: {0}")]
    Document(String),
    #[error("rule {index}: the fault {fault:?} needs the member {member}")]
    Missing {
        index: usize,
        fault: FaultName,
        member: &'static str,
    },
}

/// The name of a fault in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultName {
    Forward,
    /// The connection is closed without an answer.
    Drop,
    /// The call is never answered.
    Hang,
    /// Forwarded after `ms` milliseconds.
    Delay,
    /// Forwarded, and answered with 504.
    ForwardThenTimeOut,
    /// 429, with Retry-After if `retry_after_secs` is given.
    RateLimit,
    /// 503, with Retry-After if `retry_after_secs` is given.
    Unavailable,
    /// The JSON-RPC error `error`.
    Error,
    /// Answered as it was `slots` slots ago.
    Lag,
    ForgetHistory,
    /// Answered as by a node that has pruned the slots before `before_slot`.
    Prune,
    SayNotFound,
    SayConfirmed,
    /// Answered as by a node under Alpenglow: `finalized` is served from `confirmed`.
    Alpenglow,
    /// The same by a node that refuses the commitment `confirmed`.
    AlpenglowWithoutConfirmed,
    /// Calls that carry a v1 transaction are answered as by a node that does not know the format; others are forwarded.
    RefuseV1,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// A JSON-RPC method, or `*`.
    method: String,
    fault: FaultName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_secs: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slots: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before_slot: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
    /// The rule ends after this many calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    for_calls: Option<u64>,
    /// The rule ends this many seconds after it was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    for_secs: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    rules: Vec<Rule>,
}

impl Rule {
    fn action(&self, index: usize) -> Result<CallAction, RuleError> {
        let missing = |member| RuleError::Missing {
            index,
            fault: self.fault,
            member,
        };
        let status = |status| match self.retry_after_secs {
            Some(secs) => CallAction::RetryAfter { status, secs },
            None => CallAction::Status(status),
        };
        Ok(match self.fault {
            FaultName::Forward => CallAction::Forward,
            FaultName::Drop => CallAction::Drop,
            FaultName::Hang => CallAction::Hang,
            FaultName::Delay => {
                CallAction::Delay(Duration::from_millis(self.ms.ok_or_else(|| missing("ms"))?))
            }
            FaultName::ForwardThenTimeOut => CallAction::ForwardThenTimeOut,
            FaultName::RateLimit => status(429),
            FaultName::Unavailable => status(503),
            FaultName::Error => {
                CallAction::ErrorObject(self.error.clone().ok_or_else(|| missing("error"))?)
            }
            FaultName::Lag => CallAction::Lag {
                slots: self.slots.ok_or_else(|| missing("slots"))?,
            },
            FaultName::ForgetHistory => CallAction::WithoutHistory,
            FaultName::Prune => CallAction::Prune {
                before_slot: self.before_slot.ok_or_else(|| missing("before_slot"))?,
            },
            FaultName::SayNotFound => CallAction::ReportNotFound,
            FaultName::SayConfirmed => CallAction::ReportConfirmed,
            FaultName::Alpenglow => CallAction::Alpenglow(ConfirmedCommitment::Accepted),
            FaultName::AlpenglowWithoutConfirmed => {
                CallAction::Alpenglow(ConfirmedCommitment::Refused)
            }
            FaultName::RefuseV1 => CallAction::RefuseV1,
        })
    }
}

#[derive(Debug)]
struct ActiveRule {
    rule: Rule,
    action: CallAction,
    calls_left: Option<u64>,
    ends_at: Option<Instant>,
    /// Calls that it decided.
    decided: u64,
}

/// Counts of one method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallCounts {
    pub received: u64,
    pub forwarded: u64,
}

/// Methods counted by name; clients may send any.
const METHODS_MAX: usize = 256;

/// The rules in force, and what was called.
#[derive(Debug, Default)]
pub struct RuleBook {
    rules: Vec<ActiveRule>,
    calls: BTreeMap<String, CallCounts>,
}

impl RuleBook {
    /// Replaces the rules by those of the document; the counts continue.
    pub fn put(&mut self, document: &[u8], now: Instant) -> Result<(), RuleError> {
        let document: Document = serde_json::from_slice(document)
            .map_err(|error| RuleError::Document(error.to_string()))?;
        let active = |(index, rule): (usize, Rule)| {
            Ok(ActiveRule {
                action: rule.action(index)?,
                calls_left: rule.for_calls,
                ends_at: rule.for_secs.map(|secs| now + Duration::from_secs(secs)),
                decided: 0,
                rule,
            })
        };
        self.rules = document
            .rules
            .into_iter()
            .enumerate()
            .map(active)
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    /// The action of the first rule that matches the call; `None` when none matches.
    pub fn decide(&mut self, method: &str, now: Instant) -> Option<CallAction> {
        let matches = |active: &&mut ActiveRule| {
            (active.rule.method == "*" || active.rule.method == method)
                && active.calls_left != Some(0)
                && active.ends_at.is_none_or(|ends_at| now < ends_at)
        };
        let active = self.rules.iter_mut().find(matches)?;
        active.decided += 1;
        if let Some(left) = &mut active.calls_left {
            *left -= 1;
        }
        Some(active.action.clone())
    }

    pub(super) fn count_received(&mut self, method: &str) {
        self.count(method, |calls| calls.received += 1);
    }

    pub(super) fn count_forwarded(&mut self, method: &str) {
        self.count(method, |calls| calls.forwarded += 1);
    }

    fn count(&mut self, method: &str, change: impl Fn(&mut CallCounts)) {
        if self.calls.len() < METHODS_MAX || self.calls.contains_key(method) {
            change(self.calls.entry(method.to_owned()).or_default());
        }
    }

    /// Of one method, or of all for `*`.
    pub fn calls(&self, method: &str) -> CallCounts {
        let of_method = |(name, calls): (&String, &CallCounts)| {
            (method == "*" || name == method).then_some(*calls)
        };
        let sum = |sum: CallCounts, calls: CallCounts| CallCounts {
            received: sum.received + calls.received,
            forwarded: sum.forwarded + calls.forwarded,
        };
        self.calls
            .iter()
            .filter_map(of_method)
            .fold(CallCounts::default(), sum)
    }

    /// The document of `GET /control`.
    pub(super) fn shown(&self, now: Instant) -> Value {
        let rules: Vec<Value> = self
            .rules
            .iter()
            .map(|active| {
                serde_json::json!({
                    "rule": active.rule,
                    "decided": active.decided,
                    "calls_left": active.calls_left,
                    "secs_left": active
                        .ends_at
                        .map(|ends_at| ends_at.saturating_duration_since(now).as_secs_f64()),
                })
            })
            .collect();
        serde_json::json!({ "rules": rules, "calls": self.calls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(document: &str) -> RuleBook {
        let mut book = RuleBook::default();
        book.put(document.as_bytes(), Instant::now()).unwrap();
        book
    }

    #[test]
    fn the_first_rule_that_matches_and_has_not_ended_decides() {
        let mut book = book(
            r#"{"rules": [
                {"method": "getSlot", "fault": "drop", "for_calls": 1},
                {"method": "*", "fault": "rate-limit", "retry_after_secs": 3, "for_secs": 10}]}"#,
        );
        let now = Instant::now();
        let kind = |action: Option<CallAction>| format!("{action:?}");
        assert_eq!(kind(book.decide("getSlot", now)), "Some(Drop)");
        let limited = "Some(RetryAfter { status: 429, secs: 3 })";
        assert_eq!(kind(book.decide("getSlot", now)), limited);
        assert_eq!(kind(book.decide("getBlock", now)), limited);
        let later = now + Duration::from_secs(11);
        assert_eq!(kind(book.decide("getBlock", later)), "None");
    }

    #[test]
    fn a_rule_that_lacks_a_member_is_refused_and_the_old_rules_stay() {
        let mut book = book(r#"{"rules": [{"method": "*", "fault": "hang"}]}"#);
        for bad in [
            r#"{"rules": [{"method": "*", "fault": "delay"}]}"#,
            r#"{"rules": [{"method": "*", "fault": "lag"}]}"#,
            r#"{"rules": [{"method": "*", "fault": "prune"}]}"#,
            r#"{"rules": [{"method": "*", "fault": "explode"}]}"#,
            r#"{"rules": [{"method": "*", "fault": "hang", "for_cals": 1}]}"#,
            "[]",
        ] {
            assert!(book.put(bad.as_bytes(), Instant::now()).is_err(), "{bad}");
        }
        assert!(book.decide("getSlot", Instant::now()).is_some());
    }

    #[test]
    fn calls_are_counted_by_method_and_together() {
        let mut book = RuleBook::default();
        book.count_received("getSlot");
        book.count_received("getBlock");
        book.count_forwarded("getBlock");
        assert_eq!(book.calls("getSlot").received, 1);
        assert_eq!(
            book.calls("*"),
            CallCounts {
                received: 2,
                forwarded: 1
            }
        );
    }
}
