//! What every handler can reach.

use std::ops::Deref;
use std::sync::Arc;

use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::authenticator::Authenticator;
use super::health::DatabaseProbe;
use super::metrics::Figures;
use super::rate_limit::RateLimiter;
use crate::admin::SettingsWatch;
use crate::chain::Endpoints;
use crate::readings::Intake;
use crate::telemetry::{Health, Metrics};

/// The parts that the program puts together at start.
pub struct Services {
    pub pool: PgPool,
    /// Takes readings.
    pub intake: Intake,
    /// The chain, to look at wallets.
    pub endpoints: Endpoints,
    /// This service's token.
    pub mint: Pubkey,
    pub authenticator: Authenticator,
    pub rate_limiter: RateLimiter,
    /// What an admin may change at run time, as this process knows it.
    pub settings: SettingsWatch,
    pub health: Health,
    pub metrics: Metrics,
    /// Values of CORS_ORIGINS: `*`, or origins; none allows no other origin.
    pub cors_origins: Vec<String>,
    /// TOKENIZATION_POLLING_INTERVAL_SECS, for the status page.
    pub polling_interval_secs: u64,
    /// TOKENIZATION_BATCH_SIZE, for the status page.
    pub batch_size: u32,
    /// Cancelled when the service drains: open streams end.
    pub draining: CancellationToken,
}

/// Shared by all handlers; a clone costs a counter.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

struct Shared {
    services: Services,
    database_probe: DatabaseProbe,
    figures: Figures,
}

impl AppState {
    pub fn new(services: Services) -> AppState {
        AppState(Arc::new(Shared {
            services,
            database_probe: DatabaseProbe::default(),
            figures: Figures::default(),
        }))
    }

    pub(super) fn database_probe(&self) -> &DatabaseProbe {
        &self.0.database_probe
    }

    pub(super) fn figures(&self) -> &Figures {
        &self.0.figures
    }
}

impl Deref for AppState {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0.services
    }
}
