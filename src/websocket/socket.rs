//! The connection: a half to read, a half to write. Neither keeps a buffer while the connection is idle.

use std::io;
use std::time::Duration;

use axum::body::Bytes;
use bytes::{Buf, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout_at};

use super::error::SocketError;
use super::extension::Compression;
use super::frame::{CLOSE, CONTROL_BYTES_MAX, PING, PONG, framed, next_frame};
use super::message::{Assembler, CloseCode, Incoming};

/// Bytes in one read.
const CHUNK_BYTES: usize = 8 * 1024;
/// A message that has started must be complete within this time, since it occupies memory until then.
const MESSAGE_LIMIT: Duration = Duration::from_secs(20);

/// An open WebSocket.
#[derive(Debug)]
pub struct Socket {
    pub reader: Reader,
    pub writer: Writer,
}

impl Socket {
    /// `arrived` are bytes that were read together with the handshake.
    pub(super) fn new(stream: TcpStream, arrived: Bytes, compression: Compression) -> Socket {
        let (read_half, write_half) = stream.into_split();
        Socket {
            reader: Reader {
                stream: read_half,
                arrived: BytesMut::from(&arrived[..]),
                assembler: Assembler::new(compression),
                started_at: None,
            },
            writer: Writer {
                stream: write_half,
                pending: Bytes::new(),
                compression,
            },
        }
    }
}

/// Receives a client's messages.
#[derive(Debug)]
pub struct Reader {
    stream: OwnedReadHalf,
    arrived: BytesMut,
    assembler: Assembler,
    /// When the incomplete message started to arrive.
    started_at: Option<Instant>,
}

impl Reader {
    /// Waits for the next message. A call that is cancelled loses nothing.
    pub async fn next(&mut self) -> Result<Incoming, SocketError> {
        self.next_within(MESSAGE_LIMIT).await
    }

    /// The limit applies from a message's first byte; the wait for that byte is unlimited.
    async fn next_within(&mut self, limit: Duration) -> Result<Incoming, SocketError> {
        loop {
            while let Some(frame) = next_frame(&mut self.arrived, self.assembler.frame_bytes_max())?
            {
                let message = self.assembler.push(frame)?;
                // A control frame between fragments does not extend their time.
                if !self.assembler.is_mid_message() {
                    self.started_at = None;
                }
                if let Some(message) = message {
                    return Ok(message);
                }
            }
            if self.arrived.is_empty() {
                // Frees the memory that it grew to.
                self.arrived = BytesMut::new();
            }
            self.read_more(limit).await?;
        }
    }

    /// Reads and discards everything until the client ends the connection.
    pub async fn drain(&mut self) {
        while self.read_some().await.is_ok() {
            self.arrived.clear();
        }
    }

    async fn read_more(&mut self, limit: Duration) -> Result<(), SocketError> {
        if self.arrived.is_empty() && !self.assembler.is_mid_message() {
            return self.read_some().await;
        }
        let started_at = *self.started_at.get_or_insert_with(Instant::now);
        match timeout_at(started_at + limit, self.read_some()).await {
            Ok(read) => read,
            Err(_) => Err(SocketError::Unfinished),
        }
    }

    async fn read_some(&mut self) -> Result<(), SocketError> {
        loop {
            self.stream
                .readable()
                .await
                .map_err(|_| SocketError::Gone)?;
            match read_available(&self.stream, &mut self.arrived) {
                Ok(0) => return Err(SocketError::Gone),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(SocketError::Gone),
            }
        }
    }
}

/// Not async, so that the chunk is on the stack and not part of the connection's task.
fn read_available(stream: &OwnedReadHalf, arrived: &mut BytesMut) -> io::Result<usize> {
    let mut chunk = [0; CHUNK_BYTES];
    let read = stream.try_read(&mut chunk)?;
    arrived.extend_from_slice(chunk.get(..read).unwrap_or_default());
    Ok(read)
}

/// Sends messages to a client.
#[derive(Debug)]
pub struct Writer {
    stream: OwnedWriteHalf,
    /// The part of the last frame that has not been written.
    pending: Bytes,
    compression: Compression,
}

impl Writer {
    /// How frames for this connection are encoded.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Sends a complete frame. A call that is cancelled may have sent part of it; the next call sends the rest first.
    pub async fn send(&mut self, frame: Bytes) -> io::Result<()> {
        self.flush().await?;
        self.pending = frame;
        self.flush().await
    }

    pub async fn ping(&mut self) -> io::Result<()> {
        self.send(framed(PING, b"")).await
    }

