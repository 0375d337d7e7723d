//! Assembles a client's frames into messages.

use axum::body::Bytes;
use bytes::BytesMut;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::deflate::{InflateError, inflate};
use super::error::{ProtocolViolation, SocketError};
use super::extension::Compression;
use super::frame::Frame;

/// Longest message of a client in bytes, as received and after inflation.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Most fragments of one message: empty ones would otherwise continue indefinitely.
pub const FRAGMENTS_MAX: u32 = 64;

/// A message or a control frame of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    Text(Utf8Bytes),
    Binary,
    /// The pong must carry the same payload.
    Ping(Bytes),
    Pong,
    Close(Option<CloseCode>),
}

/// Status code of a close frame (RFC 6455, section 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(pub u16);

/// Assembles one connection's frames.
#[derive(Debug)]
pub(super) struct Assembler {
    compression: Compression,
    partial: Option<Box<PartialMessage>>,
}

/// A message whose last fragment has not arrived.
#[derive(Debug)]
struct PartialMessage {
    is_text: bool,
    is_compressed: bool,
    payload: BytesMut,
    fragments: u32,
}

impl Assembler {
    pub fn new(compression: Compression) -> Assembler {
        Assembler {
            compression,
            partial: None,
        }
    }

    pub fn is_mid_message(&self) -> bool {
        self.partial.is_some()
    }

    /// Largest payload that the next data frame may have.
    pub fn frame_bytes_max(&self) -> usize {
        let received = self
            .partial
            .as_ref()
            .map_or(0, |partial| partial.payload.len());
        MESSAGE_BYTES_MAX.saturating_sub(received)
    }

    /// Adds a frame; returns the message that it completes, if it does.
    pub fn push(&mut self, frame: Frame) -> Result<Option<Incoming>, SocketError> {
        if frame.is_compressed && self.compression == Compression::None {
            return Err(ProtocolViolation::CompressionNotNegotiated.into());
        }
        match frame.opcode {
            OpCode::Control(Control::Ping) => Ok(Some(Incoming::Ping(frame.payload))),
            OpCode::Control(Control::Pong) => Ok(Some(Incoming::Pong)),
            OpCode::Control(_) => close_code(&frame.payload).map(Incoming::Close).map(Some),
            OpCode::Data(Data::Continue) => self.continue_message(frame),
            OpCode::Data(kind) => self.start_message(frame, kind == Data::Text),
        }
    }

    fn start_message(
        &mut self,
        frame: Frame,
        is_text: bool,
    ) -> Result<Option<Incoming>, SocketError> {
        if self.partial.is_some() {
            return Err(ProtocolViolation::InterleavedMessage.into());
        }
        if frame.is_final {
            return finish(frame.payload, is_text, frame.is_compressed).map(Some);
        }
        self.partial = Some(Box::new(PartialMessage {
            is_text,
            is_compressed: frame.is_compressed,
            payload: BytesMut::from(&frame.payload[..]),
            fragments: 1,
        }));
        Ok(None)
    }

    fn continue_message(&mut self, frame: Frame) -> Result<Option<Incoming>, SocketError> {
        let Some(partial) = &mut self.partial else {
            return Err(ProtocolViolation::StrayFragment.into());
        };
        // RFC 7692, section 6: only the first fragment has the bit.
        if frame.is_compressed {
            return Err(ProtocolViolation::ReservedBitsInFragment.into());
        }
        partial.fragments += 1;
        if partial.fragments > FRAGMENTS_MAX {
            return Err(SocketError::TooManyFragments);
        }
        if partial.payload.len() + frame.payload.len() > MESSAGE_BYTES_MAX {
            return Err(SocketError::TooBig);
        }
        partial.payload.extend_from_slice(&frame.payload);
        if !frame.is_final {
            return Ok(None);
        }
        let Some(partial) = self.partial.take() else {
            return Ok(None);
        };
        finish(
            partial.payload.freeze(),
            partial.is_text,
            partial.is_compressed,
        )
        .map(Some)
    }
}

fn finish(payload: Bytes, is_text: bool, is_compressed: bool) -> Result<Incoming, SocketError> {
    let payload = if is_compressed {
        match inflate(&payload, MESSAGE_BYTES_MAX) {
            Ok(message) => Bytes::from(message),
            Err(InflateError::TooBig) => return Err(SocketError::TooBig),
            Err(InflateError::Corrupt) => {
                return Err(ProtocolViolation::CorruptCompression.into());
            }
        }
    } else {
        payload
    };
    if is_text {
        Utf8Bytes::try_from(payload)
            .map(Incoming::Text)
            .map_err(|_| SocketError::NotUtf8)
    } else {
        Ok(Incoming::Binary)
    }
}

/// Section 7.4 lists the codes that may be sent.
fn close_code(payload: &[u8]) -> Result<Option<CloseCode>, SocketError> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(ProtocolViolation::HalfStatusCode.into()),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(ProtocolViolation::InvalidStatusCode.into());
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(SocketError::NotUtf8);
    }
    Ok(Some(CloseCode(code)))
}

#[cfg(test)]
mod tests {
    use super::super::deflate::deflate;
    use super::super::frame::next_frame;
    use super::super::frame::tests::masked;
    use super::*;

