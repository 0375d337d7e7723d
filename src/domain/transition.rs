//! What both state machines refuse.

use thiserror::Error;

/// A change that must not happen. The caller has a defect, or acts on what it read before somebody else's change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a {machine} that is {state} cannot take {event}")]
pub struct IllegalTransition {
    pub machine: &'static str,
    pub state: &'static str,
    pub event: &'static str,
}

/// A text that names no state.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text} is no state of a {machine}: one of {known}")]
pub struct UnknownState {
    pub(super) text: String,
    pub(super) machine: &'static str,
    pub(super) known: String,
}
