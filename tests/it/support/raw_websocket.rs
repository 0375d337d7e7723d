//! A client of the feed's WebSocket at the level of frames: it can send what a well-behaved library would not, and exposes the
//! received frames. Its inflater is another implementation than the service's.

use std::collections::HashMap;
use std::io::Cursor;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::schema;
use super::wait::LIMIT;

pub const DEFLATE: &str = "permessage-deflate; client_max_window_bits";

/// First bytes of a client's frames.
pub const TEXT: u8 = 0x81;
pub const TEXT_COMPRESSED: u8 = 0xc1;
pub const PING: u8 = 0x89;
pub const CLOSE: u8 = 0x88;
const PONG: u8 = 0x8a;

pub struct RawWebSocket {
    stream: TcpStream,
    arrived: Vec<u8>,
    /// Headers of the handshake's response; the names are in lower case.
    pub headers: HashMap<String, String>,
    pub answers_pings: bool,
}

/// A received frame, or the end.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    /// A frame's text, and whether it was compressed.
    Text(String, bool),
    Ping,
    Pong(Vec<u8>),
    Close(u16, Value),
    /// The connection ended.
    End,
}

impl RawWebSocket {
    /// Performs the handshake; `Err` is the status and the problem document.
    pub async fn open(
        api_url: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<RawWebSocket, (u16, Value)> {
        let address = api_url.strip_prefix("http://").unwrap();
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut arrived = Vec::new();
        let end_of_head = loop {
            let end = arrived.windows(4).position(|end| end == b"\r\n\r\n");
            if let Some(end) = end {
                break end;
            }
            let read = tokio::time::timeout(LIMIT, stream.read_buf(&mut arrived)).await;
            assert_ne!(read.unwrap().unwrap(), 0, "no answer");
        };
        let rest = arrived.split_off(end_of_head + 4);
        let head = String::from_utf8(arrived).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status: u16 = lines.next().unwrap()[9..12].parse().unwrap();
        let headers: HashMap<String, String> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        if status == 101 {
            // RFC 6455, section 1.3: the answer to this very key.
            let accept = &headers["sec-websocket-accept"];
            assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            return Ok(RawWebSocket {
                stream,
                arrived: rest,
                headers,
                answers_pings: true,
            });
        }
        let length: usize = headers["content-length"].parse().unwrap();
        let mut body = rest;
        while body.len() < length {
            assert_ne!(stream.read_buf(&mut body).await.unwrap(), 0);
        }
        Err((status, serde_json::from_slice(&body).unwrap()))
    }

    /// Opens a stream with this token, offers compression, and reads hello.
    pub async fn compressed(api_url: &str, token: &str) -> RawWebSocket {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("sec-websocket-extensions", DEFLATE),
        ];
        let mut socket = RawWebSocket::open(api_url, "/ws", &headers).await.unwrap();
        let agreed = &socket.headers["sec-websocket-extensions"];
        assert!(agreed.starts_with("permessage-deflate"), "{agreed}");
        assert!(agreed.contains("server_no_context_takeover"), "{agreed}");
        assert!(agreed.contains("client_no_context_takeover"), "{agreed}");
        assert_eq!(socket.message().await["type"], "hello");
        socket
    }

    /// Sends bytes as they are. An error is ignored: the service may have closed the connection.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Sends a frame, masked.
    pub async fn send_frame(&mut self, first: u8, payload: &[u8]) {
        self.send_bytes(&masked(first, payload)).await;
    }

    pub async fn send_json(&mut self, message: Value) {
        self.send_frame(TEXT, message.to_string().as_bytes()).await;
    }

    pub async fn send_json_compressed(&mut self, message: &Value) {
        let payload = deflated(message.to_string().as_bytes());
        self.send_frame(TEXT_COMPRESSED, &payload).await;
    }

    /// The next frame, checked against the schema of the feed.
    pub async fn next(&mut self) -> Received {
        tokio::time::timeout(LIMIT, self.next_frame())
            .await
            .expect("a frame in time")
    }

