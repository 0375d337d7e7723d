//! Builds the instructions of a mint transaction, and computes how much of the chain's limits they use.
//!
//! Invariant: a [`Shape`] never reports less than the transaction uses, because the cluster rejects a transaction above a limit
//! as a whole, and its readings would wait for the proof that it is dead. The bytes are exact (a property test compiles the real
//! transaction); compute units and the number of instructions are ceilings, with their reasons below.

use solana_compute_budget_interface::ComputeBudgetInstruction;
use solana_sdk::instruction::Instruction;
use solana_sdk::message::Message;
use solana_sdk::pubkey::Pubkey;
use spl_associated_token_account_interface::address::get_associated_token_address_and_bump_seed;
use spl_associated_token_account_interface::instruction::create_associated_token_account_idempotent;
use spl_memo_interface::instruction::build_memo;
use spl_token_interface::instruction::mint_to;

use super::compute::{
    CREATE_COMPUTE_UNITS_MAX, ComputePlan, FIXED_COMPUTE_UNITS, MINT_TO_COMPUTE_UNITS,
};
use super::memo::{MEMO_BYTES, Memo};
use super::priority_fee::ComputeUnitPrice;
use super::tokens::BaseUnits;
use super::wallet::Wallet;

/// The largest legacy transaction: the minimum MTU of IPv6 without its headers (`PACKET_DATA_SIZE`).
pub const TRANSACTION_BYTES_MAX: usize = 1232;
/// The number of instructions that a transaction may execute, calls between programs included (`MAX_INSTRUCTION_TRACE_LENGTH`).
const TRACE_LENGTH_MAX: usize = 64;

/// Creating an account executes: the creation itself, size, transfer, allocate, assign (one call instead of these three unless
/// lamports were sent to the address before, which anyone can do), fixing the owner, initializing.
const CREATE_TRACE_LENGTH: usize = 7;

const SIGNATURE_BYTES: usize = 64;
const ADDRESS_BYTES: usize = 32;
const HEADER_BYTES: usize = 3;
const BLOCKHASH_BYTES: usize = 32;
/// Fee payer, mint, token program, memo program, compute budget program.
const FIXED_ADDRESSES: usize = 5;
/// Associated token account program and system program, present only if an account is created.
const CREATION_ADDRESSES: usize = 2;
/// Its tag and a u32.
const COMPUTE_LIMIT_DATA: usize = 5;
/// Its tag and a u64.
const COMPUTE_PRICE_DATA: usize = 9;
/// Its tag and a u64.
const MINT_TO_DATA: usize = 9;
const CREATE_DATA: usize = 1;

/// What one wallet receives in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    pub wallet: Wallet,
    pub base_units: BaseUnits,
    /// Its token account does not exist yet.
    pub create_account: bool,
}

/// The size of a mint transaction. Its limits depend on nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub payments: usize,
    /// How many of these payments create the account.
    pub creations: usize,
    pub separate_fee_payer: bool,
    /// It offers a priority fee, which takes one more instruction.
    pub priced: bool,
}

impl Shape {
    /// Bytes of the signed transaction, signatures included. The transaction is smaller only if a wallet is one of our own two
    /// keys.
    pub fn bytes(self) -> usize {
        let signatures = 1 + usize::from(self.separate_fee_payer);
        let creation_addresses = if self.creations > 0 {
            CREATION_ADDRESSES
        } else {
            0
        };
        let addresses = FIXED_ADDRESSES
            + usize::from(self.separate_fee_payer)
            + creation_addresses
            + self.payments
            + self.creations;
        let instructions = self.fixed_instructions() + self.payments + self.creations;
        let price = if self.priced {
            instruction_bytes(0, COMPUTE_PRICE_DATA)
        } else {
            0
        };
        length_bytes(signatures)
            + signatures * SIGNATURE_BYTES
            + HEADER_BYTES
            + length_bytes(addresses)
            + addresses * ADDRESS_BYTES
            + BLOCKHASH_BYTES
            + length_bytes(instructions)
            + instruction_bytes(0, COMPUTE_LIMIT_DATA)
            + price
            + self.creations * instruction_bytes(6, CREATE_DATA)
            + self.payments * instruction_bytes(3, MINT_TO_DATA)
            + instruction_bytes(0, MEMO_BYTES)
    }

    /// A ceiling for any wallets. [`instructions`] requests less once the wallets are known.
    pub fn compute_units(self) -> u32 {
        FIXED_COMPUTE_UNITS
            .saturating_add(count(self.payments).saturating_mul(MINT_TO_COMPUTE_UNITS))
            .saturating_add(self.creation_compute_units())
    }

    /// The account creations' part of the ceiling.
    pub fn creation_compute_units(self) -> u32 {
        count(self.creations).saturating_mul(CREATE_COMPUTE_UNITS_MAX)
    }

    /// Whether the largest possible number of executed instructions is allowed.
    pub fn fits_trace(self) -> bool {
        self.fixed_instructions() + self.payments + self.creations * CREATE_TRACE_LENGTH
            <= TRACE_LENGTH_MAX
    }

