//! The requests of one batch, and the answers that its steps have found so far.

use std::collections::HashMap;

use uuid::Uuid;

use super::defer_reason::DeferReason;
use super::request::{BatchAnswer, MintOutcome, MintRequest};

/// Grows step by step. A request without an answer is packed again.
pub(super) struct Answers {
    requests: HashMap<Uuid, MintRequest>,
    given: HashMap<Uuid, BatchAnswer>,
}

impl Answers {
    pub fn none_yet(requests: Vec<MintRequest>) -> Answers {
        let requests = requests
            .into_iter()
            .map(|request| (request.reading, request));
        Answers {
            requests: requests.collect(),
            given: HashMap::new(),
        }
    }

    pub fn unanswered(&self) -> Vec<MintRequest> {
        self.requests
            .values()
            .filter(|request| !self.given.contains_key(&request.reading))
            .copied()
            .collect()
    }

    /// Whether the reading comes from an earlier batch whose transactions left full without it.
    pub fn was_carried(&self, reading: Uuid) -> bool {
        self.requests
            .get(&reading)
            .is_none_or(|request| request.carried)
    }

    pub fn give(&mut self, reading: Uuid, outcome: MintOutcome) {
        self.given.insert(reading, BatchAnswer::Done(outcome));
    }

    pub fn carry(&mut self, reading: Uuid) {
        self.given.insert(reading, BatchAnswer::Carry);
    }

    pub fn defer(&mut self, readings: &[Uuid], reason: &DeferReason) {
        for reading in readings {
            self.give(*reading, MintOutcome::Deferred(reason.clone()));
        }
    }

    /// Defers everything that has no answer yet.
    pub fn defer_rest(&mut self, reason: &DeferReason) {
        let rest: Vec<Uuid> = self
            .unanswered()
            .iter()
            .map(|request| request.reading)
            .collect();
        tracing::warn!(%reason, readings = rest.len(), "readings deferred");
        self.defer(&rest, reason);
    }

    pub fn into_given(self) -> HashMap<Uuid, BatchAnswer> {
        self.given
    }
}
