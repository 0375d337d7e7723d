//! A person ends a quarantined mint transaction, of which no endpoint can prove what became.
//!
//! Invariant: nobody calls landed what the chain does not show, nor dead what may still land or is seen on chain. What a
//! person calls dead without a proof stays watched ([`watched`](super::watched)).

use std::str::FromStr;

use solana_sdk::signature::Signature;
use solana_sdk::transaction::TransactionError;
use sqlx::{PgConnection, PgPool};
use thiserror::Error;

use super::breaker;
use super::settle::{self, Confirmed, Landed};
use super::sighting::{self, Sighting};
use super::{LedgerError, tally};
use crate::chain::Endpoints;
use crate::domain::{MintTransactionEvent, MintTransactionState};

/// What a person says that became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The chain must show it.
    Landed,
    /// Its readings are paid by another one; the person answers for it.
    Dead,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Landed => "landed",
            Outcome::Dead => "dead",
        }
    }
}

/// Why a transaction is not resolved.
#[derive(Debug, Error)]
pub enum ResolveError {
    #[error("transaction {signature} was not signed by this service; check the signature")]
    Unknown { signature: Signature },
    #[error(
        "transaction {signature} is {state}; only a quarantined one is resolved by a person, every other ends by itself"
    )]
    NotQuarantined {
        signature: Signature,
        state: MintTransactionState,
    },
    #[error(
        "transaction {signature} has not expired: the finalized block height is {finalized_height} and must pass \
         {last_valid_block_height}; wait"
    )]
    NotExpired {
        signature: Signature,
        finalized_height: u64,
        last_valid_block_height: u64,
    },
    #[error(
        "no RPC endpoint that answers shows transaction {signature} on chain, so it is not resolved as landed; add an \
         endpoint with full history"
    )]
    NotOnChain { signature: Signature },
    #[error("transaction {signature} is on chain, but not confirmed yet; ask again in a moment")]
    NotSettled { signature: Signature },
    #[error(
        "transaction {signature} landed with an error ({error}) and paid nothing: the ledger ends it by itself"
    )]
    FailedOnChain {
        signature: Signature,
        error: TransactionError,
    },
    #[error(
        "transaction {signature} landed in slot {slot}, so it is not resolved as dead: its readings are paid"
    )]
    HasLanded { signature: Signature, slot: u64 },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<sqlx::Error> for ResolveError {
    fn from(error: sqlx::Error) -> ResolveError {
        ResolveError::Ledger(error.into())
    }
}

/// A quarantined transaction of which the chain does not contradict the outcome.
#[derive(Clone, Copy, Debug)]
pub struct Resolvable {
    number: i64,
    signature: Signature,
    /// The slot that it landed in; `None` when it is to be called dead.
    landed_in: Option<u64>,
}

/// What was resolved, once the caller has committed.
#[derive(Debug)]
#[must_use = "to be counted after the commit"]
pub struct Resolved {
    pub state: MintTransactionState,
    /// Readings that it paid, or that are paid by another one now.
    pub readings: u64,
    confirmed: Option<Confirmed>,
}

impl Resolved {
    /// Counts it; after the commit.
    pub fn committed(&self) {
        match &self.confirmed {
            Some(confirmed) => confirmed.tally(),
            None => tally::transactions("dead", 1),
        }
    }
}

/// Looks at ledger and chain, every endpoint with history, without holding anything.
pub async fn check_resolvable(
    pool: &PgPool,
    endpoints: &Endpoints,
    signature: Signature,
    outcome: Outcome,
) -> Result<Resolvable, ResolveError> {
    let row: Option<(i64, String, i64)> = sqlx::query_as(
        "SELECT number, state, last_valid_block_height
         FROM mint_transactions
         WHERE signature = $1",
    )
    .bind(signature.as_ref())
    .fetch_optional(pool)
    .await?;
    let (number, state, last_valid_block_height) =
        row.ok_or(ResolveError::Unknown { signature })?;
    demand_quarantined(signature, &state)?;
    let finalized_height = breaker::finalized_height(endpoints)
        .await
        .map_err(LedgerError::from)?;
    let last_valid_block_height = last_valid_block_height as u64;
    if finalized_height <= last_valid_block_height {
        return Err(ResolveError::NotExpired {
            signature,
            finalized_height,
            last_valid_block_height,
        });
    }
    let sightings = sighting::look(endpoints, &[signature], true)
        .await
        .map_err(LedgerError::from)?;
    let sighting = sightings.into_iter().next().unwrap_or(Sighting::NotSeen);
    Ok(Resolvable {
        number,
        signature,
        landed_in: compare(signature, outcome, sighting)?,
    })
}

