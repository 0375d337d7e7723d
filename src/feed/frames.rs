//! Events into frames: one as it is, several as an array.

use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;

use super::event::{FeedEvent, Seq};
use super::follower::STEP_EVENTS_MAX;

/// Events in one frame: one step of a replay.
pub(super) const FRAME_EVENTS_MAX: usize = STEP_EVENTS_MAX as usize;
/// Bytes in one frame of several events: well below what client libraries take by default (a megabyte).
const FRAME_BYTES_MAX: usize = 256 * 1024;

/// One text frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub text: Utf8Bytes,
    /// Number of its last event.
    pub last: Seq,
}

/// The frames for these events, in order. A single event's text is shared with all who get it alone.
pub(super) fn frames(events: &[Arc<FeedEvent>]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut rest = events;
    while !rest.is_empty() {
        let (fitting, left) = rest.split_at(events_that_fit(rest));
        frames.extend(fitting.last().map(|last| Frame {
            text: match fitting {
                [single] => single.document.clone(),
                several => array(several),
            },
            last: last.seq,
        }));
        rest = left;
    }
    frames
}

/// At least one.
fn events_that_fit(events: &[Arc<FeedEvent>]) -> usize {
    let mut bytes = 0;
    let fitting = events
        .iter()
        .take(FRAME_EVENTS_MAX)
        .take_while(|event| {
            bytes += event.document.len() + 1;
            bytes < FRAME_BYTES_MAX
        })
        .count();
    fitting.max(1)
}

fn array(events: &[Arc<FeedEvent>]) -> Utf8Bytes {
    let bytes: usize = events.iter().map(|event| event.document.len() + 1).sum();
    let mut text = String::with_capacity(bytes + 1);
    for event in events {
        text.push(if text.is_empty() { '[' } else { ',' });
        text.push_str(event.document.as_str());
    }
    text.push(']');
    text.into()
}

#[cfg(test)]
mod tests {
    use super::super::event::event;
    use super::*;

    fn events(count: i64, body: &str) -> Vec<Arc<FeedEvent>> {
        (1..=count)
            .map(|seq| Arc::new(event(seq, "TokensMinted", None, body)))
            .collect()
    }

    #[test]
    fn one_event_is_a_message_and_several_are_an_array() {
        assert!(frames(&[]).is_empty());
        let single = frames(&events(1, r#"{"id":"x"}"#));
        assert_eq!(single[0].text.as_str(), r#"{"seq":1,"id":"x"}"#);
        let several = frames(&events(2, r#"{"id":"x"}"#));
        assert_eq!(several.len(), 1);
        assert_eq!(
            several[0].text.as_str(),
            r#"[{"seq":1,"id":"x"},{"seq":2,"id":"x"}]"#
        );
    }

    #[test]
    fn frames_are_bounded_and_lose_nothing() {
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(100_000));
        let longest = format!(r#"{{"id":"{}"}}"#, "x".repeat(300_000));
        for (events, sizes) in [
            (events(1_200, r#"{"id":"x"}"#), vec![500, 500, 200]),
            (events(5, &long), vec![2, 2, 1]),
            (events(2, &longest), vec![1, 1]),
        ] {
            let mut numbers = Vec::new();
            let frames: Vec<usize> = frames(&events)
                .iter()
                .map(|frame| {
                    let messages: Vec<serde_json::Value> = if frame.text.starts_with('[') {
                        serde_json::from_str(&frame.text).unwrap()
                    } else {
                        vec![serde_json::from_str(&frame.text).unwrap()]
                    };
                    numbers.extend(messages.iter().map(|message| message["seq"].as_i64()));
                    assert_eq!(numbers.last().unwrap().unwrap(), frame.last.get());
                    messages.len()
                })
                .collect();
            assert_eq!(frames, sizes);
            let expected: Vec<_> = (1..=events.len() as i64).map(Some).collect();
            assert_eq!(numbers, expected);
        }
    }
}
