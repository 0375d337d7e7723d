//! Room for connections: each is an open file, and systems give a process few of them unless it asks.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::StartError;
use crate::api::CALLERS_MAX;
use crate::config::Config;

/// Connections to nodes of the chain, the runtime's own, logs, keys.
const OTHER_FILES: u64 = 256;

/// Raises the limit of open files to what the configured connections need.
pub(super) fn make_room(config: &Config) -> Result<(), StartError> {
    let needs = Needs {
        streams: if config.service.role.serves_api() {
            config.websocket.max_connections
        } else {
            0
        },
        others: u64::from(config.database.max_connections) + OTHER_FILES,
    };
    let cannot = |errno| StartError::Other(format!("open files cannot be had: {errno}"));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(cannot)?;
    match needs.limit(soft, hard)? {
        Some(limit) => setrlimit(Resource::RLIMIT_NOFILE, limit, hard).map_err(cannot),
        None => Ok(()),
    }
}

struct Needs {
    streams: u32,
    others: u64,
}

impl Needs {
    /// The soft limit to be set; `None`: it may stay. Without the streams that were promised there is no start; callers of
    /// the API, who come and go, get along with less than they might have.
    fn limit(&self, soft: u64, hard: u64) -> Result<Option<u64>, StartError> {
        let least = u64::from(self.streams) + self.others;
        if hard < least {
            return Err(StartError::OpenFiles {
                streams: self.streams,
                least,
                hard,
            });
        }
        let wanted = (least + CALLERS_MAX as u64).min(hard);
        Ok((soft < wanted).then_some(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_needed_and_allowed() {
        let needs = Needs {
            streams: 10_000,
            others: 300,
        };
        let (least, all) = (10_300, 10_300 + CALLERS_MAX as u64);
        for (soft, hard, limit) in [
            (1_024, 1 << 20, Some(all)),
            (1_024, u64::MAX, Some(all)),
            (1_024, 12_000, Some(12_000)),
            (1_024, least, Some(least)),
            (least, least, None),
            (all, 1 << 20, None),
            (1 << 20, 1 << 20, None),
        ] {
            assert_eq!(needs.limit(soft, hard).unwrap(), limit, "{soft} {hard}");
        }
        let refused = needs.limit(1_024, least - 1).unwrap_err().to_string();
        assert_eq!(
            refused,
            "WEBSOCKET_MAX_CONNECTIONS=10000 needs 10300 open files, and this process may have 10299: raise the hard limit \
             (LimitNOFILE= of systemd, --ulimit nofile= of containers, `ulimit -Hn`), or set a lower number"
        );
    }
}
