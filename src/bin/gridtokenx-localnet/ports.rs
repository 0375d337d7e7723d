//! The two ports of the chain: JSON-RPC, and pubsub on the next one.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use rand::Rng;

use crate::error::LocalnetError;

/// Below Linux' range of ephemeral ports (32768 and up): no outgoing connection can take such a port while the chain restarts on
/// it.
const CHOSEN_PORTS: std::ops::Range<u16> = 10_000..32_000;

/// On a busy machine many ports are in use; more failed attempts than this have another cause.
const TRIES_MAX: usize = 200;

/// The addresses on which the chain listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub rpc: SocketAddr,
    pub pubsub: SocketAddr,
}

impl Addresses {
    /// Checks that both ports are free; port 0 chooses two free neighbours.
    pub fn claim(wanted: SocketAddr) -> Result<Self, LocalnetError> {
        if wanted.port() == 0 {
            return Self::choose(wanted.ip());
        }
        let port = wanted.port();
        let next = port.checked_add(1).ok_or(LocalnetError::NoPortForPubsub)?;
        let addresses = Self {
            rpc: wanted,
            pubsub: SocketAddr::new(wanted.ip(), next),
        };
        for (purpose, addr) in [("RPC", addresses.rpc), ("pubsub", addresses.pubsub)] {
            TcpListener::bind(addr).map_err(|source| refused(purpose, addr, source))?;
        }
        Ok(addresses)
    }

    fn choose(ip: IpAddr) -> Result<Self, LocalnetError> {
        for _ in 0..TRIES_MAX {
            let port = rand::rng().random_range(CHOSEN_PORTS);
            let rpc = SocketAddr::new(ip, port);
            let pubsub = SocketAddr::new(ip, port + 1);
            match (TcpListener::bind(rpc), TcpListener::bind(pubsub)) {
                (Ok(_), Ok(_)) => return Ok(Self { rpc, pubsub }),
                (Err(error), _) if error.kind() != io::ErrorKind::AddrInUse => {
                    return Err(refused("RPC", rpc, error));
                }
                _ => {}
            }
        }
        Err(LocalnetError::NoFreePorts(ip))
    }

    /// The host as surfpool expects it: a text to which it appends `:port`.
    pub fn host(&self) -> String {
        match self.rpc.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        }
    }

    pub fn rpc_url(&self) -> String {
        format!("http://{}", reachable(self.rpc))
    }

    pub fn pubsub_url(&self) -> String {
        format!("ws://{}", reachable(self.pubsub))
    }
}

fn refused(purpose: &'static str, addr: SocketAddr, source: io::Error) -> LocalnetError {
    match source.kind() {
        io::ErrorKind::AddrInUse => LocalnetError::AddressInUse { purpose, addr },
        _ => LocalnetError::AddressUnusable {
            purpose,
            addr,
            source,
        },
    }
}

/// A client cannot connect to the unspecified address (0.0.0.0): this replaces it by the loopback address.
fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), addr.port())
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), addr.port())
        }
        _ => addr,
    }
}
