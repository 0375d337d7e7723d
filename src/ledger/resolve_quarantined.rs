//! A person ends a quarantined mint transaction, of which no endpoint can prove what became.
//!
//! Invariant: nobody calls landed what the chain does not show, nor dead what may still land or is seen on chain. What a
//! person calls dead without a proof stays watched ([`unproven_dead`](super::unproven_dead)).

use std::str::FromStr;

use solana_sdk::signature::Signature;
use solana_sdk::transaction::TransactionError;
use sqlx::{PgConnection, PgPool};
use thiserror::Error;

use super::breaker;
use super::signature_status::{self, SignatureStatus};
use super::transitions::{self, Confirmed, Landed};
use super::{LedgerError, transition_metrics};
use crate::chain::Endpoints;
use crate::domain::{MintTransactionEvent, MintTransactionState};

/// What a person says that became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuarantineOutcome {
    /// The chain must show it.
    Landed,
    /// Its readings are paid by another one; the person answers for it.
    Dead,
}

impl QuarantineOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            QuarantineOutcome::Landed => "landed",
            QuarantineOutcome::Dead => "dead",
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
            Some(confirmed) => confirmed.report(),
            None => transition_metrics::count_transactions("dead", 1),
        }
    }
}

/// Looks at ledger and chain, every endpoint with history, without holding anything.
pub async fn check_resolvable(
    pool: &PgPool,
    endpoints: &Endpoints,
    signature: Signature,
    outcome: QuarantineOutcome,
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
    let statuses = signature_status::fetch(endpoints, &[signature], true)
        .await
        .map_err(LedgerError::from)?;
    let status = statuses
        .into_iter()
        .next()
        .unwrap_or(SignatureStatus::NotSeen);
    Ok(Resolvable {
        number,
        signature,
        landed_in: compare(signature, outcome, status)?,
    })
}

/// The slot, for one that landed.
fn compare(
    signature: Signature,
    outcome: QuarantineOutcome,
    status: SignatureStatus,
) -> Result<Option<u64>, ResolveError> {
    match (outcome, status) {
        (
            QuarantineOutcome::Landed,
            SignatureStatus::Confirmed { slot } | SignatureStatus::Finalized { slot },
        ) => Ok(Some(slot)),
        (
            QuarantineOutcome::Dead,
            SignatureStatus::NotSeen | SignatureStatus::FailedForGood { .. },
        ) => Ok(None),
        (QuarantineOutcome::Landed, SignatureStatus::NotSeen) => {
            Err(ResolveError::NotOnChain { signature })
        }
        (QuarantineOutcome::Landed, SignatureStatus::FailedForGood { error }) => {
            Err(ResolveError::FailedOnChain { signature, error })
        }
        (
            QuarantineOutcome::Dead,
            SignatureStatus::Confirmed { slot } | SignatureStatus::Finalized { slot },
        ) => Err(ResolveError::HasLanded { signature, slot }),
        (_, SignatureStatus::Unsettled) => Err(ResolveError::NotSettled { signature }),
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
            let confirmed = transitions::confirm_in(transaction, &landed, event).await?;
            Ok(Resolved {
                state: MintTransactionState::Confirmed,
                readings: confirmed.readings.len() as u64,
                confirmed: Some(confirmed),
            })
        }
        None => {
            let event = MintTransactionEvent::ResolvedDead;
            let error = format!("an admin answers for it that it is dead: {reason}");
            let readings = transitions::mark_dead_in(transaction, number, event, &error).await?;
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
        let failed = || SignatureStatus::FailedForGood {
            error: error.clone(),
        };
        let cases = [
            (
                QuarantineOutcome::Landed,
                SignatureStatus::Finalized { slot: 7 },
                Some(Some(7)),
            ),
            (
                QuarantineOutcome::Landed,
                SignatureStatus::Confirmed { slot: 7 },
                Some(Some(7)),
            ),
            (QuarantineOutcome::Landed, SignatureStatus::NotSeen, None),
            (QuarantineOutcome::Landed, SignatureStatus::Unsettled, None),
            (QuarantineOutcome::Landed, failed(), None),
            (
                QuarantineOutcome::Dead,
                SignatureStatus::NotSeen,
                Some(None),
            ),
            (QuarantineOutcome::Dead, failed(), Some(None)),
            (QuarantineOutcome::Dead, SignatureStatus::Unsettled, None),
            (
                QuarantineOutcome::Dead,
                SignatureStatus::Confirmed { slot: 7 },
                None,
            ),
            (
                QuarantineOutcome::Dead,
                SignatureStatus::Finalized { slot: 7 },
                None,
            ),
        ];
        for (outcome, status, expected) in cases {
            let shown = format!("{outcome:?} {status:?}");
            let compared = compare(Signature::default(), outcome, status).ok();
            assert_eq!(compared, expected, "{shown}");
        }
    }
}
