//! A client's frames into messages.

use axum::body::Bytes;
use bytes::BytesMut;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::deflate::{InflateError, inflate};
use super::extension::Compression;
use super::frame::Frame;

/// Longest message of a client, bytes, as it comes and after inflation.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Frames that one message may come in: empty ones would otherwise go on for ever.
pub const FRAGMENTS_MAX: u32 = 64;

/// What a client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    Text(Utf8Bytes),
    Binary,
    /// To be answered with the same bytes.
    Ping(Bytes),
    Pong,
    Close(Option<Closing>),
}

/// What a client closes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    pub code: u16,
}

/// Why a connection cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketError {
    /// It ended without a farewell, as most do.
    Gone,
    /// Against RFC 6455 or 7692, in this way.
    Protocol(&'static str),
    NotUtf8,
    TooBig,
    TooManyFragments,
    /// A message began and did not go on.
    Unfinished,
}

/// Puts a connection's frames together.
#[derive(Debug)]
pub(super) struct Assembler {
    compression: Compression,
    begun: Option<Box<Begun>>,
}

/// A message that is not complete.
#[derive(Debug)]
struct Begun {
    is_text: bool,
    is_compressed: bool,
    payload: BytesMut,
    fragments: u32,
}

impl Assembler {
    pub fn new(compression: Compression) -> Assembler {
        Assembler {
            compression,
            begun: None,
        }
    }

    pub fn is_amid_message(&self) -> bool {
        self.begun.is_some()
    }

    /// Bytes that the next data frame may have.
    pub fn frame_bytes_max(&self) -> usize {
        let kept = self.begun.as_ref().map_or(0, |begun| begun.payload.len());
        MESSAGE_BYTES_MAX.saturating_sub(kept)
    }

    /// What the frame completes; `None` when more belongs to it.
    pub fn take(&mut self, frame: Frame) -> Result<Option<Incoming>, SocketError> {
        if frame.is_compressed && self.compression == Compression::None {
            return Err(SocketError::Protocol(
                "a message is compressed, which was not agreed",
            ));
        }
        match frame.opcode {
            OpCode::Control(Control::Ping) => Ok(Some(Incoming::Ping(frame.payload))),
            OpCode::Control(Control::Pong) => Ok(Some(Incoming::Pong)),
            OpCode::Control(_) => closing(&frame.payload).map(Incoming::Close).map(Some),
            OpCode::Data(Data::Continue) => self.go_on(frame),
            OpCode::Data(kind) => self.begin(frame, kind == Data::Text),
        }
    }

    fn begin(&mut self, frame: Frame, is_text: bool) -> Result<Option<Incoming>, SocketError> {
        if self.begun.is_some() {
            return Err(SocketError::Protocol(
                "a message begins within another one's fragments",
            ));
        }
        if frame.is_final {
            return complete(frame.payload, is_text, frame.is_compressed).map(Some);
        }
        self.begun = Some(Box::new(Begun {
            is_text,
            is_compressed: frame.is_compressed,
            payload: BytesMut::from(&frame.payload[..]),
            fragments: 1,
        }));
        Ok(None)
    }

    fn go_on(&mut self, frame: Frame) -> Result<Option<Incoming>, SocketError> {
        let Some(begun) = &mut self.begun else {
            return Err(SocketError::Protocol("a fragment belongs to no message"));
        };
        // RFC 7692, section 6: only the first one tells.
        if frame.is_compressed {
            return Err(SocketError::Protocol("a later fragment has reserved bits"));
        }
        begun.fragments += 1;
        if begun.fragments > FRAGMENTS_MAX {
            return Err(SocketError::TooManyFragments);
        }
        if begun.payload.len() + frame.payload.len() > MESSAGE_BYTES_MAX {
            return Err(SocketError::TooBig);
        }
        begun.payload.extend_from_slice(&frame.payload);
        if !frame.is_final {
            return Ok(None);
        }
        let Some(begun) = self.begun.take() else {
            return Ok(None);
        };
        complete(begun.payload.freeze(), begun.is_text, begun.is_compressed).map(Some)
    }
}

