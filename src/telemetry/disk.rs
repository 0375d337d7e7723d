//! Monitors the free space on the disk of the data directory, which holds the local database and chain and often the logs.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::health::{Health, HealthPart};
use super::metrics::metric_value;
use super::names;
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};

const CHECK_INTERVAL: Duration = Duration::from_secs(5);
const MEGABYTE: u64 = 1_000_000;

struct DiskWatch {
    data_dir: PathBuf,
    free_min_mb: u64,
    health: Health,
    /// Under way: one on a network file system that hangs is awaited again by the next run.
    measurement: Option<JoinHandle<io::Result<u64>>>,
}

/// Reports the free space to health and metrics. A disk that is nearly full only degrades the service: readings are accepted as
/// long as the database can store them, and the database's own check reports when it cannot.
pub fn disk_watch(data_dir: PathBuf, free_min_mb: u64, health: Health) -> PeriodicTask {
    let watch = DiskWatch {
        data_dir,
        free_min_mb,
        health,
        measurement: None,
    };
    let timing = Timing::new("disk watch", CHECK_INTERVAL).with_limit(CHECK_INTERVAL);
    PeriodicTask::new(timing, watch)
}

impl Periodic for DiskWatch {
    async fn run(&mut self) -> Result<(), RunError> {
        let measurement = self.measurement.get_or_insert_with(|| {
            let folder = self.data_dir.clone();
            tokio::task::spawn_blocking(move || free_bytes(&folder))
        });
        // While a network file system hangs, the last reported state stays.
        let measured = measurement.await;
        self.measurement = None;
        match measured? {
            Ok(bytes) => {
                metrics::gauge!(names::DISK_FREE_BYTES).set(metric_value(bytes));
                report(&self.health, bytes, self.free_min_mb);
            }
            Err(error) => self.health.degraded(
                HealthPart::Disk,
                format!("the free space of GRIDTOKENX_DATA_DIR cannot be determined: {error}"),
            ),
        }
        Ok(())
    }
}

fn report(health: &Health, free: u64, free_min_mb: u64) {
    if free >= free_min_mb.saturating_mul(MEGABYTE) {
        health.ok(HealthPart::Disk);
    } else {
        health.degraded(
            HealthPart::Disk,
            format!(
                "the disk of GRIDTOKENX_DATA_DIR has {} MB left, less than DISK_FREE_MIN_MB={free_min_mb}: make room",
                free / MEGABYTE
            ),
        );
    }
}

/// Bytes free for unprivileged users on the disk on which the directory is, or would be created.
fn free_bytes(data_dir: &Path) -> io::Result<u64> {
    let folder = std::path::absolute(data_dir)?;
    let existing = folder
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"));
    let figures = nix::sys::statvfs::statvfs(existing)?;
    Ok(figures
        .blocks_available()
        .saturating_mul(figures.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Status;

    #[test]
    fn a_disk_below_its_limit_degrades_health() {
        let health = Health::default();
        report(&health, 500 * MEGABYTE, 500);
        assert_eq!(health.readiness().status, Status::Ok);
        report(&health, 500 * MEGABYTE - 1, 500);
        let readiness = health.readiness();
        assert_eq!(readiness.status, Status::Degraded);
        let reason = readiness.checks["disk"].reason.clone().unwrap();
        assert!(
            reason.contains("499 MB left") && reason.contains("DISK_FREE_MIN_MB=500"),
            "{reason}"
        );
        report(&health, 0, 0);
        assert_eq!(health.readiness().status, Status::Ok);
    }

    #[test]
    fn a_missing_directory_counts_to_the_disk_of_its_parent() {
        let here = free_bytes(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        let there = free_bytes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("not/there")).unwrap();
        assert!(here > 0 && there > 0);
    }
}
