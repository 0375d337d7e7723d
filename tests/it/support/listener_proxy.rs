//! A TCP proxy in front of Postgres that can stall connections: they stay open on both sides, but nothing passes any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::WriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A proxy for one test; dropping it closes all its connections.
pub struct ListenerProxy {
    /// The database's URL through the proxy.
    pub url: String,
    stalled: watch::Sender<bool>,
    listening: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl ListenerProxy {
    pub async fn start(database_url: &str) -> ListenerProxy {
        let mut url = Url::parse(database_url).unwrap();
        let target = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(address.port())).unwrap();
        let stalled = watch::Sender::new(false);
        let listening = Arc::new(AtomicUsize::new(0));
        let (is_stalled, counted) = (stalled.subscribe(), Arc::clone(&listening));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(&target).await.unwrap();
                let connection = Connection {
                    // Connections that are opened after the stall work.
                    stalled: (!*is_stalled.borrow()).then(|| is_stalled.clone()),
                    listening: Arc::clone(&counted),
                };
                connections.spawn(connection.run(client, server));
            }
        });
        ListenerProxy {
            url: url.to_string(),
            stalled,
            listening,
            task,
        }
    }

    /// Connections that have sent LISTEN so far.
    pub fn listening(&self) -> usize {
        self.listening.load(Ordering::SeqCst)
    }

    /// Stalls the connections that listen now: nothing passes over them any more.
    pub fn stall_listeners(&self) {
        self.stalled.send_replace(true);
    }
}

impl Drop for ListenerProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Connection {
    /// `None`: this connection is never stalled.
    stalled: Option<watch::Receiver<bool>>,
    listening: Arc<AtomicUsize>,
}

impl Connection {
    async fn run(mut self, mut client: TcpStream, mut server: TcpStream) {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let (mut request, mut response) = ([0; 16 * 1024], [0; 16 * 1024]);
        let mut listens = false;
        loop {
            let is_open = tokio::select! {
                read = from_client.read(&mut request) => {
                    let request = &request[..read.unwrap_or(0)];
                    if !listens && request.windows(7).any(|window| window == b"LISTEN ") {
                        listens = true;
                        self.listening.fetch_add(1, Ordering::SeqCst);
                    }
                    forward(request, &mut to_server).await
                }
                read = from_server.read(&mut response) => {
                    forward(&response[..read.unwrap_or(0)], &mut to_client).await
                }
                () = until_stalled(self.stalled.as_mut()), if listens => {
                    // Open on both sides until the proxy ends.
                    return std::future::pending().await;
                }
            };
            if !is_open {
                return;
            }
        }
    }
}

/// False at the end of the connection.
async fn forward(bytes: &[u8], to: &mut WriteHalf<'_>) -> bool {
    !bytes.is_empty() && to.write_all(bytes).await.is_ok()
}

async fn until_stalled(stalled: Option<&mut watch::Receiver<bool>>) {
    if let Some(stalled) = stalled
        && stalled.wait_for(|stalled| *stalled).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
