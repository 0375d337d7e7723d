//! Looks up how much one transaction minted of our mint.
//!
//! Invariant: a transaction that landed with an error minted nothing; one whose bytes cannot be decoded is an error, never a
//! transaction that minted nothing.

use solana_sdk::pubkey::Pubkey;
use solana_sdk::transaction::VersionedTransaction;

use super::address_history::ListedTransaction;
use super::call_retry::until_shown;
use super::executed_transaction::our_memo;
use super::shown_transaction;
use crate::chain::commitment::Finality;
use crate::chain::endpoints::Endpoint;
use crate::chain::error::ChainError;
use crate::chain::error_reason::UnusableAnswer;
use crate::domain::{BaseUnits, Memo, TxSignature};

/// A transaction that landed, as far as it concerns our mint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainMint {
    pub signature: TxSignature,
    pub slot: u64,
    /// Seconds since 1970.
    pub block_time: Option<i64>,
    /// It landed with an error.
    pub failed: bool,
    /// Ours, if there is exactly one of ours.
    pub memo: Option<Memo>,
    /// All memos as text.
    pub raw_memo: Option<String>,
    /// Token accounts and what each received, instruction by instruction.
    pub payments: Vec<(Pubkey, BaseUnits)>,
    /// Token accounts of our mint and their owners after the transaction, as far as they are shown.
    pub owners: Vec<(Pubkey, Pubkey)>,
    pub fee_lamports: u64,
}

impl ChainMint {
    /// `None` past 64 bits, which no mint's supply can hold.
    pub fn base_units(&self) -> Option<BaseUnits> {
        BaseUnits::checked_sum(self.payments.iter().map(|(_, base_units)| *base_units))
    }
}

/// Looks up, through one endpoint and at the requested finality, what transactions minted of a mint by an authority's signature.
#[derive(Clone, Copy)]
pub struct MintLookup<'a> {
    pub endpoint: &'a Endpoint,
    pub mint: &'a Pubkey,
    pub authority: &'a Pubkey,
    pub finality: Finality,
}

impl MintLookup<'_> {
    /// Reads a transaction that the endpoint has listed; waits a few seconds until the endpoint shows it. An error about the
    /// transaction names its slot.
    pub async fn read_listed(&self, listed: &ListedTransaction) -> Result<ChainMint, ChainError> {
        let signature = listed.signature;
        let found = until_shown(|| self.find(signature)).await;
        let found = found.map_err(|error| match error {
            ChainError::Unusable {
                endpoint,
                reason: UnusableAnswer::Transaction { problem, .. },
            } => ChainError::Unusable {
                endpoint,
                reason: UnusableAnswer::Transaction {
                    signature,
                    slot: Some(listed.slot),
                    problem,
                },
            },
            error => error,
        })?;
        found.ok_or_else(|| {
            self.endpoint
                .unusable(UnusableAnswer::TransactionNotShown(signature))
        })
    }

    /// Queries once. `None` proves only that this endpoint does not show it now.
    pub async fn find(&self, signature: TxSignature) -> Result<Option<ChainMint>, ChainError> {
        let found = self.find_with_transaction(signature).await?;
        Ok(found.map(|(mint, _)| mint))
    }

    /// Like [`Self::find`], with the transaction itself.
    pub async fn find_with_transaction(
        &self,
        signature: TxSignature,
    ) -> Result<Option<(ChainMint, VersionedTransaction)>, ChainError> {
        let shown = shown_transaction::fetch(self.endpoint, signature, self.finality).await?;
        let Some(shown) = shown else {
            return Ok(None);
        };
        let executed = shown.executed(self.endpoint, signature)?;
        let failed = shown.failure.is_some();
        let memos = executed.memos();
        let found = ChainMint {
            signature,
            slot: shown.slot,
            block_time: shown.block_time,
            failed,
            memo: our_memo(&memos),
            raw_memo: (!memos.is_empty()).then(|| memos.join("; ")),
            payments: if failed {
                Vec::new()
            } else {
                executed.mints(self.mint, self.authority)
            },
            owners: executed.owners(self.mint, &shown.meta),
            fee_lamports: shown.meta.fee,
        };
        Ok(Some((found, shown.transaction)))
    }
}
