//! Monitors the free space on the disk of the data directory, which holds the local database and chain and often the logs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::health::Health;
use super::metrics::gauge_value;
use super::names;

const HEALTH_PART: &str = "disk";
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
const MEGABYTE: u64 = 1_000_000;

/// Reports the free space to health and metrics until `stop` is cancelled. A disk that is nearly full only degrades the service:
/// readings are accepted as long as the database can store them, and the database's own check reports when it cannot.
pub async fn watch_disk(
    data_dir: PathBuf,
    free_min_mb: u64,
    health: Health,
    stop: CancellationToken,
) {
    let mut ticks = interval(CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let folder = data_dir.clone();
        // A network file system may hang; the last reported state then stays.
        let measurement = tokio::task::spawn_blocking(move || free_bytes(&folder));
        let Some(Ok(found)) = stop.run_until_cancelled(measurement).await else {
            continue;
        };
        match found {
            Ok(bytes) => {
                metrics::gauge!(names::DISK_FREE_BYTES).set(gauge_value(bytes));
                report(&health, bytes, free_min_mb);
            }
            Err(error) => health.degraded(
                HEALTH_PART,
                format!("the free space of GRIDTOKENX_DATA_DIR cannot be determined: {error}"),
            ),
        }
    }
}

fn report(health: &Health, free: u64, free_min_mb: u64) {
    if free >= free_min_mb.saturating_mul(MEGABYTE) {
        health.ok(HEALTH_PART);
    } else {
        health.degraded(
            HEALTH_PART,
            format!(
                "the disk of GRIDTOKENX_DATA_DIR has {} MB left, less than DISK_FREE_MIN_MB={free_min_mb}: make room",
                free / MEGABYTE
            ),
        );
    }
}

/// Bytes free for unprivileged users on the disk on which the directory is, or would be created.
fn free_bytes(data_dir: &Path) -> std::io::Result<u64> {
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
