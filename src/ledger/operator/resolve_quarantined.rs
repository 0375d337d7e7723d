//! A person ends a quarantined mint transaction, for which no endpoint can prove whether it landed.
//!
//! Invariant: a transaction is resolved as landed only if the chain shows it, and as dead only if it can no longer land and no
//! endpoint shows it, now or in a block that was read for a proof. One that is called dead without a proof is marked, and the resolver searches for it as long as it is stored.

use sqlx::{FromRow, PgConnection, PgPool};
use thiserror::Error;

use crate::chain::{Endpoints, TransactionFailure};
use crate::db::BigInt;
use crate::domain::{MintNumber, MintTransactionEvent, MintTransactionState, TxSignature};
use crate::ledger::breaker::heights::finalized_height;
use crate::ledger::breaker::ledger_row::LedgerRow;
use crate::ledger::error::LedgerError;
use crate::ledger::proof::{late, run_store};
use crate::ledger::resolver::signature_status::{self, Lookup, SignatureStatus};
use crate::ledger::transition_metrics::{self, TransactionOutcome};
use crate::ledger::transitions::{self, Confirmed, Landed};

/// The decision of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuarantineOutcome {
    /// The chain must show it.
    Landed,
    /// Its readings are paid by another transaction; the person takes responsibility.
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

/// The reason for which a transaction is not resolved.
#[derive(Debug, Error)]
pub enum ResolveError {
    #[error("transaction {signature} was not signed by this service; check the signature")]
    Unknown { signature: TxSignature },
    #[error(
        "transaction {signature} is {state}; only a quarantined one is resolved by a person, every other ends by itself"
    )]
    NotQuarantined {
        signature: TxSignature,
        state: MintTransactionState,
    },
    #[error(
        "transaction {signature} has not expired: the finalized block height is {finalized_height} and must pass \
         {last_valid_block_height}; wait"
    )]
    NotExpired {
        signature: TxSignature,
        finalized_height: u64,
        last_valid_block_height: u64,
    },
    #[error(
        "no RPC endpoint that answers shows transaction {signature} on chain, so it is not resolved as landed; add an \
         endpoint with full history"
    )]
    NotOnChain { signature: TxSignature },
    #[error("transaction {signature} is on chain, but not confirmed yet; try again in a moment")]
    NotSettled { signature: TxSignature },
    #[error(
        "transaction {signature} landed with an error ({error}) and paid nothing: the ledger ends it by itself"
    )]
    FailedOnChain {
        signature: TxSignature,
        error: TransactionFailure,
    },
    #[error(
        "transaction {signature} landed in slot {slot}, so it is not resolved as dead: its readings could be paid twice"
    )]
    HasLanded { signature: TxSignature, slot: u64 },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<sqlx::Error> for ResolveError {
    fn from(error: sqlx::Error) -> ResolveError {
        ResolveError::Ledger(error.into())
    }
}

/// A quarantined transaction, and an outcome that the chain does not contradict.
#[derive(Clone, Copy, Debug)]
pub struct Resolvable {
    number: MintNumber,
    signature: TxSignature,
    shown: Shown,
}

/// What the endpoints show of a transaction that may be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// It is resolved as landed.
    Landed { slot: u64 },
    /// Final and failed: it is dead.
    Failed,
    /// It is dead, unless a block that was read holds it.
    Nothing,
}

/// A resolved transaction, once the caller has committed.
#[derive(Debug)]
#[must_use = "to be reported to the metrics after the commit"]
pub struct Resolved {
    pub state: MintTransactionState,
    /// Readings that it paid, or that are due for another transaction.
    pub readings: u64,
    confirmed: Option<Confirmed>,
}

impl Resolved {
    /// Reports it to the metrics; after the commit.
    pub fn report_committed(&self) {
        match &self.confirmed {
            Some(confirmed) => confirmed.report(),
            None => transition_metrics::count_transactions(TransactionOutcome::Dead, 1),
        }
    }
}

#[derive(FromRow)]
struct StoredTransaction {
    number: MintNumber,
    state: MintTransactionState,
    last_valid_block_height: BigInt,
}

/// Checks ledger and chain, on every endpoint with history. Holds no lock.
pub async fn check_resolvable(
    pool: &PgPool,
    endpoints: &Endpoints,
    signature: TxSignature,
    outcome: QuarantineOutcome,
) -> Result<Resolvable, ResolveError> {
    let stored: Option<StoredTransaction> = sqlx::query_as(
        "SELECT number, state, last_valid_block_height
         FROM mint_transactions
         WHERE signature = $1",
    )
    .bind(signature)
    .fetch_optional(pool)
    .await?;
    let stored = stored.ok_or(ResolveError::Unknown { signature })?;
    require_quarantined(signature, stored.state)?;
    let genesis = LedgerRow::read(pool).await?.genesis()?;
    let finalized_height = finalized_height(endpoints, &genesis)
        .await
        .map_err(LedgerError::from)?;
    let last_valid_block_height = stored.last_valid_block_height.get();
    if finalized_height <= last_valid_block_height {
        return Err(ResolveError::NotExpired {
            signature,
            finalized_height,
            last_valid_block_height,
        });
    }
    let statuses = signature_status::fetch(endpoints, &genesis, &[signature], Lookup::History)
        .await
        .map_err(LedgerError::from)?;
    let status = statuses
        .into_iter()
        .next()
        .unwrap_or(SignatureStatus::NotSeen);
    Ok(Resolvable {
        number: stored.number,
        signature,
        shown: compare(signature, outcome, status)?,
    })
}

