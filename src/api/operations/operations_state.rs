//! The state of the health and metrics handlers.

use std::ops::Deref;
use std::sync::Arc;

use sqlx::PgPool;

use super::database_figures::DatabaseFigures;
use super::database_probe::DatabaseProbe;
use crate::chain::FeeBudget;
use crate::telemetry::{Health, Metrics};

/// The state of the health and metrics handlers. Clones share it.
#[derive(Clone)]
pub struct Operations(Arc<Parts>);

/// The parts of [`Operations`], which dereferences to them.
pub struct Parts {
    pub pool: PgPool,
    pub health: Health,
    pub metrics: Metrics,
    pub fee_budget: FeeBudget,
    pub(super) database_probe: DatabaseProbe,
    pub(super) figures: DatabaseFigures,
}

impl Operations {
    pub fn new(
        pool: PgPool,
        health: Health,
        metrics: Metrics,
        fee_budget: FeeBudget,
    ) -> Operations {
        Operations(Arc::new(Parts {
            pool,
            health,
            metrics,
            fee_budget,
            database_probe: DatabaseProbe::default(),
            figures: DatabaseFigures::default(),
        }))
    }
}

impl Deref for Operations {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
