//! A message to clients, framed and compressed once for all of them.

use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::deflate::deflate;
use super::extension::Compression;
use super::frame::{TEXT, framed, header_of};

/// Shorter messages gain next to nothing from compression.
const COMPRESSED_FROM_BYTES: usize = 128;

/// A text message. A clone shares its bytes.
#[derive(Clone, Debug)]
pub struct Text(Arc<Encoded>);

#[derive(Debug)]
struct Encoded {
    /// A slice of `frame`.
    text: Utf8Bytes,
    frame: Bytes,
    /// Made for the first client that negotiated compression; `None` if it is not shorter.
    compressed: OnceLock<Option<Compressed>>,
}

#[derive(Debug)]
struct Compressed {
    frame: Bytes,
    payload_at: usize,
}

impl Text {
    pub fn new(text: &str) -> Text {
        let frame = framed(TEXT, text.as_bytes());
        let text = Utf8Bytes::try_from(frame.slice(frame.len() - text.len()..))
            .unwrap_or_else(|_| unreachable!("these are the bytes of a str"));
        Text(Arc::new(Encoded {
            text,
            frame,
            compressed: OnceLock::new(),
        }))
    }

    pub fn as_str(&self) -> &str {
        self.0.text.as_str()
    }

    /// The encoded frame for a connection with this compression.
    pub fn frame(&self, compression: Compression) -> Bytes {
        let compressed = match compression {
            Compression::None => None,
            Compression::Deflate => self.compressed(),
        };
        compressed
            .map_or(&self.0.frame, |compressed| &compressed.frame)
            .clone()
    }

    fn compressed(&self) -> Option<&Compressed> {
        let compress = || {
            let text = self.as_str();
            if text.len() < COMPRESSED_FROM_BYTES {
                return None;
            }
            let mut payload = Vec::with_capacity(text.len() / 2);
            deflate(text.as_bytes(), &mut payload).then(|| Compressed::new(&payload))
        };
        self.0.compressed.get_or_init(compress).as_ref()
    }
}

/// The encoding of several messages as one compressed frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrayCompression {
    /// Concatenates the messages' own compressed forms, which all clients share: nothing is compressed again.
    Concatenated,
    /// Compresses the array as a whole, for this client alone: less than half of the bytes, since messages resemble each other.
    Recompressed,
}

/// Several messages as one frame with a JSON array.
pub fn array(
    messages: &[&Text],
    compression: Compression,
    array_compression: ArrayCompression,
) -> Bytes {
    match (compression, array_compression) {
        (Compression::None, _) => framed(TEXT, &joined(messages)),
        (Compression::Deflate, ArrayCompression::Concatenated) => joined_compressed(messages),
        (Compression::Deflate, ArrayCompression::Recompressed) => {
            let text = joined(messages);
            let mut payload = Vec::with_capacity(text.len() / 2);
            if deflate(&text, &mut payload) {
                Compressed::new(&payload).frame
            } else {
                framed(TEXT, &text)
            }
        }
    }
}

fn joined(messages: &[&Text]) -> Vec<u8> {
    let bytes: usize = messages
        .iter()
        .map(|message| message.as_str().len() + 1)
        .sum();
    let mut array = Vec::with_capacity(bytes + 1);
    for message in messages {
        array.push(if array.is_empty() { b'[' } else { b',' });
        array.extend_from_slice(message.as_str().as_bytes());
    }
    array.push(b']');
    array
}

/// Three bits: a stored block that is not the last one; the rest of the byte is padding.
const STORED_HEADER: u8 = 0x00;
/// Most bytes of a stored block.
const STORED_BYTES_MAX: usize = 0xffff;