    fn read(compression: Compression, frames: &[Vec<u8>]) -> Result<Vec<Incoming>, SocketError> {
        let mut assembler = Assembler::new(compression);
        let mut arrived = BytesMut::from(&frames.concat()[..]);
        let mut messages = Vec::new();
        while let Some(frame) = next_frame(&mut arrived, assembler.frame_bytes_max())? {
            messages.extend(assembler.push(frame)?);
        }
        Ok(messages)
    }

    fn text(text: &str) -> Incoming {
        Incoming::Text(text.into())
    }

    fn deflated(message: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        assert!(deflate(message, &mut payload));
        payload
    }

    #[test]
    fn fragments_become_one_message_and_control_frames_may_come_between() {
        let frames = [
            masked(0x01, "h\u{e9}".as_bytes().split_at(2).0),
            masked(0x89, b"ping"),
            masked(0x00, "h\u{e9}".as_bytes().split_at(2).1),
            masked(0x8a, b""),
            masked(0x80, b"llo"),
            masked(0x82, b"\xff"),
            masked(0x88, b"\x03\xe8bye"),
        ];
        let expected = [
            Incoming::Ping(Bytes::from_static(b"ping")),
            Incoming::Pong,
            text("h\u{e9}llo"),
            Incoming::Binary,
            Incoming::Close(Some(CloseCode(1000))),
        ];
        assert_eq!(read(Compression::None, &frames).unwrap(), expected);
    }

    #[test]
    fn compressed_messages_are_inflated_whole_and_in_fragments() {
        let message = "a message that says the same, says the same, says the same".to_owned();
        let payload = deflated(message.as_bytes());
        let (first, second) = payload.split_at(7);
        let frames = [
            masked(0xc1, &payload),
            masked(0x41, first),
            masked(0x00, b""),
            masked(0x80, second),
            masked(0x81, b"plain"),
        ];
        assert_eq!(
            read(Compression::Deflate, &frames).unwrap(),
            [text(&message), text(&message), text("plain")]
        );
        assert!(matches!(
            read(Compression::None, &frames),
            Err(SocketError::Protocol(_))
        ));
    }

    #[test]
    fn size_is_limited_in_a_frame_across_fragments_and_after_inflation() {
        let most = vec![b'x'; MESSAGE_BYTES_MAX];
        let half = vec![b'x'; MESSAGE_BYTES_MAX / 2];
        let read = |frames: &[Vec<u8>]| read(Compression::Deflate, frames);
        assert_eq!(read(&[masked(0x81, &most)]).unwrap().len(), 1);
        assert_eq!(read(&[masked(0xc1, &deflated(&most))]).unwrap().len(), 1);
        let more = vec![b'x'; MESSAGE_BYTES_MAX + 1];
        assert_eq!(read(&[masked(0x81, &more)]), Err(SocketError::TooBig));
        assert_eq!(
            read(&[masked(0xc1, &deflated(&more))]),
            Err(SocketError::TooBig)
        );
        let fragments = [masked(0x01, &half), masked(0x00, &half), masked(0x80, b"x")];
        assert_eq!(read(&fragments), Err(SocketError::TooBig));
        assert_eq!(read(&fragments[..2]), Ok(vec![]));
    }

    #[test]
    fn the_number_of_fragments_is_limited() {
        let frames = |fragments: u32| {
            let mut frames = vec![masked(0x01, b"")];
            frames.extend((2..fragments).map(|_| masked(0x00, b"")));
            frames.push(masked(0x80, b"x"));
            frames
        };
        let read = |fragments| read(Compression::None, &frames(fragments));
        assert_eq!(read(FRAGMENTS_MAX), Ok(vec![text("x")]));
        assert_eq!(read(FRAGMENTS_MAX + 1), Err(SocketError::TooManyFragments));
    }

    #[test]
    fn violations_of_the_standard_are_reported() {
        for (what, frames) in [
            ("a fragment without a message", vec![masked(0x80, b"x")]),
            (
                "a message within another",
                vec![masked(0x01, b"x"), masked(0x81, b"y")],
            ),
            (
                "a later fragment that is marked as compressed",
                vec![masked(0x41, b"x"), masked(0xc0, b"y")],
            ),
            (
                "noise instead of a compressed message",
                vec![masked(0xc1, &[0xff; 9])],
            ),
            ("half a status code", vec![masked(0x88, b"\x03")]),
            ("1005 is never sent", vec![masked(0x88, b"\x03\xed")]),
            ("999 is not a code", vec![masked(0x88, b"\x03\xe7")]),
            ("5000 is not a code", vec![masked(0x88, b"\x13\x88")]),
        ] {
            let read = read(Compression::Deflate, &frames);
            assert!(
                matches!(read, Err(SocketError::Protocol(_))),
                "{what}: {read:?}"
            );
        }
        for frames in [masked(0x81, b"\xff"), masked(0x88, b"\x03\xe8\xff")] {
            assert_eq!(
                read(Compression::None, &[frames]),
                Err(SocketError::NotUtf8)
            );
        }
        assert_eq!(
            read(Compression::None, &[masked(0x88, b"")]),
            Ok(vec![Incoming::Close(None)])
        );
    }
}
