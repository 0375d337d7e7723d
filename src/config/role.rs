//! The role of a process: the part of the service that it runs.

use std::str::FromStr;

/// The role of one `serve` process. Any number of each may run on one database; together they are the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessRole {
    /// API and queue workers.
    All,
    /// Only the API: this process signs nothing, so it needs no keys.
    Api,
    /// Queue workers and minter; over HTTP only health and metrics.
    Worker,
}

impl ProcessRole {
    pub fn as_str(self) -> &'static str {
        match self {
            ProcessRole::All => "all",
            ProcessRole::Api => "api",
            ProcessRole::Worker => "worker",
        }
    }

    /// Whether it serves the public API and accepts readings.
    pub fn serves_api(self) -> bool {
        match self {
            ProcessRole::All | ProcessRole::Api => true,
            ProcessRole::Worker => false,
        }
    }

    /// Whether it runs jobs of the queue and signs mint transactions.
    pub fn runs_jobs(self) -> bool {
        match self {
            ProcessRole::All | ProcessRole::Worker => true,
            ProcessRole::Api => false,
        }
    }
}

impl FromStr for ProcessRole {
    type Err = ();

    fn from_str(text: &str) -> Result<ProcessRole, ()> {
        [ProcessRole::All, ProcessRole::Api, ProcessRole::Worker]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(())
    }
}
