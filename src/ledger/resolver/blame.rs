//! Decides which readings are to blame for a failed transaction: pure.

use solana_sdk::instruction::InstructionError;
use solana_sdk::message::VersionedMessage;
use solana_sdk::pubkey::Pubkey;
use solana_system_interface::error::SystemError;
use spl_token_interface::error::TokenError;
use uuid::Uuid;

use crate::chain::TransactionFailure;
use crate::domain::Wallet;

/// The cause of a failed transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blame {
    /// These readings: the payment that failed touches their token account.
    Readings(Vec<Uuid>),
    /// No reading: the fee payer lacks money, the mint is no longer ours, or the transaction as a whole could not be run.
    NoReading,
    /// The service: it requested fewer compute units than the transaction took.
    ComputeLimit,
    /// The error does not show it.
    Unknown,
}

/// Decides by the error and the instruction that it names.
pub fn blame(
    message: &VersionedMessage,
    error: &TransactionFailure,
    mint: &Pubkey,
    readings: &[(Uuid, Wallet)],
) -> Blame {
    let Some((index, cause)) = error.instruction() else {
        return match error {
            // It concerns the whole transaction: rent or a fee that the payer lacks, or a temporary condition.
            TransactionFailure::Named(_) => Blame::NoReading,
            TransactionFailure::Unnamed { .. } => Blame::Unknown,
        };
    };
    if cause.is_some_and(ran_out_of_compute_units) {
        return Blame::ComputeLimit;
    }
    if cause.is_some_and(is_fault_of_mint) {
        return Blame::NoReading;
    }
    let Some(instruction) = message.instructions().get(usize::from(index)) else {
        return Blame::Unknown;
    };
    // Mint transactions look up no addresses in tables.
    let keys = message.static_account_keys();
    let program = keys.get(usize::from(instruction.program_id_index));
    if program == Some(&spl_associated_token_account_interface::program::ID)
        && cause.is_some_and(lacks_lamports)
    {
        return Blame::NoReading;
    }
    if program != Some(&spl_token_interface::ID) {
        return Blame::Unknown;
    }
    let touched: Vec<Pubkey> = instruction
        .accounts
        .iter()
        .filter_map(|account| keys.get(usize::from(*account)).copied())
        .collect();
    let to_blame: Vec<Uuid> = readings
        .iter()
        .filter(|(_, wallet)| touched.contains(&wallet.token_account(mint)))
        .map(|(id, _)| *id)
        .collect();
    if to_blame.is_empty() {
        return Blame::Unknown;
    }
    Blame::Readings(to_blame)
}

/// The fee payer could not pay the rent of an account that is created. The system program's own code is passed through by the
/// program that called it.
fn lacks_lamports(cause: &InstructionError) -> bool {
    // An enum's code on chain is its discriminant.
    const LACK: u32 = SystemError::ResultWithNegativeLamports as u32;
    matches!(
        cause,
        InstructionError::Custom(LACK) | InstructionError::InsufficientFunds
    )
}

/// A program that is stopped because its compute units are used up fails to complete; one that queries the runtime gets the
/// budget error.
fn ran_out_of_compute_units(cause: &InstructionError) -> bool {
    matches!(
        cause,
        InstructionError::ComputationalBudgetExceeded | InstructionError::ProgramFailedToComplete
    )
}

/// A payment failed because we no longer control the mint: no reading could be paid.
fn is_fault_of_mint(cause: &InstructionError) -> bool {
    let InstructionError::Custom(code) = cause else {
        return false;
    };
    [
        TokenError::InvalidMint,
        TokenError::OwnerMismatch,
        TokenError::FixedSupply,
    ]
    .into_iter()
    // As above: the discriminant.
    .any(|fault| fault as u32 == *code)
}

#[cfg(test)]
mod tests {
    use solana_sdk::transaction::TransactionError;

    use super::*;
    use crate::domain::{
        BaseUnits, ComputeUnitPrice, Memo, MintNumber, Payment, TransactionFormat,
        TransactionTerms, instructions,
    };

    /// Two readings of two wallets, in a transaction that creates both accounts: in a legacy one compute limit, and price if
    /// there is one, then creation and payment wallet by wallet, then the memo.
    struct Packed {
        message: VersionedMessage,
        mint: Pubkey,
        readings: [(Uuid, Wallet); 2],
        /// Instructions before the first creation.
        shift: u8,
    }

    impl Packed {
        /// In both formats, with and without a price: the number of instructions in front differs.
        fn all() -> [Packed; 4] {
            [
                Packed::new(TransactionFormat::Legacy, 0),
                Packed::new(TransactionFormat::Legacy, 5_000),
                Packed::new(TransactionFormat::V1, 0),
                Packed::new(TransactionFormat::V1, 5_000),
            ]
        }

