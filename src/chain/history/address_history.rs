//! Every transaction that mentions an address, newest first, as an endpoint lists them.
//!
//! Invariant: a history that was read to its end without an error has listed everything between the head and its floor that the
//! endpoint knows at the requested finality. A list that merely stops does not count as complete: a page can be empty because the
//! signature that it should continue from vanished in a fork, or because another node of a pool answered.
//!
//! A history can be read in several sittings: [`AddressHistory::resume`] continues below a transaction that was listed before, on
//! any endpoint that shows it.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Value, json};
use solana_client::rpc_config::RpcSignaturesForAddressConfig;
use solana_client::rpc_request::RpcRequest;
use solana_sdk::pubkey::Pubkey;

use super::call_retry::{until_shown, while_unanswered};
use crate::chain::commitment::{Consensus, Finality};
use crate::chain::endpoints::Endpoint;
use crate::chain::error::ChainError;
use crate::chain::error_reason::UnusableAnswer;
use crate::chain::transaction_failure::TransactionFailure;
use crate::domain::TxSignature;

/// Entries that `getSignaturesForAddress` returns at most.
const SIGNATURES_PER_PAGE: usize = 1_000;
/// Nodes list a block's transactions a little after they report it finalized: what was listed counts as complete only up to this
/// many slots below the finalized slot that was read before the list. No call reports this lag.
pub const INDEXING_LAG_SLOTS: u64 = 32;

/// One transaction that mentions the address. Anyone can mention any address: this alone proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTransaction {
    pub signature: TxSignature,
    pub slot: u64,
    /// It landed with an error: it changed nothing but its fee.
    pub failed: bool,
    /// All memos as the node shows them: each with its length in brackets in front, joined by semicolons.
    pub memo: Option<String>,
}

/// The end of what was read of a history: the next page begins below this transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryCursor {
    pub signature: TxSignature,
    pub slot: u64,
}

/// An entry as the endpoint answers it. Errors are not parsed: any error means failed, even one that no client knows yet.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    signature: String,
    slot: u64,
    #[serde(default)]
    err: Value,
    #[serde(default)]
    memo: Option<String>,
    #[serde(default)]
    confirmation_status: Option<String>,
}

/// The part of a history that is read.
#[derive(Clone, Copy, Debug)]
pub struct HistoryRange {
    /// Not listed any more, nor is anything below it.
    pub floor_slot: u64,
    /// The endpoint must have reached it at the requested finality: one that lags reports that instead of showing a history that
    /// ends too early.
    pub head_slot: u64,
    pub finality: Finality,
}

/// The history of an address, read page by page from the head down to the floor.
pub struct AddressHistory<'a> {
    endpoint: &'a Endpoint,
    address: Pubkey,
    range: HistoryRange,
    before: Option<HistoryCursor>,
    /// Where another sitting goes on: everything above is listed, on whatever endpoint.
    resume: Option<HistoryCursor>,
    /// The signatures of the last page: some endpoints list the seam of two pages in both.
    last_page: HashSet<TxSignature>,
    ended: bool,
}

impl<'a> AddressHistory<'a> {
    pub fn new(endpoint: &'a Endpoint, address: Pubkey, range: HistoryRange) -> Self {
        AddressHistory::resume(endpoint, address, range, None)
    }

    /// Goes on below `before`, which was listed before, by this endpoint or another one.
    pub fn resume(
        endpoint: &'a Endpoint,
        address: Pubkey,
        range: HistoryRange,
        before: Option<HistoryCursor>,
    ) -> Self {
        AddressHistory {
            endpoint,
            address,
            range,
            before,
            resume: before,
            last_page: before.iter().map(|cursor| cursor.signature).collect(),
            ended: false,
        }
    }

    /// The last transaction that was listed; `None` before the first.
    pub fn cursor(&self) -> Option<HistoryCursor> {
        self.before
    }

    /// Where another sitting begins: above the lowest slot of the last page, whose transactions another endpoint may list in
    /// another order. What it lists again is not new to the caller.
    pub fn resume_cursor(&self) -> Option<HistoryCursor> {
        self.resume
    }

