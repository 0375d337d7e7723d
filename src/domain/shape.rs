//! The size of a mint transaction, and whether the cluster takes one of that size: pure arithmetic, before anything is built.
//!
//! Invariant: a [`Shape`] never reports less than the transaction uses, because the cluster rejects a transaction above a limit
//! as a whole, and its readings would wait for the proof that it is dead. The bytes are exact (a property test compiles and signs
//! the real transaction in both formats); compute units and the number of instructions are ceilings, with their reasons below.

use super::compute::{CREATE_COMPUTE_UNITS_MAX, FIXED_COMPUTE_UNITS, MINT_TO_COMPUTE_UNITS};
use super::memo::MEMO_BYTES;
use super::transaction_format::TransactionFormat;

/// The number of instructions that a transaction may execute, calls between programs included (`MAX_INSTRUCTION_TRACE_LENGTH`).
const TRACE_LENGTH_MAX: usize = 64;
/// Addresses that a transaction may mention, and top-level instructions that it may have: the rules of v1 (SIMD-0385). A legacy
/// transaction runs out of bytes before.
const ADDRESSES_MAX: usize = 64;
const INSTRUCTIONS_MAX: usize = 64;

/// Creating an account executes: the creation itself, size, transfer, allocate, assign (one call instead of these three unless
/// lamports were sent to the address before, which anyone can do), fixing the owner, initializing.
const CREATE_TRACE_LENGTH: usize = 7;

const SIGNATURE_BYTES: usize = 64;
const ADDRESS_BYTES: usize = 32;
const HEADER_BYTES: usize = 3;
const BLOCKHASH_BYTES: usize = 32;
/// Of v1: the version in front, the mask of the limits in the header, and the numbers of instructions and addresses.
const V1_FRAME_BYTES: usize = 1 + 4 + 1 + 1;
/// Of v1: the limits of compute units and of loaded account data, a u32 each.
const V1_LIMIT_BYTES: usize = 4 + 4;
/// Of v1: the priority fee, a u64.
const V1_PRIORITY_FEE_BYTES: usize = 8;
/// Of v1: an instruction's program, number of accounts and length of data.
const V1_INSTRUCTION_HEADER_BYTES: usize = 1 + 1 + 2;
/// Fee payer, mint, token program, memo program.
const FIXED_ADDRESSES: usize = 4;
/// Associated token account program and system program, present only if an account is created.
const CREATION_ADDRESSES: usize = 2;
/// Its tag and a u32.
const COMPUTE_LIMIT_DATA: usize = 5;
/// Its tag and a u64.
const COMPUTE_PRICE_DATA: usize = 9;
/// Its tag and a u64.
const MINT_TO_DATA: usize = 9;
const MINT_TO_ACCOUNTS: usize = 3;
const CREATE_DATA: usize = 1;
const CREATE_ACCOUNTS: usize = 6;

/// The size of a mint transaction. Its limits depend on nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub format: TransactionFormat,
    pub payments: usize,
    /// The number of these payments that create the account.
    pub creations: usize,
    pub separate_fee_payer: bool,
    /// It offers a priority fee.
    pub priced: bool,
}

impl Shape {
    /// Bytes of the signed transaction, signatures included. The transaction is smaller only if a wallet is one of our two
    /// keys.
    pub fn bytes(self) -> usize {
        let signatures = 1 + usize::from(self.separate_fee_payer);
        let common = signatures * SIGNATURE_BYTES
            + HEADER_BYTES
            + self.addresses() * ADDRESS_BYTES
            + BLOCKHASH_BYTES
            + self.instruction_bytes();
        common
            + match self.format {
                TransactionFormat::Legacy => {
                    length_bytes(signatures)
                        + length_bytes(self.addresses())
                        + length_bytes(self.instructions())
                }
                TransactionFormat::V1 => {
                    let priority_fee = usize::from(self.priced) * V1_PRIORITY_FEE_BYTES;
                    V1_FRAME_BYTES + V1_LIMIT_BYTES + priority_fee
                }
            }
    }

    /// A ceiling for any wallets. [`instructions`](super::instructions) requests less once the wallets are known.
    pub fn compute_units(self) -> u32 {
        FIXED_COMPUTE_UNITS
            .saturating_add(count(self.payments).saturating_mul(MINT_TO_COMPUTE_UNITS))
            .saturating_add(self.creation_compute_units())
    }

    /// The account creations' part of the ceiling.
    pub fn creation_compute_units(self) -> u32 {
        count(self.creations).saturating_mul(CREATE_COMPUTE_UNITS_MAX)
    }

