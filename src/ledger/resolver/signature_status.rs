//! Fetches the status of many signatures in one call.

use solana_sdk::hash::Hash;
use solana_sdk::transaction::TransactionError;
use solana_transaction_status::TransactionConfirmationStatus;

use crate::chain::{
    ChainError, Endpoint, Endpoints, ListMethod, ShownStatus, StatusSource, TransactionFailure,
};
use crate::domain::TxSignature;

/// Signatures that are looked up together: what one call takes at most.
pub const SIGNATURES_PER_CALL: usize = ListMethod::SignatureStatuses.items_max();

/// What an endpoint reports of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureStatus {
    /// Proves nothing: it may have landed all the same.
    NotSeen,
    /// On chain, and may still vanish: commitment below confirmed, or an error that is not final yet.
    Unsettled,
    /// On chain without error, confirmed by a supermajority.
    Confirmed { slot: u64 },
    /// On chain without error, cannot be rolled back.
    Finalized { slot: u64 },
    /// Landed with an error, cannot be rolled back: not paid.
    Failed { error: TransactionFailure },
    /// An endpoint reports something that cannot be read. It proves nothing, and least of all that the signature is absent.
    Unreadable,
}

impl SignatureStatus {
    /// Whether another endpoint has nothing to add.
    fn is_known(&self) -> bool {
        !matches!(self, SignatureStatus::NotSeen | SignatureStatus::Unreadable)
    }
}

/// Where an endpoint looks a signature up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Its cache of recent statuses, on one endpoint: cheap, and a hot call, since a user waits for the result.
    Recent,
    /// Its whole history. What one endpoint has not seen is looked up on the others too, because a signature found anywhere
    /// wins. It waits for its turn among the background calls, but for no pause: the next round queries it again.
    History,
}

async fn fetch_from(
    endpoint: &Endpoint,
    genesis_hash: &Hash,
    signatures: &[TxSignature],
    lookup: Lookup,
) -> Result<Vec<SignatureStatus>, ChainError> {
    // On another chain nothing of ours has landed, or something else has.
    let source = match lookup {
        Lookup::Recent => {
            endpoint.ensure_chain(genesis_hash).await?;
            StatusSource::Recent
        }
        // It may prove that nothing landed: the answer of an earlier check is not enough.
        Lookup::History => {
            endpoint.look_up_chain(genesis_hash).await?;
            StatusSource::History
        }
    };
    let shown = endpoint.signature_statuses(signatures, source).await?;
    Ok(shown.into_iter().map(status_of).collect())
}

/// Queries the endpoints of this chain in order until one answers, or with [`Lookup::History`] until each signature is found.
/// `Err` only when none answered.
pub async fn fetch(
    endpoints: &Endpoints,
    genesis_hash: &Hash,
    signatures: &[TxSignature],
    lookup: Lookup,
) -> Result<Vec<SignatureStatus>, ChainError> {
    let mut statuses = vec![SignatureStatus::NotSeen; signatures.len()];
    let mut answered = false;
    let mut failure = None;
    let in_order: Vec<&Endpoint> = match lookup {
        Lookup::Recent => endpoints.iter().collect(),
        Lookup::History => endpoints.for_background().collect(),
    };
    for endpoint in in_order {
        let missing: Vec<usize> = (0..signatures.len())
            .filter(|index| !statuses[*index].is_known())
            .collect();
        if missing.is_empty() || (answered && lookup == Lookup::Recent) {
            break;
        }
        let asked: Vec<TxSignature> = missing.iter().map(|index| signatures[*index]).collect();
        match fetch_from(endpoint, genesis_hash, &asked, lookup).await {
            Ok(found) => {
                answered = true;
                for (index, status) in missing.into_iter().zip(found) {
                    // What one endpoint shows and we cannot read outweighs that another does not show it.
                    if status != SignatureStatus::NotSeen {
                        statuses[index] = status;
                    }
                }
            }
            Err(error) => {
                // A background call says nothing about the endpoint that minting prefers.
                if lookup == Lookup::Recent {
                    endpoints.fail_over_from(endpoint, &error);
                }
                failure = Some(error);
            }
        }
    }
    match failure {
        Some(error) if !answered => Err(error),
        _ => Ok(statuses),
    }
}

fn status_of(shown: ShownStatus) -> SignatureStatus {
    let (slot, failure, commitment) = match shown {
        ShownStatus::NotShown => return SignatureStatus::NotSeen,
        ShownStatus::Unreadable => return SignatureStatus::Unreadable,
        ShownStatus::OnChain {
            slot,
            failure,
            commitment,
        } => (slot, failure, commitment),
    };
    if let Some(TransactionError::BlockhashNotFound | TransactionError::AlreadyProcessed) =
        failure.as_ref().and_then(TransactionFailure::named)
    {
        // No block holds a transaction with these errors: the endpoint reports how it refused a send. The local chain does
        // so, and on it the same bytes may land later, when a height is reached again after a fork.
        return SignatureStatus::NotSeen;
    }
    // The error is read before anything is called minted.
    match (failure, commitment) {
        (Some(error), TransactionConfirmationStatus::Finalized) => {
            SignatureStatus::Failed { error }
        }
        (Some(_), _) => SignatureStatus::Unsettled,
        (None, TransactionConfirmationStatus::Finalized) => SignatureStatus::Finalized { slot },
        (None, TransactionConfirmationStatus::Confirmed) => SignatureStatus::Confirmed { slot },
        (None, TransactionConfirmationStatus::Processed) => SignatureStatus::Unsettled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(
        err: Option<TransactionError>,
        commitment: TransactionConfirmationStatus,
    ) -> ShownStatus {
        ShownStatus::OnChain {
            slot: 7,
            failure: err.map(TransactionFailure::from),
            commitment,
        }
    }

    #[test]
    fn an_error_never_counts_as_minted_and_is_final_only_when_finalized() {
        use TransactionConfirmationStatus::{Confirmed, Finalized, Processed};
        let error = TransactionError::AccountNotFound;
        let cases = [
            (ShownStatus::NotShown, SignatureStatus::NotSeen),
            (ShownStatus::Unreadable, SignatureStatus::Unreadable),
            (status(None, Processed), SignatureStatus::Unsettled),
            (
                status(None, Confirmed),
                SignatureStatus::Confirmed { slot: 7 },
            ),
            (
                status(None, Finalized),
                SignatureStatus::Finalized { slot: 7 },
            ),
            (
                status(Some(error.clone()), Processed),
                SignatureStatus::Unsettled,
            ),
            (
                status(Some(error.clone()), Confirmed),
                SignatureStatus::Unsettled,
            ),
            (
                status(Some(error.clone()), Finalized),
                SignatureStatus::Failed {
                    error: error.into(),
                },
            ),
            (
                status(Some(TransactionError::BlockhashNotFound), Finalized),
                SignatureStatus::NotSeen,
            ),
            (
                status(Some(TransactionError::AlreadyProcessed), Finalized),
                SignatureStatus::NotSeen,
            ),
        ];
        for (given, expected) in cases {
            assert_eq!(status_of(given), expected);
        }
    }
}
