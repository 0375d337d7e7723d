//! Decodes the payloads of jobs so that none of them can stop a worker.
//!
//! When apalis fetches a payload that it cannot decode, it ends the worker, releases all fetched jobs, and fetches the same
//! payload again. Here every payload decodes, an unreadable one to the reason, and its job becomes a dead letter.

use std::convert::Infallible;

use apalis_core::backend::codec::Codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::truncated;

/// Longest part of an unreadable payload that its reason shows, characters.
const SHOWN_CHARS_MAX: usize = 80;

/// The arguments of a job, or why they cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload<T> {
    Readable(T),
    Unreadable(String),
}

/// JSON that never fails to decode.
#[derive(Clone, Copy, Debug, Default)]
pub struct LenientJson;

impl<T: Serialize + DeserializeOwned> Codec<Payload<T>> for LenientJson {
    type Error = Infallible;
    type Compact = Vec<u8>;

    fn encode(&self, payload: &Payload<T>) -> Result<Vec<u8>, Infallible> {
        Ok(match payload {
            // Payloads are flat structs of ids and texts, which serde_json always writes.
            Payload::Readable(arguments) => serde_json::to_vec(arguments).unwrap_or_default(),
            Payload::Unreadable(reason) => reason.clone().into_bytes(),
        })
    }

    fn decode(&self, bytes: &Vec<u8>) -> Result<Payload<T>, Infallible> {
        Ok(match serde_json::from_slice(bytes) {
            Ok(arguments) => Payload::Readable(arguments),
            Err(error) => Payload::Unreadable(format!(
                "its payload {:?} cannot be read: {error}",
                excerpt(bytes)
            )),
        })
    }
}

fn excerpt(bytes: &[u8]) -> String {
    // A character has four bytes at most, so this holds at least one more than is shown, if there is one.
    let begin = &bytes[..bytes.len().min(4 * (SHOWN_CHARS_MAX + 1))];
    truncated(&String::from_utf8_lossy(begin), SHOWN_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::MintReading;

    fn decoded(bytes: &[u8]) -> Payload<MintReading> {
        let Ok(payload) = LenientJson.decode(&bytes.to_vec());
        payload
    }

    #[test]
    fn an_encoded_payload_decodes_and_anything_else_decodes_to_a_reason() {
        let reading_id = uuid::Uuid::now_v7();
        let payload = Payload::Readable(MintReading { reading_id });
        let Ok(bytes) = LenientJson.encode(&payload);
        assert_eq!(decoded(&bytes), payload);
        for odd in [
            &b""[..],
            b"\xff\xfe",
            b"not json",
            b"{}",
            br#"{"reading_id":"no id"}"#,
            &[b'7'; 5_000],
        ] {
            let Payload::Unreadable(reason) = decoded(odd) else {
                panic!("{odd:?} was decoded");
            };
            assert!(reason.len() < 600, "{reason}");
        }
    }
}
