//! Builds the instructions of a mint transaction.

use solana_compute_budget_interface::ComputeBudgetInstruction;
use solana_sdk::instruction::Instruction;
use solana_sdk::pubkey::Pubkey;
use spl_associated_token_account_interface::address::get_associated_token_address_and_bump_seed;
use spl_associated_token_account_interface::instruction::create_associated_token_account_idempotent;
use spl_memo_interface::instruction::build_memo;
use spl_token_interface::instruction::mint_to;

use super::compute::ComputePlan;
use super::memo::Memo;
use super::priority_fee::ComputeUnitPrice;
use super::tokens::BaseUnits;
use super::transaction_format::TransactionFormat;
use super::wallet::Wallet;

/// The payment of one wallet in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    pub wallet: Wallet,
    pub base_units: BaseUnits,
    /// Its token account does not exist yet.
    pub create_account: bool,
}

/// The terms that all transactions of one packing share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionTerms {
    pub format: TransactionFormat,
    /// Offered for each compute unit that the transaction requests.
    pub price: ComputeUnitPrice,
}

/// The position of the compute limit among the instructions of a legacy transaction.
pub(super) const COMPUTE_LIMIT_INDEX: usize = 0;

/// A mint transaction before it is compiled.
#[derive(Clone, Debug)]
pub struct Instructions {
    /// Legacy: compute limit, and price if one is offered. Then account and tokens wallet by wallet, then the memo.
    pub list: Vec<Instruction>,
    /// The transaction requests the ceiling of this plan.
    pub compute: ComputePlan,
    pub(super) terms: TransactionTerms,
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
    terms: TransactionTerms,
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
    let mut list = compute_budget(&compute, terms);
    list.append(&mut paying);
    list.push(build_memo(
        &spl_memo_interface::v3::ID,
        memo.encode().as_bytes(),
        &[],
    ));
    Instructions {
        list,
        compute,
        terms,
    }
}

/// The instructions that set limit and price. In v1 both are in the header, and the chain ignores such instructions.
fn compute_budget(compute: &ComputePlan, terms: TransactionTerms) -> Vec<Instruction> {
    match terms.format {
        TransactionFormat::V1 => Vec::new(),
        TransactionFormat::Legacy => {
            let limit = ComputeBudgetInstruction::set_compute_unit_limit(compute.ceiling());
            let price = terms.price.micro_lamports();
            let price =
                (price > 0).then(|| ComputeBudgetInstruction::set_compute_unit_price(price));
            [limit].into_iter().chain(price).collect()
        }
    }
}

#[cfg(test)]
mod tests {
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

    fn build_at(
        format: TransactionFormat,
        price: u64,
        payments: &[Payment],
        keys: &Keys,
    ) -> Vec<Instruction> {
        let memo = Memo::new(MintNumber::try_from(7_u64).unwrap(), [9; 32]);
        let price = ComputeUnitPrice::from_micro_lamports(price);
        instructions(
            payments,
            &keys.mint,
            &keys.authority,
            &keys.fee_payer,
            &memo,
            TransactionTerms { format, price },
        )
        .list
    }

    fn build(payments: &[Payment], keys: &Keys) -> Vec<Instruction> {
        build_at(TransactionFormat::Legacy, 0, payments, keys)
    }

    fn compute_limit(data: &[u8]) -> u32 {
        let (tag, limit) = data.split_first().unwrap();
        assert_eq!(*tag, 2);
        u32::from_le_bytes(limit.try_into().unwrap())
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
        let priced = build_at(TransactionFormat::Legacy, 5_000, &payments, &keys);
        let unpriced = build(&payments, &keys);
        let price = &priced[1];
        assert_eq!(price.program_id, solana_compute_budget_interface::ID);
        assert_eq!(price.data[0], 3);
        assert_eq!(price.data[1..], 5_000_u64.to_le_bytes());
        assert_eq!([&priced[..1], &priced[2..]].concat(), unpriced);
    }

    /// In v1 they are in the header, and the chain would ignore the instructions.
    #[test]
    fn v1_has_the_same_instructions_without_limit_and_price() {
        let keys = keys(true);
        let payments = payments(&[true, false, false]);
        let legacy = build(&payments, &keys);
        for price in [0, 5_000] {
            let v1 = build_at(TransactionFormat::V1, price, &payments, &keys);
            assert_eq!(v1, legacy[1..]);
        }
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