    /// Whether the numbers of addresses and of instructions are allowed, executed ones at their largest possible number included.
    pub fn fits_counts(self) -> bool {
        self.addresses() <= ADDRESSES_MAX
            && self.instructions() <= INSTRUCTIONS_MAX
            && self.trace_length() <= TRACE_LENGTH_MAX
    }

    /// Addresses that it mentions, at most.
    fn addresses(self) -> usize {
        let compute_budget_program = match self.format {
            TransactionFormat::Legacy => 1,
            TransactionFormat::V1 => 0,
        };
        let creation_addresses = if self.creations > 0 {
            CREATION_ADDRESSES
        } else {
            0
        };
        FIXED_ADDRESSES
            + compute_budget_program
            + usize::from(self.separate_fee_payer)
            + creation_addresses
            + self.payments
            + self.creations
    }

    fn instructions(self) -> usize {
        self.compute_budget_instructions() + self.payments + self.creations + 1
    }

    fn trace_length(self) -> usize {
        self.compute_budget_instructions()
            + self.payments
            + self.creations * CREATE_TRACE_LENGTH
            + 1
    }

    /// Compute limit, and price if there is one; v1 has none of them.
    fn compute_budget_instructions(self) -> usize {
        match self.format {
            TransactionFormat::Legacy => 1 + usize::from(self.priced),
            TransactionFormat::V1 => 0,
        }
    }

    /// The compiled instructions, together.
    fn instruction_bytes(self) -> usize {
        let each = |accounts, data| self.format.instruction_bytes(accounts, data);
        let compute_budget = match self.format {
            TransactionFormat::Legacy => {
                each(0, COMPUTE_LIMIT_DATA) + usize::from(self.priced) * each(0, COMPUTE_PRICE_DATA)
            }
            TransactionFormat::V1 => 0,
        };
        compute_budget
            + self.creations * each(CREATE_ACCOUNTS, CREATE_DATA)
            + self.payments * each(MINT_TO_ACCOUNTS, MINT_TO_DATA)
            + each(0, MEMO_BYTES)
    }
}

