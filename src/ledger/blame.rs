//! Which readings made a transaction fail: pure.

use solana_sdk::instruction::InstructionError;
use solana_sdk::message::Message;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::transaction::TransactionError;
use spl_token_interface::error::TokenError;
use uuid::Uuid;

use crate::domain::Wallet;

/// The readings whose token account the failed payment touches; empty when the error names no instruction, or one that is no
/// payment, or is the mint's fault, or the compute limit's, which was ours to ask for. Creating an account fails for what the fee payer lacks, which is no reading's fault.
pub fn readings_to_blame(
    message: &Message,
    error: &TransactionError,
    mint: &Pubkey,
    readings: &[(Uuid, Wallet)],
) -> Vec<Uuid> {
    let TransactionError::InstructionError(index, cause) = error else {
        return Vec::new();
    };
    if is_the_mints_fault(error) || ran_out_of_compute_units(cause) {
        return Vec::new();
    }
    let Some(instruction) = message.instructions.get(usize::from(*index)) else {
        return Vec::new();
    };
    let program = message
        .account_keys
        .get(usize::from(instruction.program_id_index));
    if program != Some(&spl_token_interface::ID) {
        return Vec::new();
    }
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

/// A program that is stopped in mid-run for want of units fails to complete; one that asks the runtime is told.
fn ran_out_of_compute_units(cause: &InstructionError) -> bool {
    matches!(
        cause,
        InstructionError::ComputationalBudgetExceeded | InstructionError::ProgramFailedToComplete
    )
}

/// Whether a payment failed because the mint is not ours to mint any more: no reading could be paid.
pub fn is_the_mints_fault(error: &TransactionError) -> bool {
    let TransactionError::InstructionError(_, InstructionError::Custom(code)) = error else {
        return false;
    };
    [
        TokenError::InvalidMint,
        TokenError::OwnerMismatch,
        TokenError::FixedSupply,
    ]
    .into_iter()
    .any(|fault| fault as u32 == *code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{BaseUnits, ComputeUnitPrice, Memo, Payment, instructions};

    #[test]
    fn a_payment_is_its_wallets_fault_and_an_account_creation_nobodys() {
        let (mint, payer) = (Pubkey::new_unique(), Pubkey::new_unique());
        let wallets = [1, 2].map(|byte| Wallet::from_stored([byte; 32]));
        let payments = wallets.map(|wallet| Payment {
            wallet,
            base_units: BaseUnits::new(1),
            create_account: true,
        });
        let memo = Memo::new(1, [0; 32]).unwrap();
        let readings = wallets.map(|wallet| (Uuid::now_v7(), wallet));
        // Compute limit, price if there is one, then create and pay wallet by wallet, then the memo.
        for (price, shift) in [(0, 0), (5_000, 1)] {
            let price = ComputeUnitPrice::from_micro_lamports(price);
            let built = instructions(&payments, &mint, &payer, &payer, &memo, price);
            let message = Message::new(&built.list, Some(&payer));
            let blamed = |index, error| {
                let error = TransactionError::InstructionError(index, error);
                readings_to_blame(&message, &error, &mint, &readings)
            };
            let refused = || InstructionError::Custom(1);
            assert_eq!(blamed(2 + shift, refused()), [readings[0].0]);
            assert_eq!(blamed(4 + shift, refused()), [readings[1].0]);
            for nobodys in [0, shift, 1 + shift, 3 + shift, 5 + shift, 9] {
                let blamed = blamed(nobodys, refused());
                assert!(blamed.is_empty(), "instruction {nobodys}");
            }
            for too_little in [
                InstructionError::ComputationalBudgetExceeded,
                InstructionError::ProgramFailedToComplete,
            ] {
                assert!(blamed(2 + shift, too_little).is_empty());
            }
        }
        let none = ComputeUnitPrice::ZERO;
        let built = instructions(&payments, &mint, &payer, &payer, &memo, none);
        let message = Message::new(&built.list, Some(&payer));
        for code in [2, 4, 5] {
            let of_the_mint = TransactionError::InstructionError(2, InstructionError::Custom(code));
            assert!(readings_to_blame(&message, &of_the_mint, &mint, &readings).is_empty());
        }
        let of_the_payer = TransactionError::InsufficientFundsForFee;
        assert!(readings_to_blame(&message, &of_the_payer, &mint, &readings).is_empty());
    }
}