    /// Compute limit, price if there is one, memo.
    fn fixed_instructions(self) -> usize {
        2 + usize::from(self.priced)
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The size of a compiled instruction: program, accounts and data.
fn instruction_bytes(accounts: usize, data: usize) -> usize {
    1 + length_bytes(accounts) + accounts + length_bytes(data) + data
}

/// The size of a length in the chain's compact encoding (`ShortU16`): seven bits per byte.
fn length_bytes(length: usize) -> usize {
    match length {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        _ => 3,
    }
}

/// The position of the compute limit among the instructions.
const COMPUTE_LIMIT_INDEX: usize = 0;

/// A mint transaction before it is compiled.
#[derive(Clone, Debug)]
pub struct Instructions {
    /// Compute limit, price if one is offered, then account and tokens wallet by wallet, then the memo.
    pub list: Vec<Instruction>,
    /// The instruction requests the ceiling of this plan.
    pub compute: ComputePlan,
}

/// The instructions of one mint transaction.
///
/// Accounts are created idempotently, so that an account which another party creates meanwhile costs nothing and fails nothing.
/// The compute limit is the most that exactly these wallets can use: with a higher one the scheduler would rank the transaction
/// lower.
pub fn instructions(
    payments: &[Payment],
    mint: &Pubkey,
    authority: &Pubkey,
    fee_payer: &Pubkey,
    memo: &Memo,
    price: ComputeUnitPrice,
) -> Instructions {
    let token_program = spl_token_interface::ID;
    let mut compute = ComputePlan::new();
    let mut paying = Vec::with_capacity(2 * payments.len());
    for payment in payments {
        let wallet = payment.wallet.pubkey();
        let (token_account, bump) = get_associated_token_address_and_bump_seed(
            &wallet,
            mint,
            &spl_associated_token_account_interface::program::ID,
            &token_program,
        );
        if payment.create_account {
            compute.add_creation(u32::from(u8::MAX - bump) + 1);
            paying.push(create_associated_token_account_idempotent(
                fee_payer,
                &wallet,
                mint,
                &token_program,
            ));
        }
        compute.add_payment();
        paying.push(
            mint_to(
                &token_program,
                mint,
                &token_account,
                authority,
                &[],
                payment.base_units.get(),
            )
            .expect("rejects only a program that is not the token program"),
        );
    }
    let mut list = Vec::with_capacity(paying.len() + 3);
    list.push(ComputeBudgetInstruction::set_compute_unit_limit(
        compute.ceiling(),
    ));
    if !price.is_zero() {
        list.push(ComputeBudgetInstruction::set_compute_unit_price(
            price.micro_lamports(),
        ));
    }
    list.append(&mut paying);
    list.push(build_memo(
        &spl_memo_interface::v3::ID,
        memo.encode().as_bytes(),
        &[],
    ));
    Instructions { list, compute }
}

/// Changes the compute limit that a message compiled from [`instructions`] requests; its length stays the same.
pub fn set_compute_unit_limit(message: &mut Message, compute_units: u32) {
    if let Some(instruction) = message.instructions.get_mut(COMPUTE_LIMIT_INDEX) {
        instruction.data = ComputeBudgetInstruction::set_compute_unit_limit(compute_units).data;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use solana_sdk::signature::{Keypair, Signer as _};

    use super::*;
    use crate::domain::MintNumber;

    struct Keys {
        authority: Pubkey,
        fee_payer: Pubkey,
        mint: Pubkey,
    }

    fn keys(separate_fee_payer: bool) -> Keys {
        let authority = Keypair::new().pubkey();
        Keys {
            authority,
            fee_payer: if separate_fee_payer {
                Keypair::new().pubkey()
            } else {
                authority
            },
            mint: Keypair::new().pubkey(),
        }
    }

    fn payments(creates: &[bool]) -> Vec<Payment> {
        creates
            .iter()
            .enumerate()
            .map(|(number, create_account)| Payment {
                wallet: Wallet::from_stored(Keypair::new().pubkey().to_bytes()),
                base_units: BaseUnits::new(number as u64 + 1),
                create_account: *create_account,
            })
            .collect()
    }

    fn build_at(price: u64, payments: &[Payment], keys: &Keys) -> Vec<Instruction> {
        let memo = Memo::new(MintNumber::try_from(7_u64).unwrap(), [9; 32]);
        instructions(
            payments,
            &keys.mint,
            &keys.authority,
            &keys.fee_payer,
            &memo,
            ComputeUnitPrice::from_micro_lamports(price),
        )
        .list
    }

    fn build(payments: &[Payment], keys: &Keys) -> Vec<Instruction> {
        build_at(0, payments, keys)
    }

    fn signed_length(message: &Message) -> usize {
        let signatures = usize::from(message.header.num_required_signatures);
        1 + signatures * SIGNATURE_BYTES + message.serialize().len()
    }

    fn compute_limit(data: &[u8]) -> u32 {
        let (tag, limit) = data.split_first().unwrap();
        assert_eq!(*tag, 2);
        u32::from_le_bytes(limit.try_into().unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn bytes_are_those_of_the_real_transaction(
            creates in prop::collection::vec(any::<bool>(), 1..140),
            separate_fee_payer in any::<bool>(),
            price in prop_oneof![Just(0_u64), any::<u64>()],
            limit in any::<u32>(),
        ) {
            let keys = keys(separate_fee_payer);
            let instructions = build_at(price, &payments(&creates), &keys);
            let mut message = Message::new(&instructions, Some(&keys.fee_payer));
            let signatures = usize::from(message.header.num_required_signatures);
            prop_assert_eq!(signatures, 1 + usize::from(separate_fee_payer));
            let shape = Shape {
                payments: creates.len(),
                creations: creates.iter().filter(|create| **create).count(),
                separate_fee_payer,
                priced: price > 0,
            };
            prop_assert_eq!(shape.bytes(), signed_length(&message));
            prop_assert!(compute_limit(&instructions[0].data) <= shape.compute_units());
            prop_assert!(shape.creation_compute_units() < shape.compute_units());

            // The simulation changes only the limit.
            set_compute_unit_limit(&mut message, limit);
            prop_assert_eq!(compute_limit(&message.instructions[0].data), limit);
            prop_assert_eq!(shape.bytes(), signed_length(&message));
            let mut as_planned = Message::new(&instructions, Some(&keys.fee_payer));
            as_planned.instructions[0].data = message.instructions[0].data.clone();
            prop_assert_eq!(as_planned, message);
        }
    }

    #[test]
    fn our_own_key_as_a_wallet_uses_no_more_bytes_than_planned() {
        for separate_fee_payer in [false, true] {
            let keys = keys(separate_fee_payer);
            let mut payments = payments(&[true, true, false]);
            payments[0].wallet = Wallet::from_stored(keys.authority.to_bytes());
            payments[1].wallet = Wallet::from_stored(keys.fee_payer.to_bytes());
            let message = Message::new(&build(&payments, &keys), Some(&keys.fee_payer));
            let shape = Shape {
                payments: 3,
                creations: 2,
                separate_fee_payer,
                priced: false,
            };
            assert!(signed_length(&message) < shape.bytes());
        }
    }

    #[test]
    fn a_payment_is_account_then_tokens() {
        let keys = keys(true);
        let payments = payments(&[false, true]);
        let built = build(&payments, &keys);
        let programs: Vec<Pubkey> = built
            .iter()
            .map(|instruction| instruction.program_id)
            .collect();
        assert_eq!(
            programs,
            [
                solana_compute_budget_interface::ID,
                spl_token_interface::ID,
                spl_associated_token_account_interface::program::ID,
                spl_token_interface::ID,
                spl_memo_interface::v3::ID,
            ]
        );
        for (index, payment) in [(1, &payments[0]), (3, &payments[1])] {
            let accounts = &built[index].accounts;
            assert_eq!(accounts[0].pubkey, keys.mint);
            assert_eq!(accounts[1].pubkey, payment.wallet.token_account(&keys.mint));
            assert_eq!(accounts[2].pubkey, keys.authority);
            assert!(accounts[2].is_signer);
            let (tag, amount) = built[index].data.split_first().unwrap();
            assert_eq!(*tag, 7);
            assert_eq!(amount, payment.base_units.get().to_le_bytes());
        }
        assert_eq!(built[2].accounts[0].pubkey, keys.fee_payer);
        assert_eq!(built[2].data, [1], "idempotent");
        assert_eq!(
            Memo::parse(std::str::from_utf8(&built[4].data).unwrap())
                .unwrap()
                .number()
                .get(),
            7
        );
        assert!(built[4].accounts.is_empty());
    }

    #[test]
    fn the_price_follows_the_limit_and_is_left_out_when_it_is_none() {
        let keys = keys(false);
        let payments = payments(&[true, false]);
        let (priced, unpriced) = (build_at(5_000, &payments, &keys), build(&payments, &keys));
        let price = &priced[1];
        assert_eq!(price.program_id, solana_compute_budget_interface::ID);
        assert_eq!(price.data[0], 3);
        assert_eq!(price.data[1..], 5_000_u64.to_le_bytes());
        assert_eq!([&priced[..1], &priced[2..]].concat(), unpriced);
    }

    /// The limit is the transaction's own: it covers the steps of the address search that its wallets need.
    #[test]
    fn the_compute_limit_follows_the_search_for_the_address() {
        let keys = keys(false);
        for payment in payments(&[true; 20]) {
            let account = payment.wallet.token_account(&keys.mint);
            let steps = (0..=255_u8)
                .rev()
                .position(|bump| {
                    let wallet = payment.wallet.pubkey();
                    let token_program = spl_token_interface::ID;
                    let seeds: [&[u8]; 4] = [
                        wallet.as_ref(),
                        token_program.as_ref(),
                        keys.mint.as_ref(),
                        &[bump],
                    ];
                    let program = spl_associated_token_account_interface::program::ID;
                    Pubkey::create_program_address(&seeds, &program) == Ok(account)
                })
                .unwrap() as u32
                + 1;
            let limit = compute_limit(&build(&[payment], &keys)[0].data);
            assert_eq!(limit, 25_000 + 6_000 + 30_000 + steps * 1_500);
        }
    }
}