/// The slot, for one that landed.
fn compare(
    signature: Signature,
    outcome: Outcome,
    sighting: Sighting,
) -> Result<Option<u64>, ResolveError> {
    match (outcome, sighting) {
        (Outcome::Landed, Sighting::Confirmed { slot } | Sighting::Finalized { slot }) => {
            Ok(Some(slot))
        }
        (Outcome::Dead, Sighting::NotSeen | Sighting::FailedForGood { .. }) => Ok(None),
        (Outcome::Landed, Sighting::NotSeen) => Err(ResolveError::NotOnChain { signature }),
        (Outcome::Landed, Sighting::FailedForGood { error }) => {
            Err(ResolveError::FailedOnChain { signature, error })
        }
        (Outcome::Dead, Sighting::Confirmed { slot } | Sighting::Finalized { slot }) => {
            Err(ResolveError::HasLanded { signature, slot })
        }
        (_, Sighting::Unsettled) => Err(ResolveError::NotSettled { signature }),
    }
}

/// Writes it down in the caller's transaction; compare-and-set, since proof may have ended it meanwhile. `reason` is the
/// person's.
pub async fn resolve(
    transaction: &mut PgConnection,
    resolvable: Resolvable,
    reason: &str,
) -> Result<Resolved, ResolveError> {
    let Resolvable {
        number,
        signature,
        landed_in,
    } = resolvable;
    let state: String = sqlx::query_scalar(
        "SELECT state
         FROM mint_transactions
         WHERE number = $1
         FOR UPDATE",
    )
    .bind(number)
    .fetch_one(&mut *transaction)
    .await?;
    demand_quarantined(signature, &state)?;
    match landed_in {
        Some(slot) => {
            let landed = [Landed { number, slot }];
            let event = MintTransactionEvent::ResolvedLanded;
            let confirmed = settle::confirm_in(transaction, &landed, event).await?;
            Ok(Resolved {
                state: MintTransactionState::Confirmed,
                readings: confirmed.readings.len() as u64,
                confirmed: Some(confirmed),
            })
        }
        None => {
            let event = MintTransactionEvent::ResolvedDead;
            let error = format!("an admin answers for it that it is dead: {reason}");
            let readings = settle::bury_in(transaction, number, event, &error).await?;
            watch(transaction, number).await?;
            Ok(Resolved {
                state: MintTransactionState::Dead,
                readings: readings.unwrap_or_default(),
                confirmed: None,
            })
        }
    }
}

async fn watch(transaction: &mut PgConnection, number: i64) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE mint_transactions
         SET dead_unproven = TRUE
         WHERE number = $1",
    )
    .bind(number)
    .execute(transaction)
    .await?;
    Ok(())
}

fn demand_quarantined(signature: Signature, stored: &str) -> Result<(), ResolveError> {
    let state = MintTransactionState::from_str(stored).map_err(|_| LedgerError::Unreadable {
        what: "a mint transaction's state",
        value: stored.to_owned(),
    })?;
    if state == MintTransactionState::Quarantined {
        Ok(())
    } else {
        Err(ResolveError::NotQuarantined { signature, state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_chain_shows_is_not_contradicted() {
        let error = TransactionError::AccountNotFound;
        let failed = || Sighting::FailedForGood {
            error: error.clone(),
        };
        let cases = [
            (
                Outcome::Landed,
                Sighting::Finalized { slot: 7 },
                Some(Some(7)),
            ),
            (
                Outcome::Landed,
                Sighting::Confirmed { slot: 7 },
                Some(Some(7)),
            ),
            (Outcome::Landed, Sighting::NotSeen, None),
            (Outcome::Landed, Sighting::Unsettled, None),
            (Outcome::Landed, failed(), None),
            (Outcome::Dead, Sighting::NotSeen, Some(None)),
            (Outcome::Dead, failed(), Some(None)),
            (Outcome::Dead, Sighting::Unsettled, None),
            (Outcome::Dead, Sighting::Confirmed { slot: 7 }, None),
            (Outcome::Dead, Sighting::Finalized { slot: 7 }, None),
        ];
        for (outcome, sighting, expected) in cases {
            let shown = format!("{outcome:?} {sighting:?}");
            let compared = compare(Signature::default(), outcome, sighting).ok();
            assert_eq!(compared, expected, "{shown}");
        }
    }
}