/// An error if the chain contradicts the outcome.
fn compare(
    signature: TxSignature,
    outcome: QuarantineOutcome,
    status: SignatureStatus,
) -> Result<Shown, ResolveError> {
    match (outcome, status) {
        (
            QuarantineOutcome::Landed,
            SignatureStatus::Confirmed { slot } | SignatureStatus::Finalized { slot },
        ) => Ok(Shown::Landed { slot }),
        (QuarantineOutcome::Dead, SignatureStatus::NotSeen) => Ok(Shown::Nothing),
        (QuarantineOutcome::Dead, SignatureStatus::Failed { .. }) => Ok(Shown::Failed),
        (QuarantineOutcome::Landed, SignatureStatus::NotSeen) => {
            Err(ResolveError::NotOnChain { signature })
        }
        (QuarantineOutcome::Landed, SignatureStatus::Failed { error }) => {
            Err(ResolveError::FailedOnChain { signature, error })
        }
        (
            QuarantineOutcome::Dead,
            SignatureStatus::Confirmed { slot } | SignatureStatus::Finalized { slot },
        ) => Err(ResolveError::HasLanded { signature, slot }),
        (_, SignatureStatus::Unsettled | SignatureStatus::Unreadable) => {
            Err(ResolveError::NotSettled { signature })
        }
    }
}

/// Writes the outcome in the caller's transaction; compare-and-set, because a proof may have ended it meanwhile. `reason` is the
/// person's.
pub async fn resolve(
    transaction: &mut PgConnection,
    resolvable: Resolvable,
    reason: &str,
) -> Result<Resolved, ResolveError> {
    let Resolvable {
        number,
        signature,
        shown,
    } = resolvable;
    let state: MintTransactionState = sqlx::query_scalar(
        "SELECT state
         FROM mint_transactions
         WHERE number = $1
         FOR UPDATE",
    )
    .bind(number)
    .fetch_one(&mut *transaction)
    .await?;
    require_quarantined(signature, state)?;
    match shown {
        Shown::Landed { slot } => {
            let landed = [Landed { number, slot }];
            let event = MintTransactionEvent::ResolvedLanded;
            let confirmed = transitions::confirm_in(transaction, &landed, event).await?;
            late::look_up_now(transaction, number).await?;
            Ok(Resolved {
                state: MintTransactionState::Confirmed,
                readings: BigInt::from(confirmed.readings.len()).get(),
                confirmed: Some(confirmed),
            })
        }
        Shown::Failed | Shown::Nothing => {
            if shown == Shown::Nothing
                && let Some(slot) = run_store::found_in(&mut *transaction, &signature).await?
            {
                return Err(ResolveError::HasLanded { signature, slot });
            }
            let event = MintTransactionEvent::ResolvedDead;
            let error = format!("an admin answers for it that it is dead: {reason}");
            let readings =
                transitions::mark_dead_and_requeue(transaction, number, event, &error).await?;
            mark_unproven(transaction, number).await?;
            Ok(Resolved {
                state: MintTransactionState::Dead,
                readings: BigInt::from(readings.unwrap_or_default()).get(),
                confirmed: None,
            })
        }
    }
}

/// From here on the resolver searches for it.
async fn mark_unproven(transaction: &mut PgConnection, number: MintNumber) -> sqlx::Result<()> {
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

fn require_quarantined(
    signature: TxSignature,
    state: MintTransactionState,
) -> Result<(), ResolveError> {
    if state == MintTransactionState::Quarantined {
        Ok(())
    } else {
        Err(ResolveError::NotQuarantined { signature, state })
    }
}

#[cfg(test)]
mod tests {
    use solana_sdk::transaction::TransactionError;

    use super::*;

    #[test]
    fn what_the_chain_shows_is_not_contradicted() {
        let signature = TxSignature::from_bytes([0; TxSignature::BYTES]);
        let error = TransactionFailure::from(TransactionError::AccountNotFound);
        let failed = || SignatureStatus::Failed {
            error: error.clone(),
        };
        let cases = [
            (
                QuarantineOutcome::Landed,
                SignatureStatus::Finalized { slot: 7 },
                Some(Shown::Landed { slot: 7 }),
            ),
            (
                QuarantineOutcome::Landed,
                SignatureStatus::Confirmed { slot: 7 },
                Some(Shown::Landed { slot: 7 }),
            ),
            (QuarantineOutcome::Landed, SignatureStatus::NotSeen, None),
            (QuarantineOutcome::Landed, SignatureStatus::Unsettled, None),
            (QuarantineOutcome::Landed, failed(), None),
            (
                QuarantineOutcome::Dead,
                SignatureStatus::NotSeen,
                Some(Shown::Nothing),
            ),
            (QuarantineOutcome::Dead, failed(), Some(Shown::Failed)),
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
            let compared = compare(signature, outcome, status).ok();
            assert_eq!(compared, expected, "{shown}");
        }
    }
}
