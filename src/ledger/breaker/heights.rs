//! Block heights that the breaker waits for, from endpoints that are on the ledger's chain.

use solana_sdk::hash::Hash;

use crate::chain::{BLOCKHASH_LIFE, ChainError, Endpoints, Finality};

/// The highest block in which a transaction that was signed before this moment can land. It counts from the newest block that
/// any endpoint reports, not from the finalized one: the blockhash may have been the newest.
pub async fn last_possible_height(
    endpoints: &Endpoints,
    genesis_hash: &Hash,
) -> Result<u64, ChainError> {
    Ok(newest_height(endpoints, genesis_hash).await? + BLOCKHASH_LIFE)
}

async fn newest_height(endpoints: &Endpoints, genesis_hash: &Hash) -> Result<u64, ChainError> {
    let mut newest = None;
    let mut failure = no_endpoint();
    for endpoint in endpoints.iter() {
        if let Err(error) = endpoint.look_up_chain(genesis_hash).await {
            failure = error;
            continue;
        }
        let height = endpoint
            .look_up()
            .get_block_height_with_commitment(endpoint.commitment(Finality::Newest))
            .await;
        match height {
            Ok(height) => newest = newest.max(Some(height)),
            Err(error) => failure = ChainError::from_client(endpoint.name(), &error),
        }
    }
    newest.ok_or(failure)
}

/// Of the first endpoint that answers.
pub async fn finalized_height(
    endpoints: &Endpoints,
    genesis_hash: &Hash,
) -> Result<u64, ChainError> {
    let mut failure = no_endpoint();
    for endpoint in endpoints.for_background() {
        let height = async {
            endpoint.look_up_chain(genesis_hash).await?;
            endpoint.finalized_height().await
        };
        match height.await {
            Ok(height) => return Ok(height),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

pub(super) fn no_endpoint() -> ChainError {
    ChainError::NoneUsable {
        endpoints: Vec::new(),
    }
}
