//! Compresses one message, inflates one: each starts with an empty window (RFC 7692, section 7.2).

use std::cell::RefCell;

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

/// Window for compression: 4 KiB span several events, and cost a client's decompressor an eighth of the largest window.
pub(super) const WINDOW_BITS: u8 = 12;
/// Window for inflation: a client may use the largest one.
const CLIENT_WINDOW_BITS: u8 = 15;
/// Saves nearly as many bytes as higher levels in half of their time.
const LEVEL: i32 = 4;
/// The end of every sync flush: the sender removes it, the receiver appends it (section 7.2.1).
pub(super) const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// Output buffers grow by this step, so that a small message takes little memory.
const STEP_BYTES: usize = 2 * 1024;

thread_local! {
    // The states take some 100 kB and 40 kB and no message needs its predecessor's: one of each per thread, none per connection.
    static DEFLATER: RefCell<Deflate> = RefCell::new(Deflate::new(LEVEL, false, WINDOW_BITS));
    static INFLATER: RefCell<Inflate> = RefCell::new(Inflate::new(false, CLIENT_WINDOW_BITS));
}

/// A message cannot be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InflateError {
    TooBig,
    Corrupt,
}

/// Appends a message's compressed payload, without the tail, to `out`. Returns false and leaves `out` unchanged if the payload
/// would not be shorter than the message.
pub(super) fn deflate(message: &[u8], out: &mut Vec<u8>) -> bool {
    DEFLATER.with_borrow_mut(|deflater| {
        let before = out.len();
        deflater.reset();
        let mut input = message;
        loop {
            let end = out.len();
            out.resize(end + STEP_BYTES, 0);
            let (consumed, produced) = (deflater.total_in(), deflater.total_out());
            let status = deflater.compress(input, &mut out[end..], DeflateFlush::SyncFlush);
            let consumed = difference(deflater.total_in(), consumed);
            let produced = difference(deflater.total_out(), produced);
            out.truncate(end + produced);
            input = input.get(consumed..).unwrap_or_default();
            let is_done = produced < STEP_BYTES && input.is_empty();
            let is_too_long = out.len() - before >= message.len() + TAIL.len();
            if status.is_err() || is_too_long {
                out.truncate(before);
                return false;
            }
            if is_done {
                break;
            }
        }
        let payload = out.len().saturating_sub(TAIL.len());
        let is_flushed = payload >= before && out.get(payload..) == Some(&TAIL[..]);
        out.truncate(if is_flushed { payload } else { before });
        is_flushed
    })
}

/// Inflates a compressed payload; never produces more than one byte beyond `bytes_max`.
pub(super) fn inflate(payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
    INFLATER.with_borrow_mut(|inflater| {
        inflater.reset(false);
        let mut message = Vec::new();
        for part in [payload, &TAIL] {
            inflate_part(inflater, part, &mut message, bytes_max)?;
        }
        Ok(message)
    })
}

fn inflate_part(
    inflater: &mut Inflate,
    mut input: &[u8],
    message: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<(), InflateError> {
    loop {
        let end = message.len();
        // One byte beyond the limit distinguishes a message that is too big from one that just fits.
        let room = STEP_BYTES.max(end).min(bytes_max + 1 - end);
        message.resize(end + room, 0);
        let (consumed, produced) = (inflater.total_in(), inflater.total_out());
        let status = inflater.decompress(input, &mut message[end..], InflateFlush::SyncFlush);
        let consumed = difference(inflater.total_in(), consumed);
        let produced = difference(inflater.total_out(), produced);
        message.truncate(end + produced);
        input = input.get(consumed..).unwrap_or_default();
        if message.len() > bytes_max {
            return Err(InflateError::TooBig);
        }
        match status {
            Err(_) => return Err(InflateError::Corrupt),
            // A block may be marked as the last one, and others may follow it (section 7.2.3.5).
            Ok(Status::StreamEnd) => inflater.reset(false),
            Ok(Status::Ok | Status::BufError) => {
                let is_stuck = consumed == 0 && produced == 0;
                if is_stuck && !input.is_empty() {
                    return Err(InflateError::Corrupt);
                }
                if input.is_empty() && produced < room {
                    return Ok(());
                }
            }
        }
        if input.is_empty() && produced < room {
            return Ok(());
        }
    }
}

/// Progress of one call, which is bounded by the size of its buffers.
fn difference(after: u64, before: u64) -> usize {
    usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn deflated(message: &[u8]) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        let is_shorter = deflate(message, &mut out);
        let payload = out.split_off(6);
        assert_eq!(out, b"before");
        assert_eq!(is_shorter, !payload.is_empty());
        is_shorter.then_some(payload)
    }

    #[test]
    fn a_message_survives_the_round_trip() {
        let event = r#"{"seq":42,"type":"TokensMinted","user_id":"anna","meter_id":"anna-1"}"#;
        for message in [
            event.to_owned(),
            event.repeat(7),
            event.repeat(3_000),
            "x".repeat(STEP_BYTES),
            "y".repeat(70_000),
        ] {
            let payload = deflated(message.as_bytes()).unwrap();
            assert!(payload.len() < message.len());
            let inflated = inflate(&payload, message.len()).unwrap();
            assert_eq!(inflated, message.as_bytes());
            assert_eq!(
                inflate(&payload, message.len() - 1),
                Err(InflateError::TooBig)
            );
        }
    }

    #[test]
    fn a_message_that_does_not_get_shorter_is_not_compressed() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .take(10_000)
        .collect();
        assert_eq!(deflated(&noise), None);
        assert_eq!(deflated(b""), None);
        assert_eq!(deflated(b"{}"), None);
    }

    #[test]
    fn the_examples_of_the_standard_are_inflated() {
        // RFC 7692, section 7.2.3: one block, a stored block, a last block, two blocks.
        for payload in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[
                0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
            ],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[
                0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
            ],
        ] {
            assert_eq!(inflate(payload, 5).unwrap(), b"Hello", "{payload:x?}");
        }
    }

    #[test]
    fn a_decompression_bomb_produces_no_more_than_the_limit() {
        let bomb = deflated(&vec![0; 10_000_000]).unwrap();
        assert!(bomb.len() < 20_000);
        assert_eq!(inflate(&bomb, 65_536), Err(InflateError::TooBig));
        // The rest of a message does not affect the next one.
        let next = deflated(&b"next".repeat(20)).unwrap();
        assert_eq!(inflate(&next, 80).unwrap(), b"next".repeat(20));
    }

    proptest! {
        #[test]
        fn noise_is_rejected_or_inflated_within_the_limit(payload: Vec<u8>, bytes_max in 0_usize..5_000) {
            if let Ok(message) = inflate(&payload, bytes_max) {
                prop_assert!(message.len() <= bytes_max);
            }
        }

        #[test]
        fn any_message_survives(message in proptest::collection::vec(0_u8..4, 0..9_000)) {
            if let Some(payload) = deflated(&message) {
                prop_assert_eq!(inflate(&payload, message.len()).unwrap(), message);
            }
        }
    }
}
