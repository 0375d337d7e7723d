//! Measures the use of resources by the processes and the database during a phase.

use std::fs;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use sqlx::PgPool;

use crate::backend::{Backend, Service};
use crate::process::{cpu_seconds, cpu_seconds_with_ended_children, resident_bytes};

/// Figures at one moment.
pub struct Usage {
    at: Instant,
    service: f64,
    postgres: f64,
    chain: f64,
    load: f64,
    wal_bytes: f64,
    commits: f64,
}

/// The use between two moments.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Used {
    pub seconds: f64,
    /// Processor seconds.
    pub service: f64,
    pub postgres: f64,
    pub chain: f64,
    /// Of this process.
    pub load: f64,
    pub wal_bytes: f64,
    pub commits: f64,
}

impl Usage {
    pub async fn now(backend: &Backend, service: &Service) -> Result<Usage> {
        let (wal_bytes, commits) = written(&service.pool).await?;
        Ok(Usage {
            at: Instant::now(),
            service: cpu_seconds(service.pid)?,
            postgres: postgres_cpu_seconds(backend.cluster.pid())?,
            chain: cpu_seconds(backend.chain.pid)?,
            load: cpu_seconds(std::process::id())?,
            wal_bytes,
            commits,
        })
    }

    pub fn until(&self, later: &Usage) -> Used {
        Used {
            seconds: later.at.duration_since(self.at).as_secs_f64(),
            service: later.service - self.service,
            postgres: later.postgres - self.postgres,
            chain: later.chain - self.chain,
            load: later.load - self.load,
            wal_bytes: later.wal_bytes - self.wal_bytes,
            commits: later.commits - self.commits,
        }
    }
}

/// Bytes of WAL and commits since the cluster was created.
async fn written(pool: &PgPool) -> Result<(f64, f64)> {
    let written: (f64, f64) = sqlx::query_as(
        "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::DOUBLE PRECISION,
                (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())::DOUBLE PRECISION",
    )
    .fetch_one(pool)
    .await?;
    Ok(written)
}

/// Of the server, its sessions, and its sessions that have ended.
fn postgres_cpu_seconds(server: u32) -> Result<f64> {
    let mut seconds = cpu_seconds_with_ended_children(server)?;
    let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children"))?;
    for child in children.split_whitespace() {
        // One that has just ended is in the server's own figure.
        seconds += cpu_seconds(child.parse()?).unwrap_or(0.0);
    }
    Ok(seconds)
}

/// Resident memory of a process, MB.
pub fn resident_mb(pid: u32) -> Result<f64> {
    Ok(resident_bytes(pid)? as f64 / 1e6)
}
