//! Decodes an executed transaction: which instructions ran, on which accounts.
//!
//! Invariant: [`ExecutedTransaction::mints`] finds every token that the transaction minted of a mint by an authority's signature,
//! and no other: by its own instructions, by those that other programs called on the authority's behalf, and by those packed into
//! the token program's batch instruction.

use std::str::FromStr;

use solana_sdk::pubkey::Pubkey;
use solana_sdk::transaction::VersionedTransaction;
use solana_transaction_status::{
    UiInstruction, UiTransactionStatusMeta, UiTransactionTokenBalance,
};
use spl_token_interface::instruction::TokenInstruction;

use super::programs::{calls_no_mint, is_memo_program};
use crate::domain::{BaseUnits, Memo};

/// Positions of the accounts in `MintTo` and `MintToChecked`.
const MINT: usize = 0;
const TOKEN_ACCOUNT: usize = 1;
const AUTHORITY: usize = 2;
/// In the batch instruction: number of accounts, length of data.
const BATCH_HEADER_BYTES: usize = 2;

/// Our memo among these. Two of ours would contradict each other: then neither counts.
pub(super) fn our_memo(memos: &[String]) -> Option<Memo> {
    let mut ours = memos.iter().filter_map(|text| Memo::parse(text));
    match (ours.next(), ours.next()) {
        (Some(memo), None) => Some(memo),
        _ => None,
    }
}

/// A transaction with its accounts resolved and all instructions that ran, including those that programs called.
#[derive(Debug)]
pub(super) struct ExecutedTransaction {
    accounts: Vec<Pubkey>,
    /// Number of accounts, from the first one on, that signed.
    signers: usize,
    /// How many of the instructions are the transaction's own; those that programs called follow.
    own_instructions: usize,
    /// The instructions that programs called were recorded: there may be none.
    called_are_known: bool,
    instructions: Vec<Instruction>,
}

/// Indices point into the transaction's accounts.
#[derive(Debug)]
struct Instruction {
    program: u8,
    accounts: Vec<u8>,
    data: Vec<u8>,
}

impl ExecutedTransaction {
    /// `None` when some part cannot be decoded: then nothing is known about any of it.
    pub(super) fn decode(
        transaction: &VersionedTransaction,
        meta: &UiTransactionStatusMeta,
    ) -> Option<ExecutedTransaction> {
        let message = &transaction.message;
        let mut accounts = message.static_account_keys().to_vec();
        if let Some(loaded) = Option::from(meta.loaded_addresses.as_ref()) {
            let loaded: &solana_transaction_status::UiLoadedAddresses = loaded;
            for address in loaded.writable.iter().chain(&loaded.readonly) {
                accounts.push(Pubkey::from_str(address).ok()?);
            }
        }
        let mut instructions: Vec<Instruction> = message
            .instructions()
            .iter()
            .map(|instruction| Instruction {
                program: instruction.program_id_index,
                accounts: instruction.accounts.clone(),
                data: instruction.data.clone(),
            })
            .collect();
        let own_instructions = instructions.len();
        let inner: Option<&Vec<_>> = Option::from(meta.inner_instructions.as_ref());
        let called_are_known = inner.is_some();
        for instruction in inner.into_iter().flatten().flat_map(|of| &of.instructions) {
            let UiInstruction::Compiled(called) = instruction else {
                return None;
            };
            instructions.push(Instruction {
                program: called.program_id_index,
                accounts: called.accounts.clone(),
                data: bs58::decode(&called.data).into_vec().ok()?,
            });
        }
        Some(ExecutedTransaction {
            accounts,
            signers: usize::from(message.header().num_required_signatures),
            own_instructions,
            called_are_known,
            instructions,
        })
    }

    /// Whether every instruction that ran and could mint is known. A node that does not record what programs call hides a mint
    /// that another program made on the authority's behalf; the programs of our transactions call nothing that mints.
    pub(super) fn is_complete(&self) -> bool {
        let own = &self.instructions[..self.own_instructions];
        self.called_are_known
            || own
                .iter()
                .all(|instruction| self.account(instruction.program).is_some_and(calls_no_mint))
    }

    /// The account's position among the transaction's accounts, and so among the balances that a node reports.
    pub(super) fn position(&self, account: &Pubkey) -> Option<usize> {
        self.accounts.iter().position(|key| key == account)
    }