        fn new(format: TransactionFormat, micro_lamports: u64) -> Packed {
            let (mint, payer) = (Pubkey::new_unique(), Pubkey::new_unique());
            let wallets = [1, 2].map(|byte| Wallet::from_stored([byte; 32]));
            let payments = wallets.map(|wallet| Payment {
                wallet,
                base_units: BaseUnits::new(1),
                create_account: true,
            });
            let memo = Memo::new(MintNumber::from_bytes([0, 0, 0, 0, 0, 1]), [0; 32]);
            let price = ComputeUnitPrice::from_micro_lamports(micro_lamports);
            let terms = TransactionTerms { format, price };
            let built = instructions(&payments, &mint, &payer, &payer, &memo, terms);
            Packed {
                message: built.compile(&payer).unwrap(),
                mint,
                readings: wallets.map(|wallet| (Uuid::now_v7(), wallet)),
                shift: match format {
                    TransactionFormat::Legacy => 1 + u8::from(micro_lamports > 0),
                    TransactionFormat::V1 => 0,
                },
            }
        }

        fn whole(&self, error: TransactionError) -> Blame {
            blame(&self.message, &error.into(), &self.mint, &self.readings)
        }

        fn at(&self, index: u8, cause: InstructionError) -> Blame {
            self.whole(TransactionError::InstructionError(index, cause))
        }

        /// The first wallet's and the second's.
        fn creations(&self) -> [u8; 2] {
            [self.shift, self.shift + 2]
        }

        fn payments(&self) -> [u8; 2] {
            [self.shift + 1, self.shift + 3]
        }

        fn memo(&self) -> u8 {
            self.shift + 4
        }
    }

    #[test]
    fn a_failed_payment_is_blamed_on_the_readings_of_its_wallet() {
        for packed in Packed::all() {
            for (payment, (reading, _)) in packed.payments().into_iter().zip(packed.readings) {
                for cause in [
                    InstructionError::Custom(TokenError::AccountFrozen as u32),
                    InstructionError::Custom(SystemError::ResultWithNegativeLamports as u32),
                    InstructionError::InvalidAccountData,
                ] {
                    assert_eq!(packed.at(payment, cause), Blame::Readings(vec![reading]));
                }
            }
        }
    }

    #[test]
    fn an_error_that_cannot_be_named_is_blamed_by_its_instruction_if_it_names_one() {
        for packed in Packed::all() {
            let blamed = |instruction| {
                let failure = TransactionFailure::Unnamed {
                    instruction,
                    text: "ErrorOf2028".to_owned(),
                };
                blame(&packed.message, &failure, &packed.mint, &packed.readings)
            };
            let [payment, _] = packed.payments();
            let (reading, _) = packed.readings[0];
            assert_eq!(blamed(Some(payment)), Blame::Readings(vec![reading]));
            assert_eq!(blamed(Some(packed.memo())), Blame::Unknown);
            assert_eq!(blamed(None), Blame::Unknown);
        }
    }

    #[test]
    fn missing_funds_are_blamed_on_no_reading() {
        for packed in Packed::all() {
            for creation in packed.creations() {
                for cause in [
                    InstructionError::Custom(SystemError::ResultWithNegativeLamports as u32),
                    InstructionError::InsufficientFunds,
                ] {
                    assert_eq!(packed.at(creation, cause), Blame::NoReading);
                }
            }
            for error in [
                TransactionError::InsufficientFundsForFee,
                TransactionError::InsufficientFundsForRent { account_index: 0 },
                TransactionError::InsufficientFundsForRent { account_index: 3 },
                TransactionError::AccountNotFound,
            ] {
                assert_eq!(packed.whole(error), Blame::NoReading);
            }
        }
    }

    #[test]
    fn a_compute_limit_that_was_too_low_is_blamed_on_the_service() {
        for packed in Packed::all() {
            for index in 0..=packed.memo() {
                for cause in [
                    InstructionError::ComputationalBudgetExceeded,
                    InstructionError::ProgramFailedToComplete,
                ] {
                    assert_eq!(packed.at(index, cause), Blame::ComputeLimit);
                }
            }
        }
    }

    #[test]
    fn a_mint_that_we_no_longer_control_is_blamed_on_no_reading() {
        for packed in Packed::all() {
            for fault in [
                TokenError::InvalidMint,
                TokenError::OwnerMismatch,
                TokenError::FixedSupply,
            ] {
                let cause = InstructionError::Custom(fault as u32);
                assert_eq!(packed.at(packed.payments()[0], cause), Blame::NoReading);
            }
        }
    }

    #[test]
    fn the_blame_is_unknown_when_an_instruction_around_the_payments_fails() {
        for packed in Packed::all() {
            let around = (0..packed.shift).chain([packed.memo(), packed.memo() + 1]);
            for index in around.chain(packed.creations()) {
                let blamed = packed.at(index, InstructionError::IllegalOwner);
                assert_eq!(blamed, Blame::Unknown, "instruction {index}");
            }
        }
    }
}
