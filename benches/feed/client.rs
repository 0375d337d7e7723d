//! Thousands of WebSocket clients in one process: each reads frames, answers pings, and tells when it heard which event.

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

/// Marks an event of the benchmark; its number follows.
pub const MARK: &str = "bench-";
/// Handshakes under way at once, where nobody is in a hurry: below the queue of connections that a server has not taken yet.
pub const ONE_AFTER_ANOTHER: usize = 256;
/// Addresses that connections come from, so that ports do not run out.
const SOURCES: usize = 16;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(120);
/// Before the next try after a refusal.
const PAUSE: Duration = Duration::from_millis(100);
/// What the kernel keeps for a slow reader, so that it is the server that has to wait.
const SLOW_WINDOW_BYTES: u32 = 64 * 1024;
/// How long a slow reader reads on after a pause: it finds out then that it was given up, and comes back.
const AWAKE: Duration = Duration::from_secs(10);

/// How one connection is opened.
#[derive(Clone, Debug)]
pub struct Call {
    pub address: SocketAddr,
    pub path: String,
    pub token: Option<String>,
    pub deflate: bool,
    /// What the client says first, if anything.
    pub first_message: Option<String>,
    /// Whether the server greets before anything else; open means greeted then.
    pub is_greeted: bool,
    /// Pauses for this long, again and again, without reading.
    pub sleeps: Option<Duration>,
}

/// What all clients tell together.
#[derive(Debug)]
pub struct Scores {
    start: Instant,
    /// By event: nanoseconds from `start` until it was sent; 0 before.
    sent_at: Vec<AtomicU64>,
    /// Microseconds from sent to heard.
    latencies: Vec<Mutex<Vec<u32>>>,
    pub heard: AtomicUsize,
    pub open: AtomicUsize,
    /// Connections that ended without being asked to.
    pub lost: AtomicUsize,
    /// Connections on which compression was agreed on.
    pub deflating: AtomicUsize,
    /// Handshakes that were refused or cut off, and were tried again.
    pub refused: AtomicUsize,
}