fn complete(payload: Bytes, is_text: bool, is_compressed: bool) -> Result<Incoming, SocketError> {
    let payload = if is_compressed {
        match inflate(&payload, MESSAGE_BYTES_MAX) {
            Ok(message) => Bytes::from(message),
            Err(InflateError::TooBig) => return Err(SocketError::TooBig),
            Err(InflateError::Corrupt) => {
                return Err(SocketError::Protocol(
                    "a compressed message cannot be inflated",
                ));
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

/// Section 7.4 tells which codes may be sent.
fn closing(payload: &[u8]) -> Result<Option<Closing>, SocketError> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(SocketError::Protocol("a close frame has half a code")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(SocketError::Protocol(
            "a close frame has a code that may not be sent",
        ));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(SocketError::NotUtf8);
    }
    Ok(Some(Closing { code }))
}

#[cfg(test)]
mod tests {
    use super::super::deflate::deflate;
    use super::super::frame::next_frame;
    use super::super::frame::tests::masked;
    use super::*;

    fn read(compression: Compression, wire: &[Vec<u8>]) -> Result<Vec<Incoming>, SocketError> {
        let mut assembler = Assembler::new(compression);
        let mut arrived = BytesMut::from(&wire.concat()[..]);
        let mut messages = Vec::new();
        while let Some(frame) = next_frame(&mut arrived, assembler.frame_bytes_max())? {
            messages.extend(assembler.take(frame)?);
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
    fn fragments_are_one_message_and_control_frames_come_between() {
        let wire = [
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
            Incoming::Close(Some(Closing { code: 1000 })),
        ];
        assert_eq!(read(Compression::None, &wire).unwrap(), expected);
    }

    #[test]
    fn compressed_messages_are_inflated_whole_and_in_fragments() {
        let message = "a message that says the same, says the same, says the same".to_owned();
        let payload = deflated(message.as_bytes());
        let (first, second) = payload.split_at(7);
        let wire = [
            masked(0xc1, &payload),
            masked(0x41, first),
            masked(0x00, b""),
            masked(0x80, second),
            masked(0x81, b"plain"),
        ];
        assert_eq!(
            read(Compression::Deflate, &wire).unwrap(),
            [text(&message), text(&message), text("plain")]
        );
        assert!(matches!(
            read(Compression::None, &wire),
            Err(SocketError::Protocol(_))
        ));
    }

    #[test]
    fn size_is_limited_in_a_frame_over_fragments_and_after_inflation() {
        let most = vec![b'x'; MESSAGE_BYTES_MAX];
        let half = vec![b'x'; MESSAGE_BYTES_MAX / 2];
        let read = |wire: &[Vec<u8>]| read(Compression::Deflate, wire);
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
    fn fragments_are_counted() {
        let wire = |fragments: u32| {
            let mut wire = vec![masked(0x01, b"")];
            wire.extend((2..fragments).map(|_| masked(0x00, b"")));
            wire.push(masked(0x80, b"x"));
            wire
        };
        let read = |fragments| read(Compression::None, &wire(fragments));
        assert_eq!(read(FRAGMENTS_MAX), Ok(vec![text("x")]));
        assert_eq!(read(FRAGMENTS_MAX + 1), Err(SocketError::TooManyFragments));
    }

    #[test]
    fn what_is_against_the_standard_is_named() {
        for (what, wire) in [
            ("a fragment of nothing", vec![masked(0x80, b"x")]),
            (
                "one within another",
                vec![masked(0x01, b"x"), masked(0x81, b"y")],
            ),
            (
                "a later fragment that says it is compressed",
                vec![masked(0x41, b"x"), masked(0xc0, b"y")],
            ),
            (
                "noise for a compressed message",
                vec![masked(0xc1, &[0xff; 9])],
            ),
            ("half a close code", vec![masked(0x88, b"\x03")]),
            ("1005 is never sent", vec![masked(0x88, b"\x03\xed")]),
            ("999 is no code", vec![masked(0x88, b"\x03\xe7")]),
            ("5000 is no code", vec![masked(0x88, b"\x13\x88")]),
        ] {
            let read = read(Compression::Deflate, &wire);
            assert!(
                matches!(read, Err(SocketError::Protocol(_))),
                "{what}: {read:?}"
            );
        }
        for wire in [masked(0x81, b"\xff"), masked(0x88, b"\x03\xe8\xff")] {
            assert_eq!(read(Compression::None, &[wire]), Err(SocketError::NotUtf8));
        }
        assert_eq!(
            read(Compression::None, &[masked(0x88, b"")]),
            Ok(vec![Incoming::Close(None)])
        );
    }
}
