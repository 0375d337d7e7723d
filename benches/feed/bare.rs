//! The bare server: the service's WebSocket layer behind the same HTTP library and nothing else. No database, no tokens, no
//! cursor, no limits, no pings: a lower bound for what the service costs.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use gridtokenx::websocket::{Compression, Incoming, PendingSocket, Socket, Text, Upgrade};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4_096;
/// Texts that wait for one client; further ones are dropped.
const BUFFER_TEXTS: usize = 100;

/// Serves until its input ends: each line is a channel name, a tab, and the text for all clients of that channel.
pub async fn serve() -> Result<()> {
    let channels = Channels::default();
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    let listener = socket.listen(BACKLOG)?;
    println!("{}", listener.local_addr()?);
    tokio::spawn(accept(listener, channels.clone()));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some((name, text)) = line.split_once('\t') {
            channels.send(name, text);
        }
    }
    Ok(())
}

async fn accept(listener: TcpListener, channels: Channels) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_connection(stream, channels.clone()));
    }
}

async fn serve_connection(stream: TcpStream, channels: Channels) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let answer = open(request, &channels);
        async move { Ok::<_, Infallible>(answer) }
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

/// Accepts compression from every client that offers it.
fn open(request: Request<hyper::body::Incoming>, channels: &Channels) -> Response<Body> {
    let (mut parts, _) = request.into_parts();
    let name = parts.uri.path().trim_start_matches('/').to_owned();
    match Upgrade::from_request(&mut parts) {
        Ok(upgrade) => {
            let (answer, pending) = upgrade.accept(Compression::Deflate, None);
            tokio::spawn(listen(pending, name, channels.clone()));
            answer
        }
        Err(_) => {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::UPGRADE_REQUIRED;
            answer
        }
    }
}

async fn listen(pending: PendingSocket, name: String, channels: Channels) {
    if let Ok(socket) = pending.open().await {
        let (id, texts) = channels.join(&name);
        forward(socket, texts).await;
        channels.leave(&name, id);
    }
}

/// Forwards texts until the client is gone.
async fn forward(socket: Socket, mut texts: mpsc::Receiver<Text>) {
    let Socket {
        mut reader,
        mut writer,
    } = socket;
    loop {
        let sent = tokio::select! {
            text = texts.recv() => match text {
                Some(text) => writer.send(text.frame(writer.compression())).await,
                None => return,
            },
            incoming = reader.next() => match incoming {
                Ok(Incoming::Ping(payload)) => writer.pong(&payload).await,
                Ok(Incoming::Close(_)) | Err(_) => return,
                Ok(_) => Ok(()),
            },
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The clients by channel. Clones share them.
#[derive(Clone, Default)]
struct Channels(Arc<Mutex<Clients>>);

#[derive(Default)]
struct Clients {
    by_name: HashMap<String, HashMap<u64, mpsc::Sender<Text>>>,
    next_id: u64,
}

impl Channels {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, name: &str) -> (u64, mpsc::Receiver<Text>) {
        let (sender, texts) = mpsc::channel(BUFFER_TEXTS);
        let mut clients = self.clients();
        clients.next_id += 1;
        let id = clients.next_id;
        let channel = clients.by_name.entry(name.to_owned()).or_default();
        channel.insert(id, sender);
        (id, texts)
    }

    fn leave(&self, name: &str, id: u64) {
        let mut clients = self.clients();
        if let Some(channel) = clients.by_name.get_mut(name) {
            channel.remove(&id);
            if channel.is_empty() {
                clients.by_name.remove(name);
            }
        }
    }

    /// Sends a text to all clients of a channel, and waits for none.
    fn send(&self, name: &str, text: &str) {
        if let Some(channel) = self.clients().by_name.get(name) {
            let text = Text::new(text);
            for client in channel.values() {
                let _ = client.try_send(text.clone());
            }
        }
    }
}
