//! What the chain reports of a signature: one call for up to 256 transactions.

use solana_client::rpc_response::Response;
use solana_sdk::signature::Signature;
use solana_sdk::transaction::TransactionError;
use solana_transaction_status::{TransactionConfirmationStatus, TransactionStatus};

use crate::chain::{ChainError, Endpoint, Endpoints, UnusableAnswer};
use crate::domain::TxSignature;

/// What `getSignatureStatuses` takes at most.
pub const SIGNATURES_PER_CALL: usize = 256;

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
    Failed { error: TransactionError },
}

/// Where an endpoint looks a signature up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Its cache of recent statuses, on one endpoint: cheap, and a hot call, since a user waits for the result.
    Recent,
    /// Its whole history. What one endpoint has not seen is looked up on the others too, because a signature found anywhere
    /// wins. A background call: it waits for its turn and for the end of a pause.
    History,
}

async fn fetch_from(
    endpoint: &Endpoint,
    signatures: &[Signature],
    lookup: Lookup,
) -> Result<Vec<SignatureStatus>, ChainError> {
    let answer = match lookup {
        Lookup::Recent => endpoint.hot().get_signature_statuses(signatures).await,
        Lookup::History => {
            let background = endpoint.background();
            background
                .get_signature_statuses_with_history(signatures)
                .await
        }
    };
    let Response { value, .. } =
        answer.map_err(|error| ChainError::from_client(endpoint.name(), &error))?;
    if value.len() != signatures.len() {
        return Err(ChainError::Unusable {
            endpoint: endpoint.name().to_owned(),
            reason: UnusableAnswer::WrongCount {
                items: "signatures",
                requested: signatures.len(),
                answered: value.len(),
            },
        });
    }
    Ok(value.into_iter().map(status_of).collect())
}

/// Queries the endpoints in order until one answers, or with [`Lookup::History`] until each signature is found. `Err` only when
/// none answered.
pub async fn fetch(
    endpoints: &Endpoints,
    signatures: &[TxSignature],
    lookup: Lookup,
) -> Result<Vec<SignatureStatus>, ChainError> {
    let mut statuses = vec![SignatureStatus::NotSeen; signatures.len()];
    let mut answered = false;
    let mut failure = None;
    for endpoint in endpoints.iter() {
        let missing: Vec<usize> = (0..signatures.len())
            .filter(|index| statuses[*index] == SignatureStatus::NotSeen)
            .collect();
        if missing.is_empty() || (answered && lookup == Lookup::Recent) {
            break;
        }
        let asked: Vec<Signature> = missing
            .iter()
            .map(|index| signatures[*index].signature())
            .collect();
        match fetch_from(endpoint, &asked, lookup).await {
            Ok(found) => {
                answered = true;
                for (index, status) in missing.into_iter().zip(found) {
                    statuses[index] = status;
                }
            }
            Err(error) => {
                endpoints.fail_over_from(endpoint);
                failure = Some(error);
            }
        }
    }
    match failure {
        Some(error) if !answered => Err(error),
        _ => Ok(statuses),
    }
}

fn status_of(status: Option<TransactionStatus>) -> SignatureStatus {
    let Some(status) = status else {
        return SignatureStatus::NotSeen;
    };
    let commitment = status.confirmation_status();
    if let Some(TransactionError::BlockhashNotFound | TransactionError::AlreadyProcessed) =
        status.err
    {
        // No block holds a transaction with these errors: the endpoint reports how it refused a send. The local chain does
        // so, and on it the same bytes may land later, when a height is reached again after a fork.
        return SignatureStatus::NotSeen;
    }
    // `err` is read before anything is called minted.
    match (status.err, commitment) {
        (Some(error), TransactionConfirmationStatus::Finalized) => {
            SignatureStatus::Failed { error }
        }
        (Some(_), _) => SignatureStatus::Unsettled,
        (None, TransactionConfirmationStatus::Finalized) => {
            SignatureStatus::Finalized { slot: status.slot }
        }
        (None, TransactionConfirmationStatus::Confirmed) => {
            SignatureStatus::Confirmed { slot: status.slot }
        }
        (None, TransactionConfirmationStatus::Processed) => SignatureStatus::Unsettled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(
        err: Option<TransactionError>,
        commitment: TransactionConfirmationStatus,
    ) -> Option<TransactionStatus> {
        Some(TransactionStatus {
            slot: 7,
            confirmations: Some(3),
            status: err.clone().map_or(Ok(()), Err),
            err,
            confirmation_status: Some(commitment),
        })
    }

    #[test]
    fn an_error_never_counts_as_minted_and_is_final_only_when_finalized() {
        use TransactionConfirmationStatus::{Confirmed, Finalized, Processed};
        let error = TransactionError::AccountNotFound;
        let cases = [
            (None, SignatureStatus::NotSeen),
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
                SignatureStatus::Failed { error },
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
