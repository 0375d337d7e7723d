//! The limits of its provider that an endpoint has shown: what the status page lists, and how large a query may be.
//!
//! Invariant: what is remembered only makes queries smaller or is shown; it never decides what is true of the chain. It is
//! forgotten after an hour, since plans and nodes change.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::limit_recognition::ProviderLimit;

/// A limit that was not met for this long is no longer shown, and a larger query is tried again.
const REMEMBERED_FOR: Duration = Duration::from_secs(3_600);

/// A limit that an endpoint has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetLimit {
    pub method: &'static str,
    pub limit: ProviderLimit,
    /// Answer of the endpoint: code and text, shortened.
    pub answer: String,
    /// Items that one call may request at most, where that was found out.
    pub items_max: Option<usize>,
    pub last_at: DateTime<Utc>,
    /// Number of times since this process first met it.
    pub times: u64,
}

/// At most one for each method and kind, with the moment when it was met last.
type MetLimits = BTreeMap<(&'static str, ProviderLimit), (MetLimit, Instant)>;

/// The limits of one endpoint.
#[derive(Debug)]
pub(in crate::chain) struct ProviderLimits {
    endpoint: String,
    met: Mutex<MetLimits>,
}

impl ProviderLimits {
    pub fn new(endpoint: String) -> ProviderLimits {
        ProviderLimits {
            endpoint,
            met: Mutex::default(),
        }
    }

    fn met(&self) -> MutexGuard<'_, MetLimits> {
        // Entries are replaced as a whole: a panic leaves no half-made change.
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoint refused a call. The log has a line when a limit is met for the first time in an hour.
    pub fn note(&self, method: &'static str, limit: ProviderLimit, answer: &str, now: Instant) {
        let mut met = self.met();
        let known = met
            .get_mut(&(method, limit))
            .filter(|(_, at)| now.duration_since(*at) < REMEMBERED_FOR);
        if let Some((known, at)) = known {
            known.times += 1;
            known.last_at = Utc::now();
            answer.clone_into(&mut known.answer);
            *at = now;
            return;
        }
        tracing::warn!(
            endpoint = self.endpoint,
            method,
            limit = limit.label(),
            answer,
            "RPC endpoint refused a call: {limit}"
        );
        let first = MetLimit {
            method,
            limit,
            answer: answer.to_owned(),
            items_max: None,
            last_at: Utc::now(),
            times: 1,
        };
        met.insert((method, limit), (first, now));
    }

    /// A list of this size was answered after a larger one had been refused for this reason.
    pub fn learn_size(&self, method: &'static str, items_max: usize, answer: &str, now: Instant) {
        if self.items_max(method, now) != Some(items_max) {
            tracing::warn!(
                endpoint = self.endpoint,
                method,
                items_max,
                answer,
                "RPC endpoint limits list length; queries are split"
            );
        }
        let learnt = MetLimit {
            method,
            limit: ProviderLimit::Size,
            answer: answer.to_owned(),
            items_max: Some(items_max),
            last_at: Utc::now(),
            times: 1,
        };
        self.met()
            .insert((method, ProviderLimit::Size), (learnt, now));
    }

    /// Items that one call of this method may request at most, as far as it was found out.
    pub fn items_max(&self, method: &'static str, now: Instant) -> Option<usize> {
        let met = self.met();
        let (learnt, at) = met.get(&(method, ProviderLimit::Size))?;
        learnt
            .items_max
            .filter(|_| now.duration_since(*at) < REMEMBERED_FOR)
    }

    /// Those of the last hour.
    pub fn views(&self, now: Instant) -> Vec<MetLimit> {
        let met = self.met();
        let recent = met
            .values()
            .filter(|(_, at)| now.duration_since(*at) < REMEMBERED_FOR);
        recent.map(|(limit, _)| limit.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learnt_is_shown_and_forgotten_after_an_hour() {
        let (limits, now) = (ProviderLimits::new("rpc-1".to_owned()), Instant::now());
        let method = "getMultipleAccounts";
        assert_eq!(limits.items_max(method, now), None);
        limits.note(method, ProviderLimit::Rate, "HTTP 429", now);
        limits.note(method, ProviderLimit::Rate, "HTTP 429", now);
        limits.learn_size(method, 5, "HTTP 413", now);
        assert_eq!(limits.items_max(method, now), Some(5));
        let views = limits.views(now);
        assert_eq!(views.len(), 2);
        assert_eq!((views[0].limit, views[0].times), (ProviderLimit::Rate, 2));
        let later = now + REMEMBERED_FOR;
        assert_eq!(limits.items_max(method, later), None);
        assert!(limits.views(later).is_empty());
    }
}
