//! What a job carries, read so that nothing in it can stop a worker.
//!
//! apalis ends a worker whose fetch meets a payload that it cannot decode, hands the whole batch back, and meets it again.
//! Here such a payload decodes all the same, to the reason why it makes no sense, and its job ends as dead like any other.

use std::convert::Infallible;

use apalis_core::backend::codec::Codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest part of an unreadable payload that its reason shows, characters.
const SHOWN_CHARS_MAX: usize = 80;

/// The arguments of a job, or why they cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload<T> {
    Readable(T),
    Unreadable(String),
}

/// JSON that is taken as it comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct PatientJson;

impl<T: Serialize + DeserializeOwned> Codec<Payload<T>> for PatientJson {
    type Error = Infallible;
    type Compact = Vec<u8>;

    fn encode(&self, payload: &Payload<T>) -> Result<Vec<u8>, Infallible> {
        Ok(match payload {
            // Ids and ticks: serde_json has no way to refuse them.
            Payload::Readable(arguments) => serde_json::to_vec(arguments).unwrap_or_default(),
            Payload::Unreadable(reason) => reason.clone().into_bytes(),
        })
    }

    fn decode(&self, bytes: &Vec<u8>) -> Result<Payload<T>, Infallible> {
        Ok(match serde_json::from_slice(bytes) {
            Ok(arguments) => Payload::Readable(arguments),
            Err(error) => Payload::Unreadable(format!(
                "its payload {:?} cannot be read: {error}",
                beginning(bytes)
            )),
        })
    }
}

fn beginning(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN_CHARS_MAX)]);
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < bytes.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::super::mint_reading::MintReading;
    use super::*;

    fn decoded(bytes: &[u8]) -> Payload<MintReading> {
        let Ok(payload) = PatientJson.decode(&bytes.to_vec());
        payload
    }

    #[test]
    fn what_is_written_is_read_and_anything_else_is_a_reason() {
        let reading_id = uuid::Uuid::now_v7();
        let payload = Payload::Readable(MintReading { reading_id });
        let Ok(bytes) = PatientJson.encode(&payload);
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
                panic!("{odd:?} was read");
            };
            assert!(reason.len() < 600, "{reason}");
        }
    }
}