    /// Answers a ping.
    pub async fn pong(&mut self, payload: &[u8]) -> io::Result<()> {
        self.send(framed(PONG, payload)).await
    }

    /// Sends the close frame. The reason is truncated to what fits.
    pub async fn close(&mut self, code: CloseCode, reason: &str) -> io::Result<()> {
        let mut payload = code.0.to_be_bytes().to_vec();
        let fits = reason.floor_char_boundary(CONTROL_BYTES_MAX - payload.len());
        payload.extend(reason.bytes().take(fits));
        self.send(framed(CLOSE, &payload)).await
    }

    /// Flushes and shuts down the sending direction.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.stream.shutdown().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(&self.pending) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.pending.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        // The frame may be shared with thousands of connections: release it.
        self.pending = Bytes::new();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::{sleep, timeout};

    use super::super::frame::tests::masked;
    use super::*;

    /// The limit of a message in these tests.
    const LIMIT: Duration = Duration::from_millis(50);
    /// Far above what any step takes, so that only a defect reaches it.
    const TEST_LIMIT: Duration = Duration::from_secs(30);

    /// The client's end and the server's.
    async fn connected() -> (TcpStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let socket = Socket::new(accepted.unwrap().0, Bytes::new(), Compression::None);
        (client.unwrap(), socket)
    }

    #[tokio::test]
    async fn a_message_that_starts_and_stalls_is_an_error() {
        let frame = masked(0x81, b"Hello");
        let fragment = masked(0x01, b"Hel");
        let and_half = [&fragment[..], &masked(0x80, b"lo")[..7]].concat();
        for (what, bytes) in [
            ("a byte", &frame[..1]),
            ("half a header", &frame[..4]),
            ("a header", &frame[..6]),
            ("half a payload", &frame[..9]),
            ("half a ping", &masked(0x89, b"ping")[..7]),
            ("a fragment", &fragment[..]),
            ("a fragment and half of the next", &and_half[..]),
        ] {
            let (mut client, mut socket) = connected().await;
            client.write_all(bytes).await.unwrap();
            let started = Instant::now();
            let read = timeout(TEST_LIMIT, socket.reader.next_within(LIMIT)).await;
            assert_eq!(read, Ok(Err(SocketError::Unfinished)), "{what}");
            assert!(started.elapsed() >= LIMIT, "{what}");
        }
    }

    #[tokio::test]
    async fn pings_between_fragments_do_not_extend_their_time() {
        let (mut client, mut socket) = connected().await;
        client.write_all(&masked(0x01, b"Hel")).await.unwrap();
        let pings = tokio::spawn(async move {
            while client.write_all(&masked(0x89, b"")).await.is_ok() {
                sleep(LIMIT / 10).await;
            }
        });
        let reading = async {
            loop {
                match socket.reader.next_within(LIMIT).await {
                    Ok(Incoming::Ping(_)) => {}
                    other => return other,
                }
            }
        };
        let read = timeout(TEST_LIMIT, reading).await;
        assert_eq!(read, Ok(Err(SocketError::Unfinished)));
        pings.abort();
    }

    #[tokio::test]
    async fn a_cancelled_call_does_not_extend_the_time() {
        let (mut client, mut socket) = connected().await;
        let reader = &mut socket.reader;
        let frame = masked(0x81, b"Hello");
        client.write_all(&frame[..7]).await.unwrap();
        assert!(timeout(LIMIT, reader.next()).await.is_err());
        let started_at = reader.started_at;
        assert!(started_at.is_some());
        assert!(timeout(LIMIT, reader.next()).await.is_err());
        assert_eq!(reader.started_at, started_at);
        // The time has passed by now.
        let read = timeout(TEST_LIMIT, reader.next_within(LIMIT)).await;
        assert_eq!(read, Ok(Err(SocketError::Unfinished)));
    }

    #[tokio::test]
    async fn each_message_has_the_full_time_and_the_pause_between_them_is_unlimited() {
        let (mut client, mut socket) = connected().await;
        let reader = &mut socket.reader;
        let frame = masked(0x81, b"Hello");
        let (first, rest) = frame.split_at(7);
        client.write_all(first).await.unwrap();
        assert!(timeout(LIMIT, reader.next()).await.is_err());
        assert!(reader.started_at.is_some());
        client.write_all(rest).await.unwrap();
        assert_eq!(reader.next().await, Ok(Incoming::Text("Hello".into())));
        assert!(reader.started_at.is_none());
        let silent = timeout(4 * LIMIT, reader.next_within(LIMIT)).await;
        assert!(silent.is_err(), "{silent:?}");
    }
}
