//! Every transaction that mentions an address, newest first, as an endpoint lists them.
//!
//! Invariant: a history that was read to its end without an error has listed everything between the head and its floor that the
//! endpoint knows as final as asked for. A list that merely stops does not count as complete: a page can be empty because the
//! signature that it should continue from vanished in a fork, or because another node of a pool answered.

use serde::Deserialize;
use serde_json::{Value, json};
use solana_client::rpc_config::RpcSignaturesForAddressConfig;
use solana_client::rpc_request::RpcRequest;
use solana_sdk::pubkey::Pubkey;
use solana_transaction_status::TransactionConfirmationStatus;

use super::call_retry::{until_shown, while_unanswered};
use crate::chain::commitment::{Consensus, Finality};
use crate::chain::endpoints::Endpoint;
use crate::chain::error::ChainError;
use crate::chain::error_reason::UnusableAnswer;
use crate::chain::transaction_failure::TransactionFailure;
use crate::domain::TxSignature;

/// What `getSignaturesForAddress` returns at most.
const SIGNATURES_PER_PAGE: usize = 1_000;

/// One transaction that mentions the address. Anyone can mention any address: this alone proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedTransaction {
    pub signature: TxSignature,
    pub slot: u64,
    /// It landed with an error: it changed nothing but its fee.
    pub failed: bool,
}

/// An entry as the endpoint lists it. Its error may be one that the client crate cannot name.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    signature: String,
    slot: u64,
    #[serde(default)]
    err: Value,
    #[serde(default)]
    confirmation_status: Option<TransactionConfirmationStatus>,
}

/// The part of a history that is read.
#[derive(Clone, Copy, Debug)]
pub struct HistoryRange {
    /// Not listed any more, nor is anything below it.
    pub floor_slot: u64,
    /// The endpoint must have reached it, as final as asked for: one that lags reports it instead of showing a history that ends too
    /// early.
    pub head_slot: u64,
    pub finality: Finality,
}

/// The history of an address, read page by page from the head down to the floor.
pub struct AddressHistory<'a> {
    endpoint: &'a Endpoint,
    address: Pubkey,
    range: HistoryRange,
    before: Option<ListedTransaction>,
    ended: bool,
}

impl<'a> AddressHistory<'a> {
    pub fn new(endpoint: &'a Endpoint, address: Pubkey, range: HistoryRange) -> Self {
        AddressHistory {
            endpoint,
            address,
            range,
            before: None,
            ended: false,
        }
    }

    /// The next page, from which transactions that are less final are left out: it may be empty. `None` when the floor is
    /// reached.
    pub async fn next_page(&mut self) -> Result<Option<Vec<ListedTransaction>>, ChainError> {
        if self.ended {
            return Ok(None);
        }
        let listed = while_unanswered(|| self.list()).await?;
        let mut page = Vec::with_capacity(listed.len());
        for entry in &listed {
            let transaction = self.read(entry)?;
            self.check_order(&transaction)?;
            self.before = Some(transaction);
            if transaction.slot <= self.range.floor_slot {
                self.ended = true;
                break;
            }
            let status = entry.confirmation_status.as_ref();
            if reaches(status, self.range.finality, self.endpoint.consensus()) {
                page.push(transaction);
            }
        }
        if listed.is_empty() {
            self.check_end().await?;
            self.ended = true;
        }
        Ok(Some(page))
    }

    async fn list(&self) -> Result<Vec<Entry>, ChainError> {
        let config = RpcSignaturesForAddressConfig {
            before: self
                .before
                .map(|transaction| transaction.signature.to_string()),
            until: None,
            limit: Some(SIGNATURES_PER_PAGE),
            commitment: Some(self.endpoint.commitment(self.range.finality)),
            min_context_slot: Some(self.range.head_slot),
        };
        let parameters = json!([self.address.to_string(), config]);
        let listed = self
            .endpoint
            .background()
            .send(RpcRequest::GetSignaturesForAddress, parameters);
        self.endpoint.answer(listed.await)
    }

    fn read(&self, entry: &Entry) -> Result<ListedTransaction, ChainError> {
        let signature = entry.signature.parse().map_err(|_| {
            self.endpoint
                .unusable(UnusableAnswer::NoSignature(entry.signature.clone()))
        })?;
        Ok(ListedTransaction {
            signature,
            slot: entry.slot,
            failed: TransactionFailure::read(&entry.err).is_some(),
        })
    }

    /// An endpoint that starts from the head again at every page would make the scan endless.
    fn check_order(&self, next: &ListedTransaction) -> Result<(), ChainError> {
        match self.before {
            Some(before) if next.slot > before.slot || next.signature == before.signature => {
                Err(self.endpoint.unusable(UnusableAnswer::HistoryOrder {
                    from_slot: before.slot,
                    to_slot: next.slot,
                }))
            }
            _ => Ok(()),
        }
    }

    /// Nothing follows `before`: accepted only if the endpoint still shows that transaction's status. A node lists a
    /// transaction some moments before it shows its status, so the query is repeated.
    async fn check_end(&self) -> Result<(), ChainError> {
        let Some(before) = self.before else {
            return Ok(());
        };
        let shown = until_shown(async || {
            let shown = while_unanswered(|| self.shows_status(before.signature)).await?;
            Ok(shown.then_some(()))
        });
        shown.await?.ok_or_else(|| {
            self.endpoint
                .unusable(UnusableAnswer::HistoryBreaksOff(before.signature))
        })
    }

    async fn shows_status(&self, signature: TxSignature) -> Result<bool, ChainError> {
        let statuses = self
            .endpoint
            .background()
            .get_signature_statuses_with_history(&[signature.signature()])
            .await;
        let statuses = self.endpoint.answer(statuses)?.value;
        Ok(statuses.iter().any(Option::is_some))
    }
}

/// Whether an entry is as final as asked for: some endpoints list everything and leave the check to the caller.
fn reaches(
    status: Option<&TransactionConfirmationStatus>,
    finality: Finality,
    consensus: Consensus,
) -> bool {
    match status {
        Some(TransactionConfirmationStatus::Processed) => finality == Finality::Newest,
        Some(TransactionConfirmationStatus::Confirmed) => {
            finality != Finality::Final || consensus == Consensus::Alpenglow
        }
        Some(TransactionConfirmationStatus::Finalized) | None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TransactionConfirmationStatus::{Confirmed, Finalized, Processed};

    #[test]
    fn only_what_is_final_enough_is_listed() {
        let (tower, alpenglow) = (Consensus::Tower, Consensus::Alpenglow);
        let cases = [
            (Some(Processed), Finality::Confirmed, tower, false),
            (Some(Confirmed), Finality::Confirmed, tower, true),
            (Some(Finalized), Finality::Confirmed, tower, true),
            (Some(Processed), Finality::Final, alpenglow, false),
            (Some(Confirmed), Finality::Final, tower, false),
            (Some(Confirmed), Finality::Final, Consensus::Unknown, false),
            (Some(Confirmed), Finality::Final, alpenglow, true),
            (Some(Finalized), Finality::Final, tower, true),
            // Nodes that give no status list only what has the requested commitment.
            (None, Finality::Final, tower, true),
        ];
        for (status, finality, consensus, expected) in cases {
            assert_eq!(
                reaches(status.as_ref(), finality, consensus),
                expected,
                "{status:?} for {finality:?} under {consensus:?}"
            );
        }
    }
}
