//! Parses frames from received bytes and encodes frames to send (RFC 6455, section 5).

use std::io::Cursor;

use axum::body::Bytes;
use bytes::{Buf, BytesMut};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::error::{ProtocolViolation, SocketError};
use super::extension::Compression;

/// Longest payload of a control frame (section 5.5).
pub(super) const CONTROL_BYTES_MAX: usize = 125;

/// A client's frame, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub opcode: OpCode,
    pub is_final: bool,
    /// RSV1: the message that starts with this frame is compressed.
    pub is_compressed: bool,
    pub payload: Bytes,
}

/// Takes the next complete frame from `arrived`; `None` if more bytes are needed. A frame is rejected by its header, before its
/// payload has arrived.
pub(super) fn next_frame(
    arrived: &mut BytesMut,
    payload_bytes_max: usize,
) -> Result<Option<Frame>, SocketError> {
    let mut cursor = Cursor::new(&arrived[..]);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| ProtocolViolation::UndefinedOpcode)?;
    let Some((header, payload_bytes)) = parsed else {
        return Ok(None);
    };
    // A position in `arrived`.
    let header_bytes = usize::try_from(cursor.position()).unwrap_or(arrived.len());
    let payload_bytes = validate(&header, payload_bytes, payload_bytes_max)?;
    let Some(mask) = header.mask else {
        return Err(ProtocolViolation::Unmasked.into());
    };
    if arrived.len() < header_bytes + payload_bytes {
        return Ok(None);
    }
    arrived.advance(header_bytes);
    let mut payload = arrived.split_to(payload_bytes);
    for (byte, key) in payload.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
    Ok(Some(Frame {
        opcode: header.opcode,
        is_final: header.is_final,
        is_compressed: header.rsv1,
        payload: payload.freeze(),
    }))
}

fn validate(
    header: &FrameHeader,
    payload_bytes: u64,
    bytes_max: usize,
) -> Result<usize, SocketError> {
    if header.rsv2 || header.rsv3 {
        return Err(ProtocolViolation::ReservedBits.into());
    }
    let payload_bytes = usize::try_from(payload_bytes).map_err(|_| SocketError::TooBig)?;
    match header.opcode {
        OpCode::Data(_) if payload_bytes > bytes_max => Err(SocketError::TooBig),
        OpCode::Data(_) => Ok(payload_bytes),
        OpCode::Control(_) if !header.is_final => Err(ProtocolViolation::FragmentedControl.into()),
        OpCode::Control(_) if payload_bytes > CONTROL_BYTES_MAX => {
            Err(ProtocolViolation::LongControl.into())
        }
        OpCode::Control(_) if header.rsv1 => Err(ProtocolViolation::CompressedControl.into()),
        OpCode::Control(_) => Ok(payload_bytes),
    }
}

/// The header of a server's frame: final and unmasked.
pub(super) fn header_of(opcode: OpCode, compression: Compression, payload_bytes: usize) -> Vec<u8> {
    let header = FrameHeader {
        rsv1: compression == Compression::Deflate,
        opcode,
        ..FrameHeader::default()
    };
    let length = payload_bytes as u64; // usize has at most 64 bits
    let mut bytes = Vec::with_capacity(header.len(length) + payload_bytes);
    if header.format(length, &mut bytes).is_err() {
        unreachable!("writing to memory cannot fail");
    }
    bytes
}

/// A server's frame, encoded.
pub(super) fn framed(opcode: OpCode, payload: &[u8]) -> Bytes {
    let mut bytes = header_of(opcode, Compression::None, payload.len());
    bytes.extend_from_slice(payload);
    bytes.into()
}

pub(super) const TEXT: OpCode = OpCode::Data(Data::Text);
pub(super) const PING: OpCode = OpCode::Control(Control::Ping);
pub(super) const PONG: OpCode = OpCode::Control(Control::Pong);
pub(super) const CLOSE: OpCode = OpCode::Control(Control::Close);

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Encodes a client's frame with this first byte, and masks the payload.
    pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            short @ 0..126 => bytes.push(0x80 | short as u8),
            medium @ 126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend((medium as u16).to_be_bytes());
            }
            long => {
                bytes.push(0x80 | 127);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        bytes
    }

    fn frame(bytes: &[u8]) -> Result<Option<Frame>, SocketError> {
        next_frame(&mut BytesMut::from(bytes), 1_000)
    }

    #[test]
    fn frames_are_parsed_however_they_are_split() {
        let mut bytes = masked(0x81, b"Hello");
        bytes.extend(masked(0x89, b""));
        bytes.extend(masked(0x02, &[7; 300]));
        let mut arrived = BytesMut::new();
        let mut frames = Vec::new();
        for byte in bytes {
            arrived.extend_from_slice(&[byte]);
            frames.extend(next_frame(&mut arrived, 1_000).unwrap());
        }
        assert!(arrived.is_empty());
        let expected = [
            (TEXT, true, &b"Hello"[..]),
            (PING, true, b""),
            (OpCode::Data(Data::Binary), false, &[7; 300]),
        ];
        assert_eq!(frames.len(), 3);
        for (frame, (opcode, is_final, payload)) in frames.into_iter().zip(expected) {
            let expected = Frame {
                opcode,
                is_final,
                is_compressed: false,
                payload: Bytes::copy_from_slice(payload),
            };
            assert_eq!(frame, expected);
        }
    }

    #[test]
    fn a_frame_is_rejected_by_its_header() {
        // Headers alone: no payload has arrived yet.
        let too_big = [0x81, 0x80 | 126, 0x03, 0xe9, 0, 0, 0, 0];
        assert_eq!(frame(&too_big), Err(SocketError::TooBig));
        let endless = [
            0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
        ];
        assert_eq!(frame(&endless), Err(SocketError::TooBig));
        for (what, bytes) in [
            ("not masked", &[0x81, 0x05][..]),
            ("opcode 3", &[0x83, 0x80, 0, 0, 0, 0]),
            ("opcode 11", &[0x8b, 0x80, 0, 0, 0, 0]),
            ("rsv2", &[0xa1, 0x80, 0, 0, 0, 0]),
            ("rsv3", &[0x91, 0x80, 0, 0, 0, 0]),
            ("a ping in fragments", &[0x09, 0x80, 0, 0, 0, 0]),
            ("a compressed pong", &[0xca, 0x80, 0, 0, 0, 0]),
            ("a long close", &[0x88, 0x80 | 126, 0, 126, 0, 0, 0, 0]),
        ] {
            assert!(
                matches!(frame(bytes), Err(SocketError::Protocol(_))),
                "{what}"
            );
        }
    }

    #[test]
    fn frames_are_encoded_as_in_the_standards_examples() {
        // RFC 6455, section 5.7.
        assert_eq!(
            framed(TEXT, b"Hello")[..],
            [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]
        );
        assert_eq!(framed(PING, b"")[..], [0x89, 0x00]);
        assert_eq!(framed(TEXT, &[b'x'; 256])[..4], [0x81, 0x7e, 0x01, 0x00]);
        assert_eq!(
            header_of(TEXT, Compression::Deflate, 65_536),
            [0xc1, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_an_error_or_incomplete(bytes: Vec<u8>) {
            let mut arrived = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = next_frame(&mut arrived, 1_000) {
                prop_assert!(frame.payload.len() <= 1_000);
            }
        }
    }
}
