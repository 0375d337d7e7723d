//! Thousands of WebSocket clients in one process: each reads frames, answers pings, and records when it received which event.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use flate2::{Decompress, FlushDecompress};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Marks an event of the benchmark; the event's number follows.
pub const MARK: &str = "bench-";
/// Concurrent handshakes where speed is not measured: below the length of a server's accept queue.
pub const HANDSHAKES_AT_ONCE: usize = 256;
/// Source addresses of the connections, so that ports do not run out.
const SOURCES: usize = 16;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(120);
/// Pause after a failed handshake.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Receive buffer of a slow reader: small, so that the server has to wait.
const SLOW_WINDOW_BYTES: u32 = 64 * 1024;
/// How long a slow reader reads after a pause: it notices then that it was closed, and reconnects.
const READING_TIME: Duration = Duration::from_secs(10);

/// The settings with which one client connects and reads.
#[derive(Clone, Debug)]
pub struct ClientPlan {
    pub address: SocketAddr,
    pub path: String,
    pub token: Option<String>,
    pub deflate: bool,
    /// The first message that the client sends, if any.
    pub first_message: Option<String>,
    /// Whether the server sends a hello first; the connection counts as open after it.
    pub expects_hello: bool,
    /// A slow reader stops reading for this long, repeatedly.
    pub reading_pause: Option<Duration>,
}

/// The measurements of all clients together.
#[derive(Debug)]
pub struct Measurements {
    start: Instant,
    /// By event number: nanoseconds from `start` until it was sent; 0 before.
    sent_at: Vec<AtomicU64>,
    /// Microseconds from sending to delivery, in shards.
    latencies: Vec<Mutex<Vec<u32>>>,
    pub delivered: AtomicUsize,
    pub open: AtomicUsize,
    /// Connections that ended before the client closed them.
    pub lost: AtomicUsize,
    /// Connections that negotiated compression.
    pub deflating: AtomicUsize,
    /// Handshakes that failed and were retried.
    pub refused: AtomicUsize,
}

impl Measurements {
    pub fn new(events_max: usize) -> Arc<Measurements> {
        Arc::new(Measurements {
            start: Instant::now(),
            sent_at: (0..events_max).map(|_| AtomicU64::new(0)).collect(),
            latencies: (0..64).map(|_| Mutex::default()).collect(),
            delivered: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            deflating: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        })
    }

    fn now(&self) -> u64 {
        // Holds 584 years.
        self.start.elapsed().as_nanos() as u64
    }

    /// Must be called right before the call that makes the event durable.
    pub fn record_sent(&self, number: usize) {
        if let Some(sent_at) = self.sent_at.get(number) {
            sent_at.store(self.now(), Ordering::Relaxed);
        }
    }

