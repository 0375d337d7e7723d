//! The domain's state machines as SQL guards: code, statements and model share one definition.

use crate::domain::{MintTransactionEvent, MintTransactionState, ReadingEvent, ReadingState};

/// The states in which an event is legal, and the state it leads to: `… SET state = $to WHERE state = ANY($from)`.
#[derive(Clone, Debug)]
pub struct Guard {
    pub from: Vec<&'static str>,
    pub to: &'static str,
}

/// The guard of a reading's event.
///
/// Every event of the machine leads to one state, so the `to` of the last legal source holds for all of them.
pub fn reading_guard(event: ReadingEvent) -> Guard {
    collect(ReadingState::ALL.iter().filter_map(|state| {
        let next = state.next(event).ok()?;
        Some((state.as_str(), next.as_str()))
    }))
}

/// The guard of a mint transaction's event.
pub fn mint_transaction_guard(event: MintTransactionEvent) -> Guard {
    collect(MintTransactionState::ALL.iter().filter_map(|state| {
        let next = state.next(event).ok()?;
        Some((state.as_str(), next.as_str()))
    }))
}

fn collect(edges: impl Iterator<Item = (&'static str, &'static str)>) -> Guard {
    let mut guard = Guard {
        from: Vec::new(),
        to: "",
    };
    for (from, to) in edges {
        guard.from.push(from);
        guard.to = to;
    }
    guard
}