impl Scores {
    pub fn new(events_max: usize) -> Arc<Scores> {
        Arc::new(Scores {
            start: Instant::now(),
            sent_at: (0..events_max).map(|_| AtomicU64::new(0)).collect(),
            latencies: (0..64).map(|_| Mutex::default()).collect(),
            heard: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            deflating: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        })
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// To be called right before what makes the event durable.
    pub fn sent(&self, number: usize) {
        if let Some(sent_at) = self.sent_at.get(number) {
            sent_at.store(self.now(), Ordering::Relaxed);
        }
    }

    fn heard(&self, number: usize, client: usize) {
        let Some(sent_at) = self.sent_at.get(number) else {
            return;
        };
        let sent_at = sent_at.load(Ordering::Relaxed);
        let micros = self.now().saturating_sub(sent_at) / 1_000;
        let shard = &self.latencies[client % self.latencies.len()];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.push(u32::try_from(micros).unwrap_or(u32::MAX));
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes all latencies so far, sorted, microseconds.
    pub fn take_latencies(&self) -> Vec<u32> {
        let mut all: Vec<u32> = Vec::new();
        for shard in &self.latencies {
            all.append(&mut shard.lock().unwrap_or_else(PoisonError::into_inner));
        }
        all.sort_unstable();
        all
    }
}

/// Connections that are open. Dropped, all end at once, as when a network breaks.
pub struct Crowd {
    _clients: JoinSet<()>,
}

impl Crowd {
    /// Opens them, so many at once, and waits until all are open. Gives the seconds that took.
    pub async fn gather(
        calls: impl IntoIterator<Item = Call>,
        handshakes_at_once: usize,
        scores: &Arc<Scores>,
    ) -> Result<(Crowd, f64)> {
        let started = Instant::now();
        // Its own count: those of another crowd may still be on their way out.
        let opened = Arc::new(AtomicUsize::new(0));
        let handshakes = Arc::new(Semaphore::new(handshakes_at_once));
        let mut clients = JoinSet::new();
        for (index, call) in calls.into_iter().enumerate() {
            let (scores, handshakes) = (Arc::clone(scores), Arc::clone(&handshakes));
            let opened = Arc::clone(&opened);
            clients.spawn(live(index, call, scores, handshakes, opened));
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
        Ok((Crowd { _clients: clients }, seconds))
    }
}

/// Counts while it lives.
struct Open(Arc<Scores>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn live(
    index: usize,
    call: Call,
    scores: Arc<Scores>,
    handshakes: Arc<Semaphore>,
    opened: Arc<AtomicUsize>,
) {
    let mut is_first = true;
    loop {
        let Ok(client) = open(index, &call, &handshakes).await else {
            scores.refused.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        scores.open.fetch_add(1, Ordering::SeqCst);
        if std::mem::take(&mut is_first) {
            opened.fetch_add(1, Ordering::SeqCst);
        }
        let _open = Open(Arc::clone(&scores));
        if client.deflates {
            scores.deflating.fetch_add(1, Ordering::SeqCst);
        }
        // However it ends, it was not asked to: then this task is aborted.
        let _ = client.read(index, &call, &scores).await;
        scores.lost.fetch_add(1, Ordering::SeqCst);
    }
}

struct Client {
    stream: TcpStream,
    arrived: Vec<u8>,
    deflates: bool,
}

async fn open(index: usize, call: &Call, handshakes: &Semaphore) -> Result<Client> {
    let _turn = handshakes.acquire().await?;
    tokio::time::timeout(HANDSHAKE_LIMIT, shake_hands(index, call)).await?
}

async fn shake_hands(index: usize, call: &Call) -> Result<Client> {
    let socket = TcpSocket::new_v4()?;
    if call.sleeps.is_some() {
        socket.set_recv_buffer_size(SLOW_WINDOW_BYTES)?;
    }
    let source = Ipv4Addr::new(127, 0, 0, 2 + (index % SOURCES) as u8);
    socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
    let mut stream = socket.connect(call.address).await?;
    stream.set_nodelay(true)?;
    let mut request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        call.path, call.address
    );
    if let Some(token) = &call.token {
        request.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    if call.deflate {
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
        bail!("refused: {head}");
    }
    let deflates = head.contains("permessage-deflate");
    arrived.drain(..end);
    let mut client = Client {
        stream,
        arrived,
        deflates,
    };
    if call.is_greeted {
        client.next_frame().await?;
    }
    if let Some(text) = &call.first_message {
        client.say(0x81, text.as_bytes()).await?;
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

/// The first byte of a frame, and what it carries.
type Frame = (u8, Vec<u8>);

impl Client {
    async fn read(mut self, index: usize, call: &Call, scores: &Scores) -> Result<()> {
        let mut awake_until = Instant::now();
        if let Some(pause) = call.sleeps {
            // Not all of them at the same time.
            tokio::time::sleep(pause.mul_f64(rand::random())).await;
        }
        loop {
            if let Some(pause) = call.sleeps
                && awake_until <= Instant::now()
            {
                tokio::time::sleep(pause).await;
                awake_until = Instant::now() + AWAKE;
            }
            let (first, payload) = self.next_frame().await?;
            match first & 0x0f {
                // Nobody asks when a slow one heard something, and looking would take time from the others.
                0x1 | 0x2 if call.sleeps.is_some() => {}
                0x1 | 0x2 => {
                    let is_deflated = first & 0x40 != 0;
                    let text = if is_deflated {
                        inflate(&payload)?
                    } else {
                        payload
                    };
                    for number in numbers(&text) {
                        scores.heard(number, index);
                    }
                }
                0x8 => return Ok(()),
                0x9 => self.say(0x8a, &payload).await?,
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

    /// Masked by zeros: clients must mask, and this changes nothing.
    async fn say(&mut self, first: u8, payload: &[u8]) -> Result<()> {
        let length = u8::try_from(payload.len())
            .ok()
            .filter(|length| *length < 126);
        let mut frame = vec![first, 0x80 | length.context("a long message")?, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await?;
        Ok(())
    }
}

/// First byte, start and end of the payload, once all of it is there.
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

/// One message without context.
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
