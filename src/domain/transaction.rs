//! A mint transaction as the chain sees it: its instructions, and what they take of the chain's limits.
//!
//! Invariant: what [`Shape`] says is never less than what the transaction takes, because a transaction past a limit is
//! refused as a whole, and its neighbours would wait for the proof of its death. The bytes are exact (a property test
//! compiles the real transaction); compute units and instruction count are ceilings with their reasons below.

use solana_compute_budget_interface::ComputeBudgetInstruction;
use solana_sdk::instruction::Instruction;
use solana_sdk::pubkey::Pubkey;
use spl_associated_token_account_interface::address::get_associated_token_address_and_bump_seed;
use spl_associated_token_account_interface::instruction::create_associated_token_account_idempotent;
use spl_memo_interface::instruction::build_memo;
use spl_token_interface::instruction::mint_to;

use super::memo::{MEMO_BYTES, Memo};
use super::tokens::BaseUnits;
use super::wallet::Wallet;

/// What a legacy transaction may be long: an IPv6 packet less its headers.
pub const TRANSACTION_BYTES_MAX: usize = 1232;
/// What a transaction may compute.
pub const COMPUTE_UNITS_MAX: u32 = 1_400_000;
/// Instructions that a transaction may run, those called by programs included (`MAX_INSTRUCTION_TRACE_LENGTH`).
const TRACE_LENGTH_MAX: usize = 64;

/// One `MintTo`: 119 on clusters with p-token, 4,538 with the token program before it.
const MINT_TO_COMPUTE_UNITS: u32 = 6_000;
/// Creating an account without the search for its address: 14,000 to 17,000 measured with p-token, some 7,000 more before it.
const CREATE_COMPUTE_UNITS: u32 = 30_000;
/// One step of that search, which the program repeats on chain (`create_program_address_units`).
const ADDRESS_SEARCH_COMPUTE_UNITS: u32 = 1_500;
/// Steps of the search planned for when the wallet is not looked at: each step more is half as likely, so that nobody can
/// grind a wallet that takes 46 of them.
const ADDRESS_SEARCH_STEPS_PLANNED: u32 = 46;
/// The memo and the compute budget instruction: under 1,000 measured; the memo program before was costlier by the byte.
const FIXED_COMPUTE_UNITS: u32 = 25_000;

/// Creating an account: itself, the size, transfer, allocate, assign (one call instead of three when nobody has sent lamports
/// ahead, but anybody can), owner fixed, initialised.
const CREATE_TRACE_LENGTH: usize = 7;

const SIGNATURE_BYTES: usize = 64;
const ADDRESS_BYTES: usize = 32;
const HEADER_BYTES: usize = 3;
const BLOCKHASH_BYTES: usize = 32;
/// Fee payer, mint, token program, memo program, compute budget program.
const FIXED_ADDRESSES: usize = 5;
/// Associated token account program and system program, there only if an account is created.
const CREATION_ADDRESSES: usize = 2;
/// Its tag and a u32.
const COMPUTE_LIMIT_DATA: usize = 5;
/// Its tag and a u64.
const MINT_TO_DATA: usize = 9;
const CREATE_DATA: usize = 1;

/// What one wallet gets in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    pub wallet: Wallet,
    pub base_units: BaseUnits,
    /// Its token account is not there yet.
    pub create_account: bool,
}

/// The size of a mint transaction, which is all that its limits depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub payments: usize,
    /// Of these payments, how many create the account.
    pub creations: usize,
    pub separate_fee_payer: bool,
}

impl Shape {
    /// Bytes on the wire, signatures included. Less only if a wallet is one of our own two keys.
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
        let instructions = 2 + self.payments + self.creations;
        length_bytes(signatures)
            + signatures * SIGNATURE_BYTES
            + HEADER_BYTES
            + length_bytes(addresses)
            + addresses * ADDRESS_BYTES
            + BLOCKHASH_BYTES
            + length_bytes(instructions)
            + instruction_bytes(0, COMPUTE_LIMIT_DATA)
            + self.creations * instruction_bytes(6, CREATE_DATA)
            + self.payments * instruction_bytes(3, MINT_TO_DATA)
            + instruction_bytes(0, MEMO_BYTES)
    }

    /// A ceiling for any wallets. [`instructions`] asks for less, once it knows them.
    pub fn compute_units(self) -> u32 {
        let create =
            CREATE_COMPUTE_UNITS + ADDRESS_SEARCH_STEPS_PLANNED * ADDRESS_SEARCH_COMPUTE_UNITS;
        FIXED_COMPUTE_UNITS
            .saturating_add(count(self.payments).saturating_mul(MINT_TO_COMPUTE_UNITS))
            .saturating_add(count(self.creations).saturating_mul(create))
    }

    /// Whether it may run as many instructions as it can come to.
    pub fn fits_trace(self) -> bool {
        2 + self.payments + self.creations * CREATE_TRACE_LENGTH <= TRACE_LENGTH_MAX
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Program, accounts and data of a compiled instruction.
fn instruction_bytes(accounts: usize, data: usize) -> usize {
    1 + length_bytes(accounts) + accounts + length_bytes(data) + data
}

/// Bytes of a length in the chain's compact encoding: seven bits each.
fn length_bytes(length: usize) -> usize {
    match length {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        _ => 3,
    }
}

/// The instructions of one mint transaction: compute limit, then account and tokens wallet by wallet, then the memo.
///
/// Accounts are created idempotently, so that one which somebody else creates meanwhile costs nothing and fails nothing. The
/// compute limit is what these very wallets take at most: a looser one would make the scheduler put us last.
pub fn instructions(
    payments: &[Payment],
    mint: &Pubkey,
    authority: &Pubkey,
    fee_payer: &Pubkey,
    memo: &Memo,
) -> Vec<Instruction> {
    let token_program = spl_token_interface::ID;
    let mut compute_units = FIXED_COMPUTE_UNITS;
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
            let search_steps = u32::from(u8::MAX - bump) + 1;
            compute_units += CREATE_COMPUTE_UNITS + search_steps * ADDRESS_SEARCH_COMPUTE_UNITS;
            paying.push(create_associated_token_account_idempotent(
                fee_payer,
                &wallet,
                mint,
                &token_program,
            ));
        }
        compute_units += MINT_TO_COMPUTE_UNITS;
        paying.push(
            mint_to(
                &token_program,
                mint,
                &token_account,
                authority,
                &[],
                payment.base_units.get(),
            )
            .expect("refuses only a program that is not the token program"),
        );
    }
    let mut instructions = Vec::with_capacity(paying.len() + 2);
    instructions.push(ComputeBudgetInstruction::set_compute_unit_limit(
        compute_units.min(COMPUTE_UNITS_MAX),
    ));
    instructions.append(&mut paying);
    instructions.push(build_memo(
        &spl_memo_interface::v3::ID,
        memo.encode().as_bytes(),
        &[],
    ));
    instructions
}

/// Whose payment the instruction at `index` of [`instructions`] belongs to: the chain names the instruction that failed.
/// `None` for compute limit and memo.
pub fn paid_by_instruction(payments: &[Payment], index: usize) -> Option<&Payment> {
    let mut first = 1;
    payments.iter().find(|payment| {
        let end = first + 1 + usize::from(payment.create_account);
        let found = (first..end).contains(&index);
        first = end;
        found
    })
}
