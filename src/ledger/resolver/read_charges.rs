//! Reads what the chain charged for finalized transactions, oldest first.
//!
//! It takes one call for each transaction, so it runs at a fixed slow pace beside everything else: minting and confirming do not
//! wait for it; until it has run, booked costs are reported. It skips a transaction that no endpoint shows, and tries it again
//! later.

use std::time::{Duration, Instant};

use sqlx::PgPool;

use crate::chain::{Charge, Endpoints, charge_of};
use crate::db::within;
use crate::domain::{MintNumber, TxSignature};
use crate::ledger::accounting::charges::{UnreadCharge, store_charge, unread_charges};
use crate::ledger::transition_metrics;
use crate::periodic::{Periodic, RunError};

/// Transactions read in one run.
const PER_RUN: i64 = 5;
/// After this long everything that is still unread is tried again, including skipped ones.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Reads the charges of a few transactions in each run.
pub struct ChargeReader {
    pool: PgPool,
    endpoints: Endpoints,
    /// Bounds one transaction of the database.
    limit: Duration,
    /// The last transaction tried.
    after: Option<MintNumber>,
    began_at: Instant,
}

impl Periodic for ChargeReader {
    async fn run(&mut self) -> Result<(), RunError> {
        Ok(self.read_some().await?)
    }
}

impl ChargeReader {
    pub fn new(pool: PgPool, endpoints: Endpoints, limit: Duration) -> ChargeReader {
        ChargeReader {
            pool,
            endpoints,
            limit,
            after: None,
            began_at: Instant::now(),
        }
    }

    async fn read_some(&mut self) -> sqlx::Result<()> {
        let unread = unread_charges(&self.pool, self.after, PER_RUN);
        let unread = within(self.limit, unread).await?;
        if unread.is_empty() && self.began_at.elapsed() >= AGAIN_AFTER {
            self.after = None;
            self.began_at = Instant::now();
        }
        for transaction in unread {
            self.after = Some(transaction.number);
            if let Some(charge) = self.charge_of(transaction.signature).await {
                self.store(transaction, charge).await?;
            }
        }
        Ok(())
    }

    /// From the first endpoint that shows the transaction.
    async fn charge_of(&self, signature: TxSignature) -> Option<Charge> {
        for endpoint in self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.is_usable())
        {
            match charge_of(endpoint, signature).await {
                Ok(Some(charge)) => return Some(charge),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%signature, %error, "the charge of a transaction could not be read");
                }
            }
        }
        None
    }

    async fn store(&self, booked: UnreadCharge, charge: Charge) -> sqlx::Result<()> {
        let stored = store_charge(&self.pool, booked.number, charge);
        if !within(self.limit, stored).await? {
            return Ok(());
        }
        if charge.fee_lamports != booked.fee_lamports {
            tracing::warn!(
                signature = %booked.signature,
                booked_lamports = booked.fee_lamports,
                charged_lamports = charge.fee_lamports,
                "the chain charged another fee than was booked"
            );
        }
        transition_metrics::report_charged(
            booked.fee_lamports + booked.rent_lamports,
            charge.fee_lamports + charge.rent_lamports,
        );
        Ok(())
    }
}
