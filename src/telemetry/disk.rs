//! Whether the disk of the data directory fills: the local database and chain are on it, and often the logs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::health::Health;
use super::names;

const HEALTH_PART: &str = "disk";
const LOOK_EVERY: Duration = Duration::from_secs(5);
const MEGABYTE: u64 = 1_000_000;

/// Tells health and metrics how much is free, until told to stop. A disk that nearly fills degrades: while readings are
/// stored they are accepted, and once they are not the database says so.
pub async fn watch_disk(
    data_dir: PathBuf,
    free_min_mb: u64,
    health: Health,
    stop: CancellationToken,
) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let folder = data_dir.clone();
        // A network file system may hang; then the last word stays.
        let looking = tokio::task::spawn_blocking(move || free_bytes(&folder));
        let Some(Ok(found)) = stop.run_until_cancelled(looking).await else {
            continue;
        };
        match found {
            Ok(bytes) => {
                metrics::gauge!(names::DISK_FREE_BYTES).set(bytes as f64);
                judge(&health, bytes, free_min_mb);
            }
            Err(error) => health.degraded(
                HEALTH_PART,
                format!("the disk of GRIDTOKENX_DATA_DIR cannot be looked at: {error}"),
            ),
        }
    }
}

fn judge(health: &Health, free: u64, free_min_mb: u64) {
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

/// What is left for unprivileged users where the directory is, or would be.
fn free_bytes(data_dir: &Path) -> std::io::Result<u64> {
    let folder = std::path::absolute(data_dir)?;
    let there = folder
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"));
    let figures = nix::sys::statvfs::statvfs(there)?;
    Ok(figures
        .blocks_available()
        .saturating_mul(figures.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Status;

    #[test]
    fn a_disk_is_judged_by_what_is_left_on_it() {
        let health = Health::default();
        judge(&health, 500 * MEGABYTE, 500);
        assert_eq!(health.readiness().status, Status::Ok);
        judge(&health, 500 * MEGABYTE - 1, 500);
        let readiness = health.readiness();
        assert_eq!(readiness.status, Status::Degraded);
        let reason = readiness.checks["disk"].reason.clone().unwrap();
        assert!(
            reason.contains("499 MB left") && reason.contains("DISK_FREE_MIN_MB=500"),
            "{reason}"
        );
        judge(&health, 0, 0);
        assert_eq!(health.readiness().status, Status::Ok);
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_on_the_disk_of_its_parent() {
        let here = free_bytes(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        let there = free_bytes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("not/there")).unwrap();
        assert!(here > 0 && there > 0);
    }
}
