//! Builds and signs one mint transaction: pure.

use solana_sdk::hash::Hash;
use solana_sdk::message::VersionedMessage;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::{Signature, SignerError};
use solana_sdk::transaction::VersionedTransaction;
use uuid::Uuid;

use crate::chain::MintSigner;
use crate::domain::signed_bytes::{self, InvalidTransaction};
use crate::domain::{
    ComputePlan, Hash32, InvalidMessage, Memo, MintNumber, Packed, TransactionTerms, instructions,
    root_of,
};

/// A packed transaction as it is simulated.
pub(super) struct Planned {
    pub message: VersionedMessage,
    pub compute: ComputePlan,
    pub merkle_root: Hash32,
}

/// The message of a packed transaction; `leaves` are the readings' leaf hashes.
pub(super) fn message_of(
    packed: &Packed,
    leaves: &mut [(Uuid, Hash32)],
    number: MintNumber,
    mint: &Pubkey,
    signer: &MintSigner,
    terms: TransactionTerms,
) -> Result<Planned, SignError> {
    let root = root_of(leaves);
    let memo = Memo::new(number, root);
    let built = instructions(
        &packed.payments,
        mint,
        &signer.authority(),
        &signer.fee_payer(),
        &memo,
        terms,
    );
    Ok(Planned {
        message: built.compile(&signer.fee_payer())?,
        compute: built.compute,
        merkle_root: root,
    })
}

/// Signs; gives the signature and the signed bytes.
pub(super) fn sign(
    mut message: VersionedMessage,
    blockhash: Hash,
    signer: &MintSigner,
) -> Result<(Signature, Vec<u8>), SignError> {
    message.set_recent_blockhash(blockhash);
    let transaction = VersionedTransaction::try_new(message, &signer.keypairs())?;
    let signature = transaction.signatures[0];
    let signed_bytes = signed_bytes::encode(&transaction)?;
    Ok((signature, signed_bytes))
}

/// None of these happens with keys that were loaded and numbers from the ledger; all leave nothing behind.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("the transaction could not be signed: {0}")]
    Signer(#[from] SignerError),
    #[error("the transaction could not be compiled: {0}")]
    Message(#[from] InvalidMessage),
    #[error("the transaction could not be encoded: {0}")]
    Encoding(#[from] InvalidTransaction),
}
