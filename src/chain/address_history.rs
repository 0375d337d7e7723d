//! What an address was mentioned in, newest first: the chain's own list of our authority's transactions.
//!
//! Invariant: a walk that ends without an error has listed everything between the head and its floor that the endpoint
//! knows at the commitment asked for. A list that merely stops is not believed: a page can come back empty because the
//! signature it should go on from vanished in a fork, or because another node of a pool answered.

use std::str::FromStr;
use std::time::Duration;

use serde_json::json;
use solana_client::rpc_config::RpcSignaturesForAddressConfig;
use solana_client::rpc_request::RpcRequest;
use solana_client::rpc_response::RpcConfirmedTransactionStatusWithSignature;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signature;
use solana_transaction_status::TransactionConfirmationStatus;

use super::{ChainError, Endpoint};

/// What `getSignaturesForAddress` gives at most.
const SIGNATURES_PER_PAGE: usize = 1_000;
/// A call that got no answer is repeated so often: a walk of many pages is not given up for one lost packet.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// One transaction that mentions the address. Anybody can mention any address: this alone means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedTransaction {
    pub signature: Signature,
    pub slot: u64,
    /// It landed with an error: it changed nothing but its fee.
    pub failed: bool,
}

/// A walk through the history of an address, page by page, from the head down to a slot.
pub struct HistoryWalk<'a> {
    endpoint: &'a Endpoint,
    address: Pubkey,
    floor_slot: u64,
    head_slot: u64,
    commitment: CommitmentConfig,
    before: Option<ListedTransaction>,
    ended: bool,
}

/// Begins a walk. `floor_slot` itself is not listed any more. The endpoint must have reached `head_slot` at this commitment:
/// one that lags says so instead of showing a history that ends too early.
pub fn walk_history(
    endpoint: &Endpoint,
    address: Pubkey,
    floor_slot: u64,
    head_slot: u64,
    commitment: CommitmentConfig,
) -> HistoryWalk<'_> {
    HistoryWalk {
        endpoint,
        address,
        floor_slot,
        head_slot,
        commitment,
        before: None,
        ended: false,
    }
}

impl HistoryWalk<'_> {
    /// The next page, which may be empty of what the commitment allows; `None` when the floor is reached.
    pub async fn next_page(&mut self) -> Result<Option<Vec<ListedTransaction>>, ChainError> {
        if self.ended {
            return Ok(None);
        }
        let listed = repeated(|| self.list()).await?;
        let mut page = Vec::with_capacity(listed.len());
        for entry in &listed {
            let transaction = self.read(entry)?;
            self.check_order(&transaction)?;
            self.before = Some(transaction);
            if transaction.slot <= self.floor_slot {
                self.ended = true;
                break;
            }
            if reaches(entry.confirmation_status.as_ref(), self.commitment) {
                page.push(transaction);
            }
        }
        if listed.is_empty() {
            self.check_end().await?;
            self.ended = true;
        }
        Ok(Some(page))
    }

    async fn list(&self) -> Result<Vec<RpcConfirmedTransactionStatusWithSignature>, ChainError> {
        let config = RpcSignaturesForAddressConfig {
            before: self
                .before
                .map(|transaction| transaction.signature.to_string()),
            until: None,
            limit: Some(SIGNATURES_PER_PAGE),
            commitment: Some(self.commitment),
            min_context_slot: Some(self.head_slot),
        };
        self.endpoint
            .rpc()
            .send(
                RpcRequest::GetSignaturesForAddress,
                json!([self.address.to_string(), config]),
            )
            .await
            .map_err(|error| ChainError::from_client(self.endpoint.name(), &error))
    }

    fn read(
        &self,
        entry: &RpcConfirmedTransactionStatusWithSignature,
    ) -> Result<ListedTransaction, ChainError> {
        let signature = Signature::from_str(&entry.signature)
            .map_err(|_| self.unusable(format!("{} is listed, no signature", entry.signature)))?;
        Ok(ListedTransaction {
            signature,
            slot: entry.slot,
            failed: entry.err.is_some(),
        })
    }

    /// An endpoint that starts from the head again at every page would keep us walking for ever.
    fn check_order(&self, next: &ListedTransaction) -> Result<(), ChainError> {
        match self.before {
            Some(before) if next.slot > before.slot || next.signature == before.signature => {
                Err(self.unusable(format!(
                    "its list goes from slot {} up to {}, newest must come first",
                    before.slot, next.slot
                )))
            }
            _ => Ok(()),
        }
    }

    /// Nothing came after `before`: believed only if the endpoint still knows that one. A node lists a transaction some
    /// moments before it tells its status, so it is asked more than once.
    async fn check_end(&self) -> Result<(), ChainError> {
        let Some(before) = self.before else {
            return Ok(());
        };
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            if repeated(|| self.knows(before.signature)).await? {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        if repeated(|| self.knows(before.signature)).await? {
            return Ok(());
        }
        Err(self.unusable(format!(
            "its list breaks off after {}, which it does not know any more",
            before.signature
        )))
    }

    async fn knows(&self, signature: Signature) -> Result<bool, ChainError> {
        let statuses = self
            .endpoint
            .rpc()
            .get_signature_statuses_with_history(&[signature])
            .await
            .map_err(|error| ChainError::from_client(self.endpoint.name(), &error))?
            .value;
        Ok(statuses.iter().any(Option::is_some))
    }

    fn unusable(&self, reason: String) -> ChainError {
        ChainError::Unusable {
            endpoint: self.endpoint.name().to_owned(),
            reason,
        }
    }
}

