//! What one transaction on chain paid: read from its own bytes, never from a node's interpretation of them.
//!
//! Invariant: a transaction that landed with an error paid nothing; one whose bytes cannot be decoded is an error, never a
//! transaction that paid nothing.

use std::time::Duration;

use serde_json::json;
use solana_client::client_error::Result as ClientResult;
use solana_client::rpc_config::RpcTransactionConfig;
use solana_client::rpc_request::RpcRequest;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signature;
use solana_sdk::transaction::VersionedTransaction;
use solana_transaction_status::{
    EncodedConfirmedTransactionWithStatusMeta, UiTransactionEncoding, UiTransactionStatusMeta,
};

use super::address_history::repeated;
use super::executed_transaction::{ExecutedTransaction, our_memo};
use super::{ChainError, Endpoint};
use crate::domain::{BaseUnits, Memo};

/// Newest transaction format that is understood here: one that nodes know and we do not would be an error, not a gap.
const NEWEST_VERSION: u8 = 1;
/// A node may list a signature a moment before it can show the transaction.
pub(super) const APPEAR_TRIES: u32 = 10;
pub(super) const APPEAR_PAUSE: Duration = Duration::from_millis(300);

/// A transaction that landed, as far as it concerns our mint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainMint {
    pub signature: Signature,
    pub slot: u64,
    /// Seconds since 1970.
    pub block_time: Option<i64>,
    /// It landed with an error.
    pub failed: bool,
    /// Ours, if there is exactly one of ours.
    pub memo: Option<Memo>,
    /// All memos as text, for people.
    pub raw_memo: Option<String>,
    /// Token accounts and what each got, instruction by instruction.
    pub payments: Vec<(Pubkey, BaseUnits)>,
    pub fee_lamports: u64,
}

impl ChainMint {
    /// `None` past 64 bits, which no mint's supply can hold.
    pub fn base_units(&self) -> Option<BaseUnits> {
        BaseUnits::checked_sum(self.payments.iter().map(|(_, base_units)| *base_units))
    }
}

/// Reads a transaction that the endpoint has listed; waits a little for it to appear.
pub async fn mint_of(
    endpoint: &Endpoint,
    signature: &Signature,
    mint: &Pubkey,
    authority: &Pubkey,
    commitment: CommitmentConfig,
) -> Result<ChainMint, ChainError> {
    for _ in 1..APPEAR_TRIES {
        if let Some(found) = find_mint(endpoint, signature, mint, authority, commitment).await? {
            return Ok(found);
        }
        tokio::time::sleep(APPEAR_PAUSE).await;
    }
    find_mint(endpoint, signature, mint, authority, commitment)
        .await?
        .ok_or_else(|| ChainError::Unusable {
            endpoint: endpoint.name().to_owned(),
            reason: format!("it lists {signature} but does not show that transaction"),
        })
}

/// Looks once. `None` says only that this endpoint does not show it now.
pub async fn find_mint(
    endpoint: &Endpoint,
    signature: &Signature,
    mint: &Pubkey,
    authority: &Pubkey,
    commitment: CommitmentConfig,
) -> Result<Option<ChainMint>, ChainError> {
    let found = find_transaction(endpoint, signature, mint, authority, commitment).await?;
    Ok(found.map(|(mint, _)| mint))
}

/// The same with the transaction itself.
pub async fn find_transaction(
    endpoint: &Endpoint,
    signature: &Signature,
    mint: &Pubkey,
    authority: &Pubkey,
    commitment: CommitmentConfig,
) -> Result<Option<(ChainMint, VersionedTransaction)>, ChainError> {
    let Some(shown) = shown(endpoint, signature, commitment).await? else {
        return Ok(None);
    };
    let executed = shown.executed(endpoint)?;
    let failed = shown.meta.err.is_some();
    let memos = executed.memos();
    let found = ChainMint {
        signature: *signature,
        slot: shown.slot,
        block_time: shown.block_time,
        failed,
        memo: our_memo(&memos),
        raw_memo: (!memos.is_empty()).then(|| memos.join("; ")),
        payments: if failed {
            Vec::new()
        } else {
            executed.mints(mint, authority)
        },
        fee_lamports: shown.meta.fee,
    };
    Ok(Some((found, shown.transaction)))
}

/// What an account held before this transaction: nothing, when it did not exist yet. `None` when the endpoint does not show
/// the transaction, or the transaction does not mention the account.
pub(super) async fn lamports_before(
    endpoint: &Endpoint,
    signature: &Signature,
    account: &Pubkey,
    commitment: CommitmentConfig,
) -> Result<Option<u64>, ChainError> {
    let Some(shown) = shown(endpoint, signature, commitment).await? else {
        return Ok(None);
    };
    let position = shown.executed(endpoint)?.position(account);
    Ok(position.and_then(|position| shown.meta.pre_balances.get(position).copied()))
}

/// A transaction as an endpoint shows it.
struct Shown {
    slot: u64,
    block_time: Option<i64>,
    transaction: VersionedTransaction,
    meta: UiTransactionStatusMeta,
}

impl Shown {
    fn executed(&self, endpoint: &Endpoint) -> Result<ExecutedTransaction, ChainError> {
        ExecutedTransaction::read(&self.transaction, &self.meta).ok_or_else(|| {
            ChainError::Unusable {
                endpoint: endpoint.name().to_owned(),
                reason: format!(
                    "transaction {} has instructions or addresses that cannot be decoded",
                    self.transaction.signatures[0]
                ),
            }
        })
    }
}

async fn shown(
    endpoint: &Endpoint,
    signature: &Signature,
    commitment: CommitmentConfig,
) -> Result<Option<Shown>, ChainError> {
    let config = RpcTransactionConfig {
        encoding: Some(UiTransactionEncoding::Base64),
        commitment: Some(commitment),
        max_supported_transaction_version: Some(NEWEST_VERSION),
    };
    let parameters = json!([signature.to_string(), config]);
    let ask = || async {
        let answer: ClientResult<Option<EncodedConfirmedTransactionWithStatusMeta>> = endpoint
            .rpc()
            .send(RpcRequest::GetTransaction, parameters.clone())
            .await;
        answer.map_err(|error| ChainError::from_client(endpoint.name(), &error))
    };
    let found = repeated(ask).await?;
    let Some(found) = found else {
        return Ok(None);
    };
    let unusable = |reason: &str| ChainError::Unusable {
        endpoint: endpoint.name().to_owned(),
        reason: format!("transaction {signature} {reason}"),
    };
    let transaction = found
        .transaction
        .transaction
        .decode()
        .ok_or_else(|| unusable("cannot be decoded"))?;
    if transaction.signatures.first() != Some(signature) {
        return Err(unusable("was answered with another one"));
    }
    let meta = found
        .transaction
        .meta
        .ok_or_else(|| unusable("comes without its outcome"))?;
    Ok(Some(Shown {
        slot: found.slot,
        block_time: found.block_time,
        transaction,
        meta,
    }))
}