    /// The mint's token accounts in this transaction and their owners after it, as far as the node shows them.
    pub(super) fn owners(
        &self,
        mint: &Pubkey,
        meta: &UiTransactionStatusMeta,
    ) -> Vec<(Pubkey, Pubkey)> {
        let balances: Option<&Vec<_>> = Option::from(meta.post_token_balances.as_ref());
        let of_mint = |balance: &&UiTransactionTokenBalance| balance.mint == mint.to_string();
        balances
            .into_iter()
            .flatten()
            .filter(of_mint)
            .filter_map(|balance| {
                let owner: Option<&String> = Option::from(balance.owner.as_ref());
                let account = self.account(balance.account_index)?;
                Some((*account, owner?.parse().ok()?))
            })
            .collect()
    }

    /// Token accounts and what each received of the mint by this authority's signature, instruction by instruction.
    pub(super) fn mints(&self, mint: &Pubkey, authority: &Pubkey) -> Vec<(Pubkey, BaseUnits)> {
        let mut payments = Vec::new();
        for instruction in &self.instructions {
            if self.account(instruction.program) == Some(&spl_token_interface::ID) {
                self.collect_mints(
                    &instruction.accounts,
                    &instruction.data,
                    mint,
                    authority,
                    &mut payments,
                );
            }
        }
        payments
    }

    /// A batch instruction holds instructions of the same program, and may hold batches.
    fn collect_mints(
        &self,
        accounts: &[u8],
        data: &[u8],
        mint: &Pubkey,
        authority: &Pubkey,
        payments: &mut Vec<(Pubkey, BaseUnits)>,
    ) {
        match TokenInstruction::unpack(data) {
            Ok(
                TokenInstruction::MintTo { amount }
                | TokenInstruction::MintToChecked { amount, .. },
            ) => {
                let at = |position: usize| accounts.get(position).copied();
                let signed = at(AUTHORITY).is_some_and(|index| usize::from(index) < self.signers);
                let is = |position, expected| {
                    at(position).and_then(|index| self.account(index)) == Some(expected)
                };
                if signed && is(MINT, mint) && is(AUTHORITY, authority) {
                    let paid = at(TOKEN_ACCOUNT).and_then(|index| self.account(index));
                    payments.extend(paid.map(|account| (*account, BaseUnits::new(amount))));
                }
            }
            Ok(TokenInstruction::Batch) => {
                for (accounts, data) in batched(accounts, &data[1..]) {
                    self.collect_mints(accounts, data, mint, authority, payments);
                }
            }
            _ => {}
        }
    }

    /// Texts of all memos, without U+0000, which no text column can store.
    pub(super) fn memos(&self) -> Vec<String> {
        self.instructions
            .iter()
            .filter(|instruction| {
                self.account(instruction.program)
                    .is_some_and(is_memo_program)
            })
            .map(|memo| String::from_utf8_lossy(&memo.data).replace('\0', "\u{fffd}"))
            .collect()
    }

    fn account(&self, index: u8) -> Option<&Pubkey> {
        self.accounts.get(usize::from(index))
    }
}

