//! Room for connections: each is an open file, and systems give a process few of them unless it asks.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::StartError;
use crate::api::CALLERS_MAX;
use crate::config::Config;

/// Connections to nodes of the chain, those of probes, the runtime's own, logs, keys.
const OTHER_FILES: u64 = 320;

/// Raises the limit of open files to what the configured connections need, or as far as it goes: who may open fewer serves
/// fewer listeners, and says so.
pub(super) fn make_room(config: &Config) -> Result<(), StartError> {
    let streams = if config.service.role.serves_api() {
        config.websocket.max_connections
    } else {
        0
    };
    let least = u64::from(streams) + u64::from(config.database.max_connections) + OTHER_FILES;
    let cannot = |errno| StartError::Other(format!("open files cannot be had: {errno}"));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(cannot)?;
    if hard < least {
        tracing::warn!(
            "WEBSOCKET_MAX_CONNECTIONS={streams} needs {least} open files, and this process may have {hard}: raise the hard \
             limit (LimitNOFILE= of systemd, --ulimit nofile= of containers, `ulimit -Hn`), or set a lower number"
        );
    }
    match raised(least, soft, hard) {
        Some(limit) => setrlimit(Resource::RLIMIT_NOFILE, limit, hard).map_err(cannot),
        None => Ok(()),
    }
}

/// The soft limit to be set; `None`: it may stay. Callers of the API, who come and go, get along with less than they might
/// have.
fn raised(least: u64, soft: u64, hard: u64) -> Option<u64> {
    let wanted = (least + CALLERS_MAX as u64).min(hard);
    (soft < wanted).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_needed_and_allowed() {
        let (least, all) = (10_300, 10_300 + CALLERS_MAX as u64);
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
