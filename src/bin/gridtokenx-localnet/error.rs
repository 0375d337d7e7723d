//! The errors with which the chain does not start, or stops without a signal: each text is a sentence for the operator.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The chain did not start, or stopped without a signal.
#[derive(Debug, thiserror::Error)]
pub enum LocalnetError {
    #[error("--log {filter:?} is not a log filter: {reason}")]
    LogFilter { filter: String, reason: String },

    #[error(
        "{purpose} address {addr} is already in use; stop the other program or choose another --rpc-addr"
    )]
    AddressInUse {
        purpose: &'static str,
        addr: SocketAddr,
    },

    #[error("{purpose} address {addr} cannot be used: {source}")]
    AddressUnusable {
        purpose: &'static str,
        addr: SocketAddr,
        source: io::Error,
    },

    #[error("port 65535 leaves no next port for pubsub; choose a lower port in --rpc-addr")]
    NoPortForPubsub,

    #[error("no two free neighbouring ports were found on {0}; choose one in --rpc-addr")]
    NoFreePorts(std::net::IpAddr),

    #[error("data directory {dir} cannot be used: {source}")]
    DataDir { dir: PathBuf, source: io::Error },

    #[error(
        "data directory {dir} is in use by process {holder}; stop it or choose another --data-dir"
    )]
    DataDirLocked { dir: PathBuf, holder: String },

    #[error(
        "data directory {dir} holds a chain of version {found}, this program reads version {expected}; choose another --data-dir"
    )]
    OtherVersion {
        dir: PathBuf,
        found: String,
        expected: u32,
    },

    #[error("the chain in {dir} cannot be read or written: {source}")]
    Store { dir: PathBuf, source: StoreError },

    #[error("the chain does not start: {0}")]
    Start(String),

    #[error("the chain stopped unexpectedly: {0}")]
    Stopped(String),

    #[error("ready file {file} cannot be written: {source}")]
    ReadyFile { file: PathBuf, source: io::Error },

    #[error("the newest block could not be written within {0} ms")]
    ShutdownTimedOut(u128),
}

/// An error of the embedded store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Database(#[from] redb::Error),

    #[error("version {0}")]
    OtherVersion(String),

    #[error("a stored {what} cannot be decoded: {reason}")]
    Corrupt { what: &'static str, reason: String },
}

/// redb has one error type per operation; all of them are handled the same way here.
macro_rules! from_redb {
    ($($error:ident),+) => {
        $(impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                Self::Database(error.into())
            }
        })+
    };
}
from_redb!(
    CommitError,
    DatabaseError,
    SetDurabilityError,
    StorageError,
    TableError,
    TransactionError
);
