//! Raises the limit of open files: each connection needs one, and by default systems allow a process few of them.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::start_error::StartError;
use crate::api::CALLERS_MAX;
use crate::config::Config;

/// Connections to RPC endpoints and from probes, files of the runtime, logs, keys.
const OTHER_FILES: u64 = 320;
/// Widened: lossless.
const CALLER_FILES: u64 = CALLERS_MAX as u64;

/// Refuses a hard limit that is too low for the connections that are configured.
pub(super) fn require_room(config: &Config) -> Result<(), StartError> {
    let (_, hard) = limits()?;
    let Needed { streams, least } = needed(config);
    if hard < least {
        return Err(StartError::TooFewOpenFiles {
            streams,
            least,
            hard,
        });
    }
    Ok(())
}

/// Raises the limit of open files to what the configured connections need, or as far as the hard limit allows: a trial system also
/// starts on a small machine, accepts fewer streams, and logs a warning.
pub(super) fn make_room(config: &Config) -> Result<(), StartError> {
    let (soft, hard) = limits()?;
    let Needed { streams, least } = needed(config);
    if hard < least {
        let error = StartError::TooFewOpenFiles {
            streams,
            least,
            hard,
        };
        tracing::warn!("{error}");
    }
    match raised(least, soft, hard) {
        Some(limit) => Ok(setrlimit(Resource::RLIMIT_NOFILE, limit, hard)?),
        None => Ok(()),
    }
}

fn limits() -> Result<(u64, u64), StartError> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?)
}

struct Needed {
    streams: u32,
    least: u64,
}

fn needed(config: &Config) -> Needed {
    let streams = if config.service.role.serves_api() {
        config.websocket.max_connections
    } else {
        0
    };
    let least = u64::from(streams) + u64::from(config.database.max_connections) + OTHER_FILES;
    Needed { streams, least }
}

/// The soft limit to be set; `None`: it may stay. API connections come and go, so they also work with fewer files than their
/// maximum.
fn raised(least: u64, soft: u64, hard: u64) -> Option<u64> {
    let wanted = (least + CALLER_FILES).min(hard);
    (soft < wanted).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_needed_and_allowed() {
        let (least, all) = (10_300, 10_300 + CALLER_FILES);
        for (soft, hard, limit) in [
            (1_024, 1 << 20, Some(all)),
            (1_024, u64::MAX, Some(all)),
            (1_024, 12_000, Some(12_000)),
            (1_024, 4_096, Some(4_096)),
            (4_096, 4_096, None),
            (least, least, None),
            (all, 1 << 20, None),
            (1 << 20, 1 << 20, None),
        ] {
            assert_eq!(raised(least, soft, hard), limit, "{soft} {hard}");
        }
    }
}
