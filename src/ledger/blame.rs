//! Which readings made a transaction fail: pure.

use solana_sdk::message::Message;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::transaction::TransactionError;
use uuid::Uuid;

use crate::domain::Wallet;

/// The readings whose wallet or token account the failed instruction touches; empty when the error names no instruction, or
/// one that belongs to no wallet.
pub fn readings_to_blame(
    message: &Message,
    error: &TransactionError,
    mint: &Pubkey,
    readings: &[(Uuid, Wallet)],
) -> Vec<Uuid> {
    let TransactionError::InstructionError(index, _) = error else {
        return Vec::new();
    };
    let Some(instruction) = message.instructions.get(usize::from(*index)) else {
        return Vec::new();
    };
    let touched: Vec<Pubkey> = instruction
        .accounts
        .iter()
        .filter_map(|account| message.account_keys.get(usize::from(*account)).copied())
        .collect();
    readings
        .iter()
        .filter(|(_, wallet)| touched.contains(&wallet.token_account(mint)))
        .map(|(id, _)| *id)
        .collect()
}