/// Each message was compressed with an empty window and ends on a byte boundary, right after the header of a stored block. A
/// receiver of the single message completes that block with the tail, as an empty one; here it gets the comma
/// (RFC 1951, section 3.2.4).
fn joined_compressed(messages: &[&Text]) -> Bytes {
    let mut payload = Vec::with_capacity(messages.len() * 256);
    payload.push(STORED_HEADER);
    store(b"[", &mut payload);
    for (index, message) in messages.iter().enumerate() {
        if index > 0 {
            store(b",", &mut payload);
        }
        match message.compressed() {
            // Starts on a byte boundary and ends with the header of a stored block.
            Some(compressed) => payload.extend_from_slice(compressed.payload()),
            None => {
                for part in message.as_str().as_bytes().chunks(STORED_BYTES_MAX) {
                    payload.push(STORED_HEADER);
                    store(part, &mut payload);
                }
                payload.push(STORED_HEADER);
            }
        }
    }
    store(b"]", &mut payload);
    payload.push(STORED_HEADER);
    Compressed::new(&payload).frame
}

/// Appends the rest of a stored block after its header: at most [`STORED_BYTES_MAX`] bytes.
fn store(part: &[u8], payload: &mut Vec<u8>) {
    // Callers pass at most STORED_BYTES_MAX bytes.
    let length = part.len() as u16;
    payload.extend(length.to_le_bytes());
    payload.extend((!length).to_le_bytes());
    payload.extend_from_slice(part);
}

impl Compressed {
    fn new(payload: &[u8]) -> Compressed {
        let mut frame = header_of(TEXT, Compression::Deflate, payload.len());
        let payload_at = frame.len();
        frame.extend_from_slice(payload);
        Compressed {
            frame: frame.into(),
            payload_at,
        }
    }

    fn payload(&self) -> &[u8] {
        self.frame.get(self.payload_at..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::deflate::inflate;
    use super::*;

    /// A frame's text, and whether it was compressed.
    fn read(frame: &Bytes) -> (String, bool) {
        let header_bytes = match frame[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let payload = &frame[header_bytes..];
        let is_compressed = frame[0] == 0xc1;
        let text = if is_compressed {
            inflate(payload, 10_000_000).unwrap()
        } else {
            assert_eq!(frame[0], 0x81);
            payload.to_vec()
        };
        (String::from_utf8(text).unwrap(), is_compressed)
    }

    fn event(seq: usize) -> String {
        let id = uuid::Uuid::now_v7();
        format!(
            r#"{{"seq":{seq},"id":"{id}","type":"TokensMinted","version":1,"user_id":"ünal","meter_id":"m-1","reading_id":"{id}"}}"#
        )
    }

    #[test]
    fn a_message_is_encoded_once_for_all_clients() {
        let text = Text::new(&event(1));
        let copy = text.clone();
        for compression in [Compression::None, Compression::Deflate] {
            let frame = text.frame(compression);
            assert_eq!(frame.as_ptr(), copy.frame(compression).as_ptr());
            let expected = (
                text.as_str().to_owned(),
                compression == Compression::Deflate,
            );
            assert_eq!(read(&frame), expected);
        }
    }

    #[test]
    fn short_messages_are_not_compressed() {
        for text in ["{}".to_owned(), "x".repeat(COMPRESSED_FROM_BYTES - 1)] {
            let frame = Text::new(&text).frame(Compression::Deflate);
            assert_eq!(read(&frame), (text, false));
        }
    }

    #[test]
    fn an_array_holds_its_messages_however_they_were_encoded() {
        let long = format!(r#"{{"error_reason":"{}"}}"#, "x".repeat(70_000));
        let noise: String = (0..40_000).map(|_| rand::random::<char>()).collect();
        let texts = [event(1), event(2), "{}".to_owned(), long, event(3), noise];
        for count in 1..=texts.len() {
            let messages: Vec<Text> = texts[..count].iter().map(|text| Text::new(text)).collect();
            let messages: Vec<&Text> = messages.iter().collect();
            let expected = format!("[{}]", texts[..count].join(","));
            for compression in [Compression::None, Compression::Deflate] {
                for array_compression in [
                    ArrayCompression::Concatenated,
                    ArrayCompression::Recompressed,
                ] {
                    let (text, _) = read(&array(&messages, compression, array_compression));
                    assert!(
                        text == expected,
                        "{count}, {compression:?}, {array_compression:?}"
                    );
                }
            }
        }
    }
}
