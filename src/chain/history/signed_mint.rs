//! Derives what a transaction minted from its own signed bytes and a list that names its signature.
//!
//! Invariant: a signature is valid for one message only. So when an endpoint lists the signature without an error, the bytes that
//! carry it are what was executed, and need not be read from the chain again: one call lists a thousand transactions.

use solana_sdk::pubkey::Pubkey;
use solana_sdk::transaction::VersionedTransaction;
use solana_transaction_status::option_serializer::OptionSerializer;
use solana_transaction_status::{TransactionStatusMeta, UiTransactionStatusMeta};

use super::address_history::ListedTransaction;
use super::executed_transaction::{ExecutedTransaction, our_memo};
use super::mint_lookup::ChainMint;
use crate::domain::signed_bytes;

/// `None`: the bytes do not carry that signature, or what they do does not follow from them alone. Then the transaction has to be
/// read from the chain.
pub fn mint_of_signed_bytes(
    bytes: &[u8],
    listed: &ListedTransaction,
    mint: &Pubkey,
    authority: &Pubkey,
) -> Option<ChainMint> {
    let transaction: VersionedTransaction = signed_bytes::decode(bytes).ok()?;
    if listed.failed || transaction.signatures.first() != Some(&listed.signature.signature()) {
        return None;
    }
    if !transaction.verify_with_results().iter().all(|valid| *valid) {
        return None;
    }
    let mut unknown: UiTransactionStatusMeta = TransactionStatusMeta::default().into();
    unknown.inner_instructions = OptionSerializer::None;
    let executed = ExecutedTransaction::decode(&transaction, &unknown)?;
    if !executed.is_complete() {
        return None;
    }
    let memos = executed.memos();
    Some(ChainMint {
        signature: listed.signature,
        slot: listed.slot,
        block_time: None,
        failed: false,
        memo: our_memo(&memos),
        raw_memo: (!memos.is_empty()).then(|| memos.join("; ")),
        payments: executed.mints(mint, authority),
        // The bytes name accounts only.
        owners: Vec::new(),
        // Only a block shows what was charged; the audit compares no fees.
        fee_lamports: 0,
    })
}