    async fn next_frame(&mut self) -> Received {
        loop {
            let mut cursor = Cursor::new(&self.arrived[..]);
            let parsed = FrameHeader::parse(&mut cursor).unwrap();
            let header_bytes = cursor.position() as usize;
            if let Some((header, length)) = parsed
                && self.arrived.len() >= header_bytes + length as usize
            {
                let rest = self.arrived.split_off(header_bytes + length as usize);
                let payload = self.arrived.split_off(header_bytes);
                self.arrived = rest;
                let received = received(&header, payload);
                if received == Received::Ping && self.answers_pings {
                    self.send_frame(PONG, b"").await;
                }
                return received;
            }
            match self.stream.read_buf(&mut self.arrived).await {
                Ok(0) | Err(_) => return Received::End,
                Ok(_) => {}
            }
        }
    }

    /// The text of the next frame that is not a ping, and whether it was compressed.
    pub async fn text(&mut self) -> (String, bool) {
        loop {
            match self.next().await {
                Received::Text(text, is_compressed) => return (text, is_compressed),
                Received::Ping => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next frame as JSON.
    pub async fn message(&mut self) -> Value {
        serde_json::from_str(&self.text().await.0).unwrap()
    }

    /// The messages of the next frame, which contains one or an array of them.
    pub async fn messages(&mut self) -> Vec<Value> {
        match self.message().await {
            Value::Array(messages) => messages,
            message => vec![message],
        }
    }

    /// Code and reason of the close frame; frames before it are skipped.
    pub async fn closed(&mut self) -> (u16, Value) {
        loop {
            match self.next().await {
                Received::Close(code, reason) => return (code, reason),
                Received::End => panic!("ended without a close frame"),
                _ => {}
            }
        }
    }

    /// Shuts down the sending direction, so that the service sees a client that disconnects.
    pub async fn hang_up(mut self) {
        let _ = self.stream.shutdown().await;
    }
}

fn received(header: &FrameHeader, payload: Vec<u8>) -> Received {
    assert!(header.is_final && header.mask.is_none());
    assert!(!header.rsv2 && !header.rsv3);
    match header.opcode {
        OpCode::Data(Data::Text) => {
            let text = if header.rsv1 {
                inflated(&payload)
            } else {
                payload
            };
            let text = String::from_utf8(text).unwrap();
            schema::check_frame(&text);
            Received::Text(text, header.rsv1)
        }
        OpCode::Control(Control::Ping) => Received::Ping,
        OpCode::Control(Control::Pong) => Received::Pong(payload),
        OpCode::Control(Control::Close) => {
            let (code, reason) = payload.split_at(2);
            let reason = std::str::from_utf8(reason).unwrap();
            let reason = match reason {
                "" => json!({}),
                reason => serde_json::from_str(reason).unwrap(),
            };
            schema::check_close(&reason);
            Received::Close(u16::from_be_bytes([code[0], code[1]]), reason)
        }
        other => panic!("{other:?}"),
    }
}

/// Encodes and masks a client's frame.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask: [u8; 4] = rand::random();
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
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    bytes
}

const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The payload of a compressed message.
pub fn deflated(message: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(message.len() + 100);
    Compress::new(Compression::best(), false)
        .compress_vec(message, &mut payload, FlushCompress::Sync)
        .unwrap();
    assert!(payload.ends_with(&TAIL));
    payload.truncate(payload.len() - TAIL.len());
    payload
}

fn inflated(payload: &[u8]) -> Vec<u8> {
    let whole = [payload, &TAIL].concat();
    let mut message = Vec::with_capacity(4 * 1024 * 1024);
    let mut inflater = Decompress::new(false);
    inflater
        .decompress_vec(&whole, &mut message, FlushDecompress::Sync)
        .unwrap();
    assert_eq!(inflater.total_in() as usize, whole.len());
    message
}