    /// The next page, from which transactions that are less final are left out, and so is what was listed already: it may be
    /// empty. `None` when the floor is reached.
    pub async fn next_page(&mut self) -> Result<Option<Vec<ListedTransaction>>, ChainError> {
        if self.ended {
            return Ok(None);
        }
        let continued_from = self.before;
        let listed = while_unanswered(|| self.list()).await?;
        let mut page = Vec::with_capacity(listed.len());
        let mut in_page = HashSet::with_capacity(listed.len());
        // The last entries of this page: of all, and of those above the lowest slot.
        let (mut lowest, mut above_lowest) = (None::<HistoryCursor>, None);
        for entry in &listed {
            let transaction = self.read(entry)?;
            let signature = transaction.signature;
            if self.last_page.contains(&signature) || !in_page.insert(signature) {
                continue;
            }
            self.check_order(&transaction)?;
            let here = HistoryCursor {
                signature,
                slot: transaction.slot,
            };
            above_lowest = match lowest {
                Some(lowest) if lowest.slot > here.slot => Some(lowest),
                _ => above_lowest,
            };
            lowest = Some(here);
            self.before = Some(here);
            if transaction.slot <= self.range.floor_slot {
                self.ended = true;
                break;
            }
            let status = entry.confirmation_status.as_deref();
            if reaches(status, self.range.finality, self.endpoint.consensus()) {
                page.push(transaction);
            }
        }
        if in_page.is_empty() {
            self.check_repeats(continued_from, &listed)?;
            self.check_end().await?;
            self.ended = true;
        }
        // A page of one slot has nothing above it: without a step below, each sitting would begin with it again.
        self.resume = above_lowest.or(lowest).or(self.resume);
        self.last_page = in_page;
        self.last_page
            .extend(self.before.iter().map(|cursor| cursor.signature));
        Ok(Some(page))
    }

    async fn list(&self) -> Result<Vec<Entry>, ChainError> {
        let config = RpcSignaturesForAddressConfig {
            before: self.before.map(|cursor| cursor.signature.to_string()),
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
            memo: entry.memo.clone(),
        })
    }

    /// Newest must come first.
    fn check_order(&self, next: &ListedTransaction) -> Result<(), ChainError> {
        match self.before {
            Some(before) if next.slot > before.slot => {
                Err(self.endpoint.unusable(UnusableAnswer::HistoryOrder {
                    from_slot: before.slot,
                    to_slot: next.slot,
                }))
            }
            _ => Ok(()),
        }
    }

    /// A page without anything new is the end only if it is empty, or repeats nothing but the transaction that it continues
    /// from. An endpoint that lists a whole page again ignores the cursor, and would hide what is below.
    fn check_repeats(
        &self,
        continued_from: Option<HistoryCursor>,
        listed: &[Entry],
    ) -> Result<(), ChainError> {
        let cursor = continued_from.map(|cursor| cursor.signature.to_string());
        let repeated = listed
            .iter()
            .find(|entry| Some(&entry.signature) != cursor.as_ref());
        match repeated {
            Some(entry) => Err(self
                .endpoint
                .unusable(UnusableAnswer::HistoryRepeats(entry.signature.clone()))),
            None => Ok(()),
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

/// Whether an entry has the requested finality: some endpoints list everything and leave the check to the caller. Nodes that give
/// no status, or one that is not known here, list only what has the requested commitment.
fn reaches(status: Option<&str>, finality: Finality, consensus: Consensus) -> bool {
    match status {
        Some("processed") => finality == Finality::Newest,
        Some("confirmed") => finality != Finality::Final || consensus == Consensus::Alpenglow,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_final_enough_is_listed() {
        let (tower, alpenglow) = (Consensus::Tower, Consensus::Alpenglow);
        let cases = [
            (Some("processed"), Finality::Confirmed, tower, false),
            (Some("confirmed"), Finality::Confirmed, tower, true),
            (Some("finalized"), Finality::Confirmed, tower, true),
            (Some("processed"), Finality::Final, alpenglow, false),
            (Some("confirmed"), Finality::Final, tower, false),
            (
                Some("confirmed"),
                Finality::Final,
                Consensus::Unknown,
                false,
            ),
            (Some("confirmed"), Finality::Final, alpenglow, true),
            (Some("finalized"), Finality::Final, tower, true),
            (None, Finality::Final, tower, true),
        ];
        for (status, finality, consensus, expected) in cases {
            assert_eq!(
                reaches(status, finality, consensus),
                expected,
                "{status:?} for {finality:?} under {consensus:?}"
            );
        }
    }

    #[test]
    fn any_error_of_an_entry_means_failed_and_none_costs_the_list() {
        let listed = json!([
            {"signature": "a", "slot": 3, "err": null, "memo": null, "confirmationStatus": "finalized", "blockTime": 1},
            {"signature": "b", "slot": 2, "err": {"InstructionError": [0, {"BorshIoError": "Unknown"}]}},
            {"signature": "c", "slot": 1, "err": {"InstructionError": [300, {"Custom": 4_294_967_296_u64}]}, "memo": "[2] hi"},
            {"signature": "d", "slot": 1},
        ]);
        let entries: Vec<Entry> = serde_json::from_value(listed).unwrap();
        let failed: Vec<bool> = entries.iter().map(|entry| !entry.err.is_null()).collect();
        assert_eq!(failed, [false, true, true, false]);
        assert_eq!(entries[2].memo.as_deref(), Some("[2] hi"));
    }
}
