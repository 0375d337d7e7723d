//! Quarantines transactions that have been unproven for too long.
//!
//! It runs apart from the search for proofs, which may take minutes: time counts while an endpoint answers, whatever the search
//! does.

use std::time::Duration;

use sqlx::PgPool;

use super::first_failure::{FirstFailure, Rest};
use super::limits::ResolverLimits;
use crate::chain::Endpoints;
use crate::db::within;
use crate::ledger::error::LedgerError;
use crate::ledger::proof::clock::{self, Overdue};
use crate::ledger::transitions;
use crate::periodic::{Periodic, RunError};

pub struct Quarantine {
    pub pool: PgPool,
    pub endpoints: Endpoints,
    pub limits: ResolverLimits,
}

impl Periodic for Quarantine {
    async fn run(&mut self) -> Result<(), RunError> {
        Ok(self.round().await?)
    }
}

impl Quarantine {
    async fn round(&self) -> Result<(), LedgerError> {
        let pool = &self.pool;
        if !self.within_limit(clock::is_needed(pool)).await? {
            return Ok(());
        }
        let endpoints = if self.endpoints.iter().any(|endpoint| endpoint.answers()) {
            clock::Endpoints::Answer
        } else {
            clock::Endpoints::Silent
        };
        self.within_limit(clock::tick(pool, endpoints)).await?;
        if let Some(height) = self.endpoints.highest_height() {
            self.within_limit(clock::note_expired(pool, height)).await?;
        }
        let overdue = clock::overdue(pool, self.limits.quarantine_after);
        let overdue = self.within_limit(overdue).await?;
        let mut failures = FirstFailure::default();
        for overdue in overdue {
            if failures.note(self.quarantine(&overdue).await) == Rest::IsGivenUp {
                break;
            }
        }
        failures.into_result()
    }

    async fn quarantine(&self, overdue: &Overdue) -> Result<(), LedgerError> {
        let reason = reason(overdue, self.limits.quarantine_after);
        let quarantined = transitions::quarantine(&self.pool, overdue.number, &reason);
        let readings = self.within_limit(quarantined).await?;
        tracing::error!(
            signature = %overdue.signature,
            number = %overdue.number,
            readings,
            no_proof = overdue.no_proof,
            "mint transaction is quarantined: no endpoint can prove whether it landed; \
             add an RPC endpoint with full history, or resolve it by hand"
        );
        Ok(())
    }

    async fn within_limit<T, E: From<sqlx::Error>>(
        &self,
        query: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        within(self.limits.transaction_limit, query).await
    }
}

/// What a reading's owner and an operator see: why it waits, and what happens next.
fn reason(overdue: &Overdue, after: Duration) -> String {
    let signature = overdue.signature;
    let why = match (overdue.found_in_slot, &overdue.no_proof) {
        (Some(slot), _) => format!(
            "a finalized block (slot {slot}) holds it, but no endpoint shows whether it succeeded"
        ),
        (None, Some(no_proof)) => no_proof.clone(),
        (None, None) => "the blocks that could hold it have not all been read yet".to_owned(),
    };
    format!(
        "transaction {signature} expired, and for {} s it has been neither found on chain nor proven absent: {why}. The search goes \
         on, ever more rarely, and ends this by itself; an RPC endpoint with full history helps, or an admin resolves the transaction",
        after.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{MintNumber, TxSignature};

    #[test]
    fn the_reason_says_why_it_waits_and_what_happens_next() {
        let mut overdue = Overdue {
            number: MintNumber::try_from(7_u64).unwrap(),
            signature: TxSignature::from_bytes([1; TxSignature::BYTES]),
            no_proof: Some(
                "RPC endpoint rpc-1 does not show the block of slot 9 (null)".to_owned(),
            ),
            found_in_slot: None,
        };
        let text = reason(&overdue, Duration::from_secs(3_600));
        assert!(
            text.contains("3600 s") && text.contains("slot 9 (null)"),
            "{text}"
        );
        assert!(text.contains("an admin resolves the transaction"), "{text}");
        overdue.found_in_slot = Some(5);
        assert!(reason(&overdue, Duration::ZERO).contains("slot 5"));
    }
}
