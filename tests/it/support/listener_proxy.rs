//! A TCP proxy before Postgres that can make connections deaf: open on both sides, and nothing passes any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::WriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A proxy of its own for one test; dropped, it ends with all its connections.
pub struct ListenerProxy {
    /// The database's URL through the proxy.
    pub url: String,
    deafened: watch::Sender<bool>,
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
        let deafened = watch::Sender::new(false);
        let listening = Arc::new(AtomicUsize::new(0));
        let (told, counted) = (deafened.subscribe(), Arc::clone(&listening));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(&target).await.unwrap();
                let connection = Connection {
                    // What is opened after the others went deaf hears.
                    deafened: (!*told.borrow()).then(|| told.clone()),
                    listening: Arc::clone(&counted),
                };
                connections.spawn(connection.pass(client, server));
            }
        });
        ListenerProxy {
            url: url.to_string(),
            deafened,
            listening,
            task,
        }
    }

    /// Connections that have begun to LISTEN so far.
    pub fn listening(&self) -> usize {
        self.listening.load(Ordering::SeqCst)
    }

    /// From now on nothing passes over those that listen now.
    pub fn deafen_listeners(&self) {
        self.deafened.send_replace(true);
    }
}

impl Drop for ListenerProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Connection {
    /// `None`: it never goes deaf.
    deafened: Option<watch::Receiver<bool>>,
    listening: Arc<AtomicUsize>,
}

impl Connection {
    async fn pass(mut self, mut client: TcpStream, mut server: TcpStream) {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let (mut asked, mut answered) = ([0; 16 * 1024], [0; 16 * 1024]);
        let mut listens = false;
        loop {
            let passed = tokio::select! {
                read = from_client.read(&mut asked) => {
                    let asked = &asked[..read.unwrap_or(0)];
                    if !listens && asked.windows(7).any(|window| window == b"LISTEN ") {
                        listens = true;
                        self.listening.fetch_add(1, Ordering::SeqCst);
                    }
                    pass_on(asked, &mut to_server).await
                }
                read = from_server.read(&mut answered) => {
                    pass_on(&answered[..read.unwrap_or(0)], &mut to_client).await
                }
                () = went_deaf(self.deafened.as_mut()), if listens => {
                    // Open on both sides until the proxy ends.
                    return std::future::pending().await;
                }
            };
            if !passed {
                return;
            }
        }
    }
}

/// False at the end of the connection.
async fn pass_on(bytes: &[u8], to: &mut WriteHalf<'_>) -> bool {
    !bytes.is_empty() && to.write_all(bytes).await.is_ok()
}

async fn went_deaf(deafened: Option<&mut watch::Receiver<bool>>) {
    if let Some(told) = deafened
        && told.wait_for(|deaf| *deaf).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