/// Some endpoints list everything and leave it to us to look at the commitment.
fn reaches(status: Option<&TransactionConfirmationStatus>, commitment: CommitmentConfig) -> bool {
    match status {
        Some(TransactionConfirmationStatus::Processed) => false,
        Some(TransactionConfirmationStatus::Confirmed) => !commitment.is_finalized(),
        Some(TransactionConfirmationStatus::Finalized) | None => true,
    }
}

/// Asks again, after growing pauses, while there is no answer.
pub(super) async fn repeated<T, Fut>(mut ask: impl FnMut() -> Fut) -> Result<T, ChainError>
where
    Fut: Future<Output = Result<T, ChainError>>,
{
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match ask().await {
            Err(ChainError::Unreachable { .. }) => tokio::time::sleep(pause).await,
            answer => return answer,
        }
        pause *= 2;
    }
    ask().await
}

impl Endpoint {
    /// The oldest slot whose block it still has. History before it is not there, which proves nothing about it.
    pub async fn first_available_slot(&self) -> Result<u64, ChainError> {
        self.rpc()
            .get_first_available_block()
            .await
            .map_err(|error| ChainError::from_client(self.name(), &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TransactionConfirmationStatus::{Confirmed, Finalized, Processed};

    #[test]
    fn only_what_the_commitment_allows_is_listed() {
        let (confirmed, finalized) = (CommitmentConfig::confirmed(), CommitmentConfig::finalized());
        let cases = [
            (Some(Processed), confirmed, false),
            (Some(Confirmed), confirmed, true),
            (Some(Finalized), confirmed, true),
            (Some(Processed), finalized, false),
            (Some(Confirmed), finalized, false),
            (Some(Finalized), finalized, true),
            // Nodes that say nothing list only what they were asked for.
            (None, finalized, true),
        ];
        for (status, commitment, expected) in cases {
            assert_eq!(
                reaches(status.as_ref(), commitment),
                expected,
                "{status:?} for {commitment:?}"
            );
        }
    }

    #[tokio::test]
    async fn no_answer_is_asked_for_again_and_an_answer_is_not() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let silent = || ChainError::Unreachable {
            endpoint: "rpc-1".to_owned(),
            reason: "time-out".to_owned(),
        };
        let asked = AtomicU32::new(0);
        let answer = repeated(async || match asked.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(silent()),
            _ => Ok(7),
        })
        .await;
        assert_eq!(answer.unwrap(), 7);
        assert_eq!(asked.load(Ordering::Relaxed), 3);

        let asked = AtomicU32::new(0);
        let answer = repeated(async || -> Result<(), ChainError> {
            asked.fetch_add(1, Ordering::Relaxed);
            Err(silent())
        })
        .await;
        assert!(answer.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), TRIES);

        let asked = AtomicU32::new(0);
        let answer = repeated(async || -> Result<(), ChainError> {
            asked.fetch_add(1, Ordering::Relaxed);
            Err(ChainError::Unusable {
                endpoint: "rpc-1".to_owned(),
                reason: "nonsense".to_owned(),
            })
        })
        .await;
        assert!(answer.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
