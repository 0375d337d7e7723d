//! Reads transactions that an endpoint lists, and separates the one that cannot be read from the endpoint that does not answer.

use crate::chain::{
    ChainError, ChainMint, Endpoints, ListedTransaction, MintLookup, UnusableAnswer,
};

/// A listed transaction, and what it minted.
pub(super) type Read = (ListedTransaction, Result<ChainMint, ChainError>);

/// Reads transactions from the endpoint that lists them.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub endpoints: &'a Endpoints,
    pub genesis_hash: &'a str,
    pub lookup: MintLookup<'a>,
}

impl Reader<'_> {
    /// When the endpoint shows it in no form that this program can read, from the others.
    pub async fn read(self, transaction: ListedTransaction) -> Read {
        let signature = transaction.signature;
        let first = match self.lookup.read_listed(&transaction).await {
            Err(error) if is_about_transaction(&error) => error,
            answer => return (transaction, answer),
        };
        for other in self.endpoints.iter() {
            if other.name() == self.lookup.endpoint.name() {
                continue;
            }
            let lookup = MintLookup {
                endpoint: other,
                ..self.lookup
            };
            if other.check_chain(self.genesis_hash).await.is_ok()
                && let Ok(Some(found)) = lookup.find(signature).await
            {
                return (transaction, Ok(found));
            }
        }
        (transaction, Err(first))
    }
}

impl Reader<'_> {
    /// Whether every endpoint answers that it has no such transaction, although it has the blocks of its slot.
    pub async fn is_absent(self, transaction: &ListedTransaction) -> bool {
        for endpoint in self.endpoints.iter() {
            let lookup = MintLookup {
                endpoint,
                ..self.lookup
            };
            let is_absent = endpoint.check_chain(self.genesis_hash).await.is_ok()
                && matches!(endpoint.first_available_slot().await, Ok(first) if first <= transaction.slot)
                && matches!(lookup.find(transaction.signature).await, Ok(None));
            if !is_absent {
                return false;
            }
        }
        true
    }
}

/// The endpoint answers, and what it answers about this transaction cannot be used: others may be read meanwhile.
pub(super) fn is_about_transaction(error: &ChainError) -> bool {
    matches!(
        error,
        ChainError::Unusable {
            reason: UnusableAnswer::Transaction { .. } | UnusableAnswer::TransactionNotShown(_),
            ..
        }
    )
}