/// The instructions inside a batch: each has a header, then its data; accounts follow one another.
fn batched<'a>(
    mut accounts: &'a [u8],
    mut data: &'a [u8],
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    std::iter::from_fn(move || {
        let (header, rest) = data.split_at_checked(BATCH_HEADER_BYTES)?;
        let (own_accounts, other_accounts) = accounts.split_at_checked(usize::from(header[0]))?;
        let (own_data, other_data) = rest.split_at_checked(usize::from(header[1]))?;
        accounts = other_accounts;
        data = other_data;
        Some((own_accounts, own_data))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use solana_sdk::hash::Hash;
    use solana_sdk::instruction::{AccountMeta, Instruction as Call};
    use solana_sdk::message::{Message, VersionedMessage, v0};
    use solana_sdk::signature::{Keypair, Signature, Signer};
    use solana_transaction_status::option_serializer::OptionSerializer;
    use solana_transaction_status::{
        TransactionStatusMeta, UiCompiledInstruction, UiInnerInstructions, UiLoadedAddresses,
    };
    use spl_token_interface::instruction::{batch, burn, mint_to, mint_to_checked};

    use super::*;
    use crate::domain::{
        ComputeUnitPrice, MintNumber, Payment, TransactionFormat, TransactionTerms, Wallet,
        instructions,
    };

    const TOKEN: Pubkey = spl_token_interface::ID;

    struct Keys {
        authority: Keypair,
        mint: Pubkey,
    }

    impl Keys {
        fn new() -> Keys {
            Keys {
                authority: Keypair::new(),
                mint: Pubkey::new_unique(),
            }
        }

        fn mint_to(&self, account: &Pubkey, amount: u64) -> Call {
            let authority = self.authority.pubkey();
            mint_to(&TOKEN, &self.mint, account, &authority, &[], amount).unwrap()
        }

        fn paid(&self, calls: &[Call]) -> Vec<(Pubkey, BaseUnits)> {
            let message = Message::new(calls, Some(&self.authority.pubkey()));
            let executed = executed(VersionedMessage::Legacy(message), outcome());
            executed.mints(&self.mint, &self.authority.pubkey())
        }
    }

    fn outcome() -> UiTransactionStatusMeta {
        TransactionStatusMeta::default().into()
    }

    fn executed(message: VersionedMessage, meta: UiTransactionStatusMeta) -> ExecutedTransaction {
        let signatures = usize::from(message.header().num_required_signatures);
        let transaction = VersionedTransaction {
            signatures: vec![Signature::default(); signatures],
            message,
        };
        ExecutedTransaction::decode(&transaction, &meta).unwrap()
    }

    fn amounts(paid: &[(Pubkey, BaseUnits)]) -> Vec<u64> {
        paid.iter()
            .map(|(_, base_units)| base_units.get())
            .collect()
    }

    #[test]
    fn what_our_own_transactions_pay_is_decoded() {
        let keys = Keys::new();
        let memo = Memo::new(MintNumber::from_bytes([0, 0, 0, 0, 0, 7]), [9; 32]);
        let payments: Vec<Payment> = (1..=9)
            .map(|base_units| Payment {
                wallet: Wallet::from_stored(Pubkey::new_unique().to_bytes()),
                base_units: BaseUnits::new(base_units),
                create_account: base_units % 2 == 0,
            })
            .collect();
        let authority = keys.authority.pubkey();
        let fee_payer = Pubkey::new_unique();
        let expected: Vec<(Pubkey, BaseUnits)> = payments
            .iter()
            .map(|payment| (payment.wallet.token_account(&keys.mint), payment.base_units))
            .collect();
        for format in TransactionFormat::ALL {
            let price = ComputeUnitPrice::from_micro_lamports(5_000);
            let terms = TransactionTerms { format, price };
            let built = instructions(&payments, &keys.mint, &authority, &fee_payer, &memo, terms);
            let executed = executed(built.compile(&fee_payer).unwrap(), outcome());
            assert_eq!(executed.mints(&keys.mint, &authority), expected);
            assert_eq!(our_memo(&executed.memos()), Some(memo));
        }
    }

    #[test]
    fn only_our_mint_by_our_authority_counts() {
        let (keys, other) = (Keys::new(), Keys::new());
        let (account, authority) = (Pubkey::new_unique(), keys.authority.pubkey());
        let checked = mint_to_checked(&TOKEN, &keys.mint, &account, &authority, &[], 2, 9).unwrap();
        let other_mint = mint_to(&TOKEN, &other.mint, &account, &authority, &[], 4).unwrap();
        let other_authority = other.authority.pubkey();
        let by_other = mint_to(&TOKEN, &keys.mint, &account, &other_authority, &[], 8).unwrap();
        let burned = burn(&TOKEN, &account, &keys.mint, &authority, &[], 16).unwrap();
        let mut other_program = keys.mint_to(&account, 32);
        other_program.program_id = Pubkey::new_unique();
        let mut unsigned = keys.mint_to(&account, 64);
        unsigned.accounts[AUTHORITY].is_signer = false;

        let calls = [
            keys.mint_to(&account, 1),
            checked,
            other_mint,
            by_other,
            burned,
            other_program,
        ];
        assert_eq!(amounts(&keys.paid(&calls)), [1, 2]);
        // Mentioned, not signed: another key pays the fee.
        let message = Message::new(&[unsigned], Some(&other_authority));
        let executed = executed(VersionedMessage::Legacy(message), outcome());
        assert_eq!(executed.mints(&keys.mint, &authority), []);
    }

    #[test]
    fn mints_inside_a_batch_count() {
        let keys = Keys::new();
        let (one, two) = (Pubkey::new_unique(), Pubkey::new_unique());
        let authority = keys.authority.pubkey();
        let burned = burn(&TOKEN, &one, &keys.mint, &authority, &[], 3).unwrap();
        let all = batch(
            &TOKEN,
            &[keys.mint_to(&one, 1), burned, keys.mint_to(&two, 5)],
        );
        let expected = [(one, BaseUnits::new(1)), (two, BaseUnits::new(5))];
        assert_eq!(keys.paid(&[all.unwrap()]), expected);
    }

    #[test]
    fn mints_by_another_program_count_also_to_accounts_from_a_lookup_table() {
        let keys = Keys::new();
        let authority = keys.authority.pubkey();
        let (writable, readonly) = (Pubkey::new_unique(), Pubkey::new_unique());
        let program = Pubkey::new_unique();
        let call = Call::new_with_bytes(
            program,
            &[],
            vec![
                AccountMeta::new_readonly(authority, true),
                AccountMeta::new(keys.mint, false),
                AccountMeta::new_readonly(TOKEN, false),
            ],
        );
        let message = v0::Message::try_compile(&authority, &[call], &[], Hash::default()).unwrap();
        let index = |address: &Pubkey| {
            let keys = &message.account_keys;
            let position = keys.iter().position(|key| key == address).unwrap();
            u8::try_from(position).unwrap()
        };
        let loaded = u8::try_from(message.account_keys.len()).unwrap();
        let called = UiCompiledInstruction {
            program_id_index: index(&TOKEN),
            accounts: vec![index(&keys.mint), loaded, index(&authority)],
            data: bs58::encode(TokenInstruction::MintTo { amount: 11 }.pack()).into_string(),
            stack_height: Some(2),
        };
        let mut meta = outcome();
        meta.loaded_addresses = OptionSerializer::Some(UiLoadedAddresses {
            writable: vec![writable.to_string()],
            readonly: vec![readonly.to_string()],
        });
        meta.inner_instructions = OptionSerializer::Some(vec![UiInnerInstructions {
            index: 0,
            instructions: vec![UiInstruction::Compiled(called)],
        }]);

        let executed = executed(VersionedMessage::V0(message), meta);
        assert_eq!(
            executed.mints(&keys.mint, &authority),
            [(writable, BaseUnits::new(11))]
        );
    }

    #[test]
    fn without_the_called_instructions_only_our_own_kind_of_transaction_is_complete() {
        let keys = Keys::new();
        let authority = keys.authority.pubkey();
        let ours = keys.mint_to(&Pubkey::new_unique(), 1);
        let by_another_program = Call::new_with_bytes(
            Pubkey::new_unique(),
            &[],
            vec![AccountMeta::new_readonly(authority, true)],
        );
        let complete = |call: &Call, inner: OptionSerializer<Vec<UiInnerInstructions>>| {
            let message = Message::new(std::slice::from_ref(call), Some(&authority));
            let mut meta = outcome();
            meta.inner_instructions = inner;
            executed(VersionedMessage::Legacy(message), meta).is_complete()
        };
        assert!(complete(&ours, OptionSerializer::None));
        assert!(complete(
            &by_another_program,
            OptionSerializer::Some(Vec::new())
        ));
        assert!(!complete(&by_another_program, OptionSerializer::None));
        assert!(!complete(&by_another_program, OptionSerializer::Skip));
    }

    #[test]
    fn an_outcome_that_cannot_be_decoded_is_not_an_outcome() {
        let keys = Keys::new();
        let calls = [keys.mint_to(&Pubkey::new_unique(), 1)];
        let message = Message::new(&calls, Some(&keys.authority.pubkey()));
        let transaction = VersionedTransaction {
            signatures: vec![Signature::default()],
            message: VersionedMessage::Legacy(message),
        };
        let mut meta = outcome();
        meta.loaded_addresses = OptionSerializer::Some(UiLoadedAddresses {
            writable: vec!["no address".to_owned()],
            readonly: Vec::new(),
        });
        assert!(ExecutedTransaction::decode(&transaction, &meta).is_none());
    }

    #[test]
    fn two_memos_of_ours_in_one_transaction_both_count_as_none() {
        let memo =
            |number| Memo::new(MintNumber::from_bytes([0, 0, 0, 0, 0, number]), [1; 32]).encode();
        assert_eq!(
            our_memo(&["hello".to_owned(), memo(1)]),
            Memo::parse(&memo(1))
        );
        assert_eq!(our_memo(&[memo(1), memo(2)]), None);
        assert_eq!(our_memo(&["hello".to_owned()]), None);
        assert_eq!(our_memo(&[]), None);
    }

    proptest! {
        #[test]
        fn no_instruction_data_panics(data in proptest::collection::vec(any::<u8>(), 0..80), accounts in proptest::collection::vec(any::<u8>(), 0..8)) {
            let keys = Keys::new();
            let executed = ExecutedTransaction {
                accounts: vec![keys.authority.pubkey(), keys.mint, TOKEN],
                signers: 1,
                own_instructions: 1,
                called_are_known: true,
                instructions: vec![Instruction { program: 2, accounts, data }],
            };
            executed.mints(&keys.mint, &keys.authority.pubkey());
        }
    }
}
