//! Opens the listening socket.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use super::start_error::StartError;
use crate::config::Config;

/// Connections that may wait to be accepted where few streams are configured: API clients arrive in bursts too.
const BACKLOG_LEAST: u32 = 1_024;

/// Listens at HTTP_ADDR.
pub(super) fn listen(config: &Config) -> Result<TcpListener, StartError> {
    let backlog = config.websocket.max_connections.max(BACKLOG_LEAST);
    listen_at(config.http.addr, backlog).map_err(|source| StartError::Listen {
        address: config.http.addr,
        source,
    })
}

/// Listens with room for all clients that reconnect at once after a network failure, as far as the kernel allows it
/// (net.core.somaxconn): a client that finds no room retries after 1, 3, 7 seconds. The usual 128 are full within
/// milliseconds.
fn listen_at(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart does not wait for the remains of its predecessor's connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn clients_that_connect_in_a_burst_are_connected_before_any_is_accepted() {
        const CONNECT_LIMIT: Duration = Duration::from_secs(10);
        let listener = listen_at("127.0.0.1:0".parse().unwrap(), BACKLOG_LEAST).unwrap();
        let address = listener.local_addr().unwrap();
        let mut burst = Vec::new();
        for _ in 0..300 {
            let client = timeout(CONNECT_LIMIT, TcpStream::connect(address)).await;
            burst.push(client.expect("there is room").unwrap());
        }
    }
}