impl TransactionFormat {
    /// The size of a compiled instruction: program, accounts and data.
    fn instruction_bytes(self, accounts: usize, data: usize) -> usize {
        let frame = match self {
            TransactionFormat::Legacy => 1 + length_bytes(accounts) + length_bytes(data),
            TransactionFormat::V1 => V1_INSTRUCTION_HEADER_BYTES,
        };
        frame + accounts + data
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The size of a length in the chain's compact encoding (`ShortU16`): seven bits per byte.
fn length_bytes(length: usize) -> usize {
    match length {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use solana_sdk::message::VersionedMessage;
    use solana_sdk::pubkey::Pubkey;
    use solana_sdk::signature::{Keypair, Signer as _};
    use solana_sdk::transaction::VersionedTransaction;

    use super::*;
    use crate::domain::signed_bytes::encode;
    use crate::domain::{
        BaseUnits, ComputeUnitPrice, Memo, MintNumber, Payment, RequestedLimits, TransactionTerms,
        Wallet, instructions, set_limits,
    };

    struct Keys {
        authority: Keypair,
        fee_payer: Option<Keypair>,
        mint: Pubkey,
    }

    impl Keys {
        fn new(separate_fee_payer: bool) -> Keys {
            Keys {
                authority: Keypair::new(),
                fee_payer: separate_fee_payer.then(Keypair::new),
                mint: Pubkey::new_unique(),
            }
        }

        fn fee_payer(&self) -> Pubkey {
            self.fee_payer.as_ref().unwrap_or(&self.authority).pubkey()
        }

        fn built(
            &self,
            payments: &[Payment],
            terms: TransactionTerms,
        ) -> super::super::Instructions {
            let memo = Memo::new(MintNumber::MAX, [255; 32]);
            let authority = self.authority.pubkey();
            instructions(
                payments,
                &self.mint,
                &authority,
                &self.fee_payer(),
                &memo,
                terms,
            )
        }

        fn signed_length(&self, message: VersionedMessage) -> usize {
            let keys: Vec<&Keypair> = self.fee_payer.iter().chain([&self.authority]).collect();
            encode(&VersionedTransaction::try_new(message, &keys).unwrap())
                .unwrap()
                .len()
        }
    }

    fn payments(creates: &[bool]) -> Vec<Payment> {
        creates
            .iter()
            .map(|create_account| Payment {
                wallet: Wallet::from_stored(Pubkey::new_unique().to_bytes()),
                base_units: BaseUnits::new(1),
                create_account: *create_account,
            })
            .collect()
    }

    fn format() -> impl Strategy<Value = TransactionFormat> {
        prop::sample::select(TransactionFormat::ALL.to_vec())
    }

    fn shape_of(creates: &[bool], keys: &Keys, terms: TransactionTerms) -> Shape {
        Shape {
            format: terms.format,
            payments: creates.len(),
            creations: creates.iter().filter(|create| **create).count(),
            separate_fee_payer: keys.fee_payer.is_some(),
            priced: !terms.price.is_zero(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn bytes_are_those_of_the_real_transaction(
            creates in prop_oneof![
                prop::collection::vec(any::<bool>(), 1..40),
                prop::collection::vec(prop::bool::weighted(0.05), 40..140),
            ],
            separate_fee_payer in any::<bool>(),
            format in format(),
            price in prop_oneof![Just(0_u64), any::<u64>()],
            compute_units in any::<u32>(),
            loaded in any::<Option<u32>>(),
        ) {
            let keys = Keys::new(separate_fee_payer);
            let terms = TransactionTerms { format, price: ComputeUnitPrice::from_micro_lamports(price) };
            let shape = shape_of(&creates, &keys, terms);
            let built = keys.built(&payments(&creates), terms);
            prop_assert!(built.compute.ceiling() <= shape.compute_units());
            prop_assert!(shape.creation_compute_units() < shape.compute_units());
            prop_assert_eq!(built.list.len(), shape.instructions());

            let keeps_v1_rules = shape.addresses() <= 64 && shape.instructions() <= 64;
            let compiled = built.compile(&keys.fee_payer());
            if format == TransactionFormat::V1 && !keeps_v1_rules {
                prop_assert!(compiled.is_err());
                prop_assert!(!shape.fits_counts());
                return Ok(());
            }
            let mut message = compiled.unwrap();
            prop_assert_eq!(message.static_account_keys().len(), shape.addresses());
            let signatures = usize::from(message.header().num_required_signatures);
            prop_assert_eq!(signatures, 1 + usize::from(separate_fee_payer));
            prop_assert_eq!(shape.bytes(), keys.signed_length(message.clone()));

            // The figures that the simulation changes do not change a length.
            set_limits(&mut message, RequestedLimits::after(compute_units, loaded), terms.price);
            prop_assert_eq!(shape.bytes(), keys.signed_length(message));
        }

        /// A packed transaction is never refused for its form: the rules of v1 hold whenever the numbers do.
        #[test]
        fn a_shape_that_fits_keeps_the_rules_of_its_format(
            creates in prop::collection::vec(prop::bool::weighted(0.1), 1..64),
            separate_fee_payer in any::<bool>(),
            price in 0_u64..2,
        ) {
            let keys = Keys::new(separate_fee_payer);
            let terms = TransactionTerms {
                format: TransactionFormat::V1,
                price: ComputeUnitPrice::from_micro_lamports(price),
            };
            let shape = shape_of(&creates, &keys, terms);
            prop_assume!(shape.fits_counts());
            prop_assert!(shape.bytes() <= TransactionFormat::V1.bytes_max());
            let compiled = keys.built(&payments(&creates), terms).compile(&keys.fee_payer());
            let Ok(VersionedMessage::V1(message)) = compiled else {
                return Err(TestCaseError::fail("not compiled as v1"));
            };
            prop_assert_eq!(message.validate(), Ok(()));
            prop_assert!(message.account_keys.len() <= 64 && message.instructions.len() <= 64);
        }
    }

    #[test]
    fn our_own_key_as_a_wallet_uses_no_more_bytes_than_planned() {
        for separate_fee_payer in [false, true] {
            for format in TransactionFormat::ALL {
                let keys = Keys::new(separate_fee_payer);
                let terms = TransactionTerms {
                    format,
                    price: ComputeUnitPrice::ZERO,
                };
                let creates = [true, true, false];
                let mut payments = payments(&creates);
                payments[0].wallet = Wallet::from_stored(keys.authority.pubkey().to_bytes());
                payments[1].wallet = Wallet::from_stored(keys.fee_payer().to_bytes());
                let message = keys
                    .built(&payments, terms)
                    .compile(&keys.fee_payer())
                    .unwrap();
                let shape = shape_of(&creates, &keys, terms);
                assert!(keys.signed_length(message) < shape.bytes());
            }
        }
    }
}
