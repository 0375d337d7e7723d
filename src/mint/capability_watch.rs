//! Probes the capabilities of each endpoint: at start, after it has recovered, and hourly.

use std::time::Duration;

use solana_sdk::pubkey::Pubkey;

use crate::chain::{Endpoints, probe_capabilities};
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};

/// How often to check whether a probe is due; it rarely is. Each of its calls has its own limit, and may wait for its turn among
/// the background calls.
const TIMING: Timing = Timing::new("endpoint capabilities", Duration::from_secs(10));

struct CapabilityWatch {
    endpoints: Endpoints,
    authority: Pubkey,
}

impl Periodic for CapabilityWatch {
    async fn run(&mut self) -> Result<(), RunError> {
        for endpoint in self.endpoints.for_background() {
            probe_capabilities(endpoint, &self.authority).await;
        }
        Ok(())
    }
}

pub fn capability_watch(endpoints: Endpoints, authority: Pubkey) -> PeriodicTask {
    let watch = CapabilityWatch {
        endpoints,
        authority,
    };
    PeriodicTask::new(TIMING, watch)
}
