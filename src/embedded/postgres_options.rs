//! The options of a private cluster: how it is stored and run.

use std::path::PathBuf;

use rand::Rng;

/// The role that owns everything in a private cluster.
pub(super) const SUPERUSER: &str = "gridtokenx";

/// The options of one cluster.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Its directory, created where it does not exist. The same directory is the same cluster.
    pub data_dir: PathBuf,
    /// Whether a commit survives a power cut. It survives a kill either way.
    pub fsync: bool,
    pub max_connections: u32,
    /// `None`: the port that it used last, else any free one.
    pub port: Option<u16>,
    pub lifetime: Lifetime,
}

/// The lifetime of a cluster and of its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It runs until it is stopped, even beyond this process, and its data remains.
    UntilStopped,
    /// It ends with this process, however that ends, and its data is removed.
    ThisProcess,
}

impl PostgresOptions {
    /// Every commit survives a power cut.
    pub fn durable(data_dir: impl Into<PathBuf>) -> PostgresOptions {
        PostgresOptions {
            data_dir: data_dir.into(),
            fsync: true,
            max_connections: 100,
            port: None,
            lifetime: Lifetime::UntilStopped,
        }
    }

    /// As fast as possible, in a temporary directory, removed with this process.
    pub fn ephemeral() -> PostgresOptions {
        let name = format!(
            "gridtokenx-{}-{:08x}",
            std::process::id(),
            rand::rng().random::<u32>()
        );
        PostgresOptions {
            data_dir: std::env::temp_dir().join(name),
            fsync: false,
            max_connections: 300,
            port: None,
            lifetime: Lifetime::ThisProcess,
        }
    }
}