    fn record_delivery(&self, number: usize, client: usize) {
        let Some(sent_at) = self.sent_at.get(number) else {
            return;
        };
        let sent_at = sent_at.load(Ordering::Relaxed);
        let micros = self.now().saturating_sub(sent_at) / 1_000;
        let shard = &self.latencies[client % self.latencies.len()];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.push(u32::try_from(micros).unwrap_or(u32::MAX));
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes all latencies so far, sorted, in microseconds.
    pub fn take_latencies(&self) -> Vec<u32> {
        let mut all: Vec<u32> = Vec::new();
        for shard in &self.latencies {
            all.append(&mut shard.lock().unwrap_or_else(PoisonError::into_inner));
        }
        all.sort_unstable();
        all
    }
}

/// Open connections. Dropping them ends all at once, as when a network breaks.
pub struct Connections {
    _clients: JoinSet<()>,
}

impl Connections {
    /// Opens connections, so many handshakes at once, and waits until all are open. Returns the seconds that it took.
    pub async fn open(
        plans: impl IntoIterator<Item = ClientPlan>,
        handshakes_at_once: usize,
        measurements: &Arc<Measurements>,
    ) -> Result<(Connections, f64)> {
        let started = Instant::now();
        // A separate count: connections of an earlier measurement may still be closing.
        let opened = Arc::new(AtomicUsize::new(0));
        let handshakes = Arc::new(Semaphore::new(handshakes_at_once));
        let mut clients = JoinSet::new();
        for (index, plan) in plans.into_iter().enumerate() {
            let (measurements, handshakes) = (Arc::clone(measurements), Arc::clone(&handshakes));
            let opened = Arc::clone(&opened);
            clients.spawn(run_client(index, plan, measurements, handshakes, opened));
        }
        let wanted = clients.len();
        while opened.load(Ordering::SeqCst) < wanted {
            anyhow::ensure!(
                started.elapsed() < HANDSHAKE_LIMIT * 3,
                "only {} of {wanted} connections are open",
                opened.load(Ordering::SeqCst)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let seconds = started.elapsed().as_secs_f64();
        Ok((Connections { _clients: clients }, seconds))
    }
}

/// Counts one open connection until it is dropped.
struct OpenCount(Arc<Measurements>);

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Connects, reads until the connection ends, and starts again.
async fn run_client(
    index: usize,
    plan: ClientPlan,
    measurements: Arc<Measurements>,
    handshakes: Arc<Semaphore>,
    opened: Arc<AtomicUsize>,
) {
    let mut is_first = true;
    loop {
        let Ok(client) = open(index, &plan, &handshakes).await else {
            measurements.refused.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(RETRY_PAUSE).await;
            continue;
        };
        measurements.open.fetch_add(1, Ordering::SeqCst);
        if std::mem::take(&mut is_first) {
            opened.fetch_add(1, Ordering::SeqCst);
        }
        let _open = OpenCount(Arc::clone(&measurements));
        if client.deflates {
            measurements.deflating.fetch_add(1, Ordering::SeqCst);
        }
        // A connection that this process closes aborts the task, so this one was lost.
        let _ = client.read(index, &plan, &measurements).await;
        measurements.lost.fetch_add(1, Ordering::SeqCst);
    }
}

struct Client {
    stream: TcpStream,
    arrived: Vec<u8>,
    deflates: bool,
}

async fn open(index: usize, plan: &ClientPlan, handshakes: &Semaphore) -> Result<Client> {
    let _turn = handshakes.acquire().await?;
    tokio::time::timeout(HANDSHAKE_LIMIT, handshake(index, plan)).await?
}

async fn handshake(index: usize, plan: &ClientPlan) -> Result<Client> {
    let socket = TcpSocket::new_v4()?;
    if plan.reading_pause.is_some() {
        socket.set_recv_buffer_size(SLOW_WINDOW_BYTES)?;
    }
    let source = Ipv4Addr::new(127, 0, 0, 2 + (index % SOURCES) as u8);
    socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
    let mut stream = socket.connect(plan.address).await?;
    stream.set_nodelay(true)?;
    let mut request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        plan.path, plan.address
    );
    if let Some(token) = &plan.token {
        request.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    if plan.deflate {
        request.push_str(
            "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n",
        );
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut arrived = Vec::new();
    let end = loop {
        read_more(&mut stream, &mut arrived).await?;
        if let Some(end) = arrived.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&arrived[..end]).to_ascii_lowercase();
    if !head.starts_with("http/1.1 101") {
        bail!("handshake rejected: {head}");
    }
    let deflates = head.contains("permessage-deflate");
    arrived.drain(..end);
    let mut client = Client {
        stream,
        arrived,
        deflates,
    };
    if plan.expects_hello {
        client.next_frame().await?;
    }
    if let Some(text) = &plan.first_message {
        client.send(0x81, text.as_bytes()).await?;
    }
    Ok(client)
}

async fn read_more(stream: &mut TcpStream, arrived: &mut Vec<u8>) -> Result<()> {
    let mut chunk = [0; 4096];
    let read = stream.read(&mut chunk).await?;
    anyhow::ensure!(read > 0, "the connection ended");
    arrived.extend_from_slice(&chunk[..read]);
    Ok(())
}

/// The first byte of a frame, and its payload.
type Frame = (u8, Vec<u8>);

impl Client {
    async fn read(
        mut self,
        index: usize,
        plan: &ClientPlan,
        measurements: &Measurements,
    ) -> Result<()> {
        let mut reads_until = Instant::now();
        if let Some(pause) = plan.reading_pause {
            // Slow readers pause at different times.
            tokio::time::sleep(pause.mul_f64(rand::random())).await;
        }
        loop {
            if let Some(pause) = plan.reading_pause
                && reads_until <= Instant::now()
            {
                tokio::time::sleep(pause).await;
                reads_until = Instant::now() + READING_TIME;
            }
            let (first, payload) = self.next_frame().await?;
            match first & 0x0f {
                // The latency of slow readers is not measured, and parsing would take time from the others.
                0x1 | 0x2 if plan.reading_pause.is_some() => {}
                0x1 | 0x2 => {
                    let is_deflated = first & 0x40 != 0;
                    let text = if is_deflated {
                        inflate(&payload)?
                    } else {
                        payload
                    };
                    for number in numbers(&text) {
                        measurements.record_delivery(number, index);
                    }
                }
                0x8 => return Ok(()),
                0x9 => self.send(0x8a, &payload).await?,
                _ => {}
            }
        }
    }

    async fn next_frame(&mut self) -> Result<Frame> {
        loop {
            if let Some((first, from, to)) = frame_at_start(&self.arrived) {
                let payload = self.arrived[from..to].to_vec();
                self.arrived.drain(..to);
                if self.arrived.is_empty() {
                    self.arrived = Vec::new();
                }
                return Ok((first, payload));
            }
            read_more(&mut self.stream, &mut self.arrived).await?;
        }
    }

    /// Masked with zeros: clients must mask, and zeros leave the payload unchanged.
    async fn send(&mut self, first: u8, payload: &[u8]) -> Result<()> {
        let length = u8::try_from(payload.len())
            .ok()
            .filter(|length| *length < 126);
        let mut frame = vec![
            first,
            0x80 | length.context("the message is too long")?,
            0,
            0,
            0,
            0,
        ];
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await?;
        Ok(())
    }
}

/// First byte, and start and end of the payload, once all of it has arrived.
fn frame_at_start(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let length = usize::from(*bytes.get(1)? & 0x7f);
    let (from, length) = match length {
        126 => (
            4,
            usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
        ),
        127 => (
            10,
            usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?,
        ),
        short => (2, short),
    };
    (bytes.len() >= from + length).then_some((bytes[0], from, from + length))
}

/// Inflates one message, without context from earlier ones.
fn inflate(payload: &[u8]) -> Result<Vec<u8>> {
    let mut whole = payload.to_vec();
    whole.extend_from_slice(&[0, 0, 0xff, 0xff]);
    let mut text = Vec::with_capacity(4 * whole.len() + 1024);
    let mut inflater = Decompress::new(false);
    loop {
        let consumed = inflater.total_in() as usize;
        inflater.decompress_vec(&whole[consumed..], &mut text, FlushDecompress::Sync)?;
        if inflater.total_in() as usize == whole.len() {
            return Ok(text);
        }
        text.reserve(text.capacity());
    }
}

/// The numbers of the events in a frame.
fn numbers(text: &[u8]) -> impl Iterator<Item = usize> {
    let mark = MARK.as_bytes();
    text.windows(mark.len())
        .enumerate()
        .filter(move |(_, found)| *found == mark)
        .filter_map(move |(at, _)| {
            let digits = &text[at + mark.len()..];
            let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
            std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
        })
}
