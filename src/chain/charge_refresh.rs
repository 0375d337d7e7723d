//! Reads the chain's charges periodically.

use std::time::{Duration, Instant};

use solana_sdk::pubkey::Pubkey;

use super::endpoints::Endpoints;
use super::parameters::CHARGES_EVERY;
use crate::periodic::{Periodic, PeriodicTask, RunError, Timing};

/// Of one run: four calls to each endpoint until one answers.
const REFRESH_LIMIT: Duration = Duration::from_secs(30);
const TIMING: Timing = Timing::new("chain charges", CHARGES_EVERY).with_limit(REFRESH_LIMIT);

struct ChargeRefresh {
    endpoints: Endpoints,
    payer: Pubkey,
}

impl Periodic for ChargeRefresh {
    async fn run(&mut self) -> Result<(), RunError> {
        // The first probe of the chain has read them a moment before the first run.
        if self.endpoints.parameters().charges_are_due(Instant::now()) {
            self.endpoints.refresh_charges(&self.payer).await?;
        }
        Ok(())
    }
}

/// The task that keeps the charges fresh. While no endpoint answers, the last ones count. `payer` stands for the payer of the
/// transaction whose fee is queried.
pub fn charge_refresh(endpoints: Endpoints, payer: Pubkey) -> PeriodicTask {
    PeriodicTask::new(TIMING, ChargeRefresh { endpoints, payer })
}
