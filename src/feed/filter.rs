//! Selects, of the events that a listener may see, those that it requested.

use std::collections::HashSet;

use super::event::FeedEvent;
use crate::domain::Kwh;

/// An event passes if it meets every condition; an empty filter passes every event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Event types; `None`: all.
    pub event_types: Option<HashSet<String>>,
    /// Meter serials; `None`: all. With a list, events without a meter do not pass.
    pub meters: Option<HashSet<String>>,
    /// Minimum energy; `None`: any. With a minimum, events without an energy do not pass.
    pub min_amount: Option<Kwh>,
}

impl Filter {
    pub fn passes(&self, event: &FeedEvent) -> bool {
        let type_passes = self
            .event_types
            .as_ref()
            .is_none_or(|types| types.contains(&event.event_type));
        let meter_passes = self.meters.as_ref().is_none_or(|meters| {
            event
                .meter
                .as_ref()
                .is_some_and(|meter| meters.contains(meter))
        });
        let amount_passes = self
            .min_amount
            .is_none_or(|min| event.kwh.is_some_and(|kwh| kwh >= min));
        type_passes && meter_passes && amount_passes
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::event;
    use super::*;

    fn set(items: &[&str]) -> Option<HashSet<String>> {
        Some(items.iter().map(|item| (*item).to_owned()).collect())
    }

    #[test]
    fn all_conditions_must_hold() {
        let minted = event(
            1,
            "TokensMinted",
            Some("a"),
            r#"{"meter_id":"m-1","kwh_amount":"1.25"}"#,
        );
        let batch = event(2, "BatchMintingCompleted", None, r#"{"batch_id":"b"}"#);
        let passes = |filter: Filter| [filter.passes(&minted), filter.passes(&batch)];
        let of = |event_types, meters| Filter {
            event_types,
            meters,
            min_amount: None,
        };
        assert_eq!(passes(of(None, None)), [true, true]);
        assert_eq!(passes(of(set(&["TokensMinted"]), None)), [true, false]);
        assert_eq!(passes(of(None, set(&["m-1", "m-2"]))), [true, false]);
        assert_eq!(passes(of(None, set(&["m-2"]))), [false, false]);
        assert_eq!(
            passes(of(set(&["BatchMintingCompleted"]), set(&["m-1"]))),
            [false, false]
        );
        assert_eq!(passes(of(set(&[]), None)), [false, false]);
        let from = |least: &str| Filter {
            min_amount: Some(Kwh::parse(least).unwrap()),
            ..of(set(&["TokensMinted", "BatchMintingCompleted"]), None)
        };
        assert_eq!(passes(from("1.25")), [true, false]);
        assert_eq!(passes(from("1.2500001")), [false, false]);
    }
}
