//! The errors of both state machines.

use thiserror::Error;

/// A change that must not happen. The caller has a defect, or acts on a state that another process has changed since.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a {machine} that is {state} cannot take {event}")]
pub struct IllegalTransition {
    pub machine: &'static str,
    pub state: &'static str,
    pub event: &'static str,
}

/// A text that is not the name of a state.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text} is not a state of a {machine}: one of {known}")]
pub struct UnknownState {
    pub(super) text: String,
    pub(super) machine: &'static str,
    pub(super) known: String,
}
