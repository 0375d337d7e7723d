//! Packs events into frames: a single event as it is, several as an array.

use std::sync::Arc;

use axum::body::Bytes;

use super::event::{FeedEvent, Seq};
use super::follower::STEP_EVENTS_MAX;
use crate::websocket::{ArrayCompression, Compression, Text, array};

/// Most events in one frame: one step of a replay.
pub(super) const FRAME_EVENTS_MAX: usize = STEP_EVENTS_MAX as usize; // u16 fits; `From` is not const
/// Most bytes in one frame of several events: well below the default limit of client libraries (a megabyte).
const FRAME_BYTES_MAX: usize = 256 * 1024;

/// An encoded frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub bytes: Bytes,
    /// Number of its last event.
    pub last: Seq,
}

/// The frames for these events, in order. The frame of a single event is shared by all clients that receive it alone.
pub(super) fn frames(
    events: &[Arc<FeedEvent>],
    compression: Compression,
    array_compression: ArrayCompression,
) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut rest = events;
    while !rest.is_empty() {
        let (fitting, left) = rest.split_at(events_that_fit(rest));
        frames.extend(fitting.last().map(|last| Frame {
            bytes: match fitting {
                [single] => single.document.frame(compression),
                several => {
                    let documents: Vec<&Text> =
                        several.iter().map(|event| &event.document).collect();
                    array(&documents, compression, array_compression)
                }
            },
            last: last.seq,
        }));
        rest = left;
    }
    frames
}

/// How many events the next frame takes: at least one.
fn events_that_fit(events: &[Arc<FeedEvent>]) -> usize {
    let mut bytes = 0;
    let fitting = events
        .iter()
        .take(FRAME_EVENTS_MAX)
        .take_while(|event| {
            bytes += event.document.as_str().len() + 1;
            bytes < FRAME_BYTES_MAX
        })
        .count();
    fitting.max(1)
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

    fn plain(events: &[Arc<FeedEvent>]) -> Vec<Frame> {
        frames(events, Compression::None, ArrayCompression::Concatenated)
    }

    fn text(frame: &Frame) -> &str {
        let header_bytes = match frame.bytes[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        std::str::from_utf8(&frame.bytes[header_bytes..]).unwrap()
    }

    #[test]
    fn one_event_is_a_message_and_several_are_an_array() {
        assert!(plain(&[]).is_empty());
        let single = plain(&events(1, r#"{"id":"x"}"#));
        assert_eq!(text(&single[0]), r#"{"seq":1,"id":"x"}"#);
        let several = plain(&events(2, r#"{"id":"x"}"#));
        assert_eq!(several.len(), 1);
        assert_eq!(
            text(&several[0]),
            r#"[{"seq":1,"id":"x"},{"seq":2,"id":"x"}]"#
        );
    }

    #[test]
    fn frames_are_bounded_and_lose_no_event() {
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(100_000));
        let longest = format!(r#"{{"id":"{}"}}"#, "x".repeat(300_000));
        for (events, sizes) in [
            (events(1_200, r#"{"id":"x"}"#), vec![500, 500, 200]),
            (events(5, &long), vec![2, 2, 1]),
            (events(2, &longest), vec![1, 1]),
        ] {
            let mut numbers = Vec::new();
            let frames: Vec<usize> = plain(&events)
                .iter()
                .map(|frame| {
                    let messages: Vec<serde_json::Value> = if text(frame).starts_with('[') {
                        serde_json::from_str(text(frame)).unwrap()
                    } else {
                        vec![serde_json::from_str(text(frame)).unwrap()]
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
