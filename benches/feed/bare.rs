//! The bare server: the service's own WebSockets behind the same HTTP library, and nothing else. No database, no tokens, no cursor,
//! no limits, no pings. The service cannot take less than this.

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

/// Connections that have not been accepted.
const BACKLOG: u32 = 4_096;
/// Texts that wait for one listener; past it they are dropped.
const WAITING_MAX: usize = 100;

/// Serves until its input ends: a line is a name, a tab and the text for all who listen at that name.
pub async fn serve() -> Result<()> {
    let hall = Hall::default();
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    let listener = socket.listen(BACKLOG)?;
    println!("{}", listener.local_addr()?);
    tokio::spawn(accept(listener, hall.clone()));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some((name, text)) = line.split_once('\t') {
            hall.tell(name, text);
        }
    }
    Ok(())
}

async fn accept(listener: TcpListener, hall: Hall) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_connection(stream, hall.clone()));
    }
}

async fn serve_connection(stream: TcpStream, hall: Hall) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let answer = open(request, &hall);
        async move { Ok::<_, Infallible>(answer) }
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

/// Whoever offers compression gets it.
fn open(request: Request<hyper::body::Incoming>, hall: &Hall) -> Response<Body> {
    let (mut parts, _) = request.into_parts();
    let name = parts.uri.path().trim_start_matches('/').to_owned();
    match Upgrade::from_request(&mut parts) {
        Ok(upgrade) => {
            let (answer, pending) = upgrade.accept(Compression::Deflate, None);
            tokio::spawn(listen(pending, name, hall.clone()));
            answer
        }
        Err(_) => {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::UPGRADE_REQUIRED;
            answer
        }
    }
}

async fn listen(pending: PendingSocket, name: String, hall: Hall) {
    if let Ok(socket) = pending.open().await {
        let (place, texts) = hall.join(&name);
        pass_on(socket, texts).await;
        hall.leave(&name, place);
    }
}

/// Until the client is gone.
async fn pass_on(socket: Socket, mut texts: mpsc::Receiver<Text>) {
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
            said = reader.next() => match said {
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

/// Who listens where. A clone is the same hall.
#[derive(Clone, Default)]
struct Hall(Arc<Mutex<Places>>);

#[derive(Default)]
struct Places {
    by_name: HashMap<String, HashMap<u64, mpsc::Sender<Text>>>,
    taken: u64,
}

impl Hall {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, name: &str) -> (u64, mpsc::Receiver<Text>) {
        let (sender, texts) = mpsc::channel(WAITING_MAX);
        let mut places = self.places();
        places.taken += 1;
        let place = places.taken;
        let group = places.by_name.entry(name.to_owned()).or_default();
        group.insert(place, sender);
        (place, texts)
    }

    fn leave(&self, name: &str, place: u64) {
        let mut places = self.places();
        if let Some(group) = places.by_name.get_mut(name) {
            group.remove(&place);
            if group.is_empty() {
                places.by_name.remove(name);
            }
        }
    }

    /// Nobody is waited for.
    fn tell(&self, name: &str, text: &str) {
        if let Some(group) = self.places().by_name.get(name) {
            let text = Text::new(text);
            for listener in group.values() {
                let _ = listener.try_send(text.clone());
            }
        }
    }
}
