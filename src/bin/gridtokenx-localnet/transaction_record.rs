//! How a transaction is stored: its signed bytes, and its metadata without repetitions.
//!
//! A transaction of 18 mints and a memo takes 2.6 kB here and about 60 kB as JSON. The difference is text: log lines and token
//! balances repeat the same few addresses in base58. Here an address that the message lists is stored as its index there, and
//! an amount as a number.

use bincode::Options;
use serde::{Deserialize, Serialize};
use solana_account_decoder::parse_account_data::SplTokenAdditionalDataV2;
use solana_account_decoder::parse_token::token_amount_to_ui_amount_v3;
use solana_sdk::message::AccountKeys;
use solana_sdk::message::v0::LoadedAddresses;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::transaction::{TransactionError, VersionedTransaction};
use solana_transaction_status::{
    InnerInstructions, TransactionStatusMeta, TransactionTokenBalance,
};
use surfpool_core::types::TransactionWithStatusMeta;

use crate::error::StoreError;
use crate::log_line::LogLine;
use crate::outline;

/// Encodes small numbers in one byte.
pub fn encoding() -> impl Options {
    bincode::DefaultOptions::new()
}

/// What a list of transactions needs comes first, so that listing reads no further.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    slot: u64,
    status: Result<(), TransactionError>,
    loaded_addresses: LoadedAddresses,
    signed_bytes: &'a [u8],
}

/// `None` and an empty list are different answers of JSON-RPC, so the distinction is stored.
#[derive(Serialize, Deserialize)]
struct Details {
    fee: u64,
    pre_balances: Vec<u64>,
    post_balances: Vec<u64>,
    inner_instructions: Option<Vec<InnerInstructions>>,
    log_lines: Option<Vec<LogLine>>,
    token_balances: Option<Vec<TokenBalance>>,
    return_data: Option<(Pubkey, Vec<u8>)>,
    compute_units_consumed: Option<u64>,
    cost_units: Option<u64>,
}

/// A token account's balance before and after: two entries of JSON-RPC's lists, which mostly differ by the amount.
#[derive(Serialize, Deserialize)]
struct TokenBalance {
    account_index: u8,
    mint: Address,
    owner: Address,
    program: Address,
    decimals: u8,
    before: Option<u64>,
    after: Option<u64>,
}

/// An address, as its index in the message where the message lists it.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
enum Address {
    InMessage(u8),
    Other(Pubkey),
    /// Not an address; surfpool reports the addresses of balances as text.
    Text(String),
}

pub fn encode(transaction: &TransactionWithStatusMeta) -> Result<Vec<u8>, StoreError> {
    let meta = &transaction.meta;
    let message = &transaction.transaction.message;
    let keys = Keys::new(message.static_account_keys(), &meta.loaded_addresses);
    let signed_bytes = bincode::serialize(&transaction.transaction).map_err(corrupt)?;
    let head = Head {
        slot: transaction.slot,
        status: meta.status.clone(),
        loaded_addresses: meta.loaded_addresses.clone(),
        signed_bytes: &signed_bytes,
    };
    let details = Details {
        fee: meta.fee,
        pre_balances: meta.pre_balances.clone(),
        post_balances: meta.post_balances.clone(),
        inner_instructions: meta.inner_instructions.clone(),
        log_lines: meta.log_messages.as_ref().map(|lines| {
            lines
                .iter()
                .map(|line| LogLine::parse(line, &keys.texts))
                .collect()
        }),
        token_balances: match (&meta.pre_token_balances, &meta.post_token_balances) {
            (None, None) => None,
            (before, after) => Some(keys.join(
                before.as_deref().unwrap_or_default(),
                after.as_deref().unwrap_or_default(),
            )?),
        },
        return_data: meta
            .return_data
            .as_ref()
            .map(|returned| (returned.program_id, returned.data.clone())),
        compute_units_consumed: meta.compute_units_consumed,
        cost_units: meta.cost_units,
    };
    encoding().serialize(&(head, details)).map_err(corrupt)
}

pub fn decode(bytes: &[u8]) -> Result<TransactionWithStatusMeta, StoreError> {
    let (head, details): (Head, Details) = encoding().deserialize(bytes).map_err(corrupt)?;
    let transaction: VersionedTransaction =
        bincode::deserialize(head.signed_bytes).map_err(corrupt)?;
    let keys = Keys::new(
        transaction.message.static_account_keys(),
        &head.loaded_addresses,
    );
    let log_messages = details
        .log_lines
        .map(|lines| lines.iter().map(|line| line.render(&keys.texts)).collect());
    let (pre_token_balances, post_token_balances) = match details.token_balances {
        None => (None, None),
        Some(balances) => (
            Some(keys.split(&balances, |balance| balance.before)),
            Some(keys.split(&balances, |balance| balance.after)),
        ),
    };
    let mut meta = TransactionStatusMeta {
        status: head.status,
        fee: details.fee,
        pre_balances: details.pre_balances,
        post_balances: details.post_balances,
        inner_instructions: details.inner_instructions,
        log_messages,
        pre_token_balances,
        post_token_balances,
        // surfpool pays no rewards.
        rewards: Some(Vec::new()),
        loaded_addresses: head.loaded_addresses,
        return_data: None,
        compute_units_consumed: details.compute_units_consumed,
        cost_units: details.cost_units,
    };
    if let Some((program_id, data)) = details.return_data {
        let returned = meta.return_data.get_or_insert_default();
        returned.program_id = program_id;
        returned.data = data;
    }
    Ok(TransactionWithStatusMeta {
        slot: head.slot,
        transaction,
        meta,
    })
}

/// Decodes only what a list of transactions needs: slot, error, addresses, and of the instructions the memos.
pub fn decode_listed(bytes: &[u8]) -> Result<TransactionWithStatusMeta, StoreError> {
    let mut reader = bincode::Deserializer::from_slice(bytes, encoding());
    let head = Head::deserialize(&mut reader).map_err(corrupt)?;
    let memo_programs = [spl_memo_interface::v1::ID, spl_memo_interface::v3::ID];
    let Some(transaction) = outline::outline(head.signed_bytes, &memo_programs) else {
        return decode(bytes);
    };
    Ok(TransactionWithStatusMeta {
        slot: head.slot,
        transaction,
        meta: TransactionStatusMeta {
            status: head.status,
            loaded_addresses: head.loaded_addresses,
            ..TransactionStatusMeta::default()
        },
    })
}

/// The addresses of one message, in its order, with those from lookup tables.
struct Keys {
    keys: Vec<Pubkey>,
    texts: Vec<String>,
}

impl Keys {
    fn new(in_message: &[Pubkey], loaded: &LoadedAddresses) -> Self {
        let keys: Vec<Pubkey> = AccountKeys::new(in_message, Some(loaded))
            .iter()
            .copied()
            .collect();
        let texts = keys.iter().map(Pubkey::to_string).collect();
        Self { keys, texts }
    }

    fn address(&self, text: &str) -> Address {
        if let Some(index) = self.texts.iter().position(|known| known == text)
            && let Ok(index) = u8::try_from(index)
        {
            return Address::InMessage(index);
        }
        match text.parse() {
            Ok(pubkey) => Address::Other(pubkey),
            Err(_) => Address::Text(text.to_owned()),
        }
    }

    fn text(&self, address: &Address) -> String {
        match address {
            Address::InMessage(index) => self
                .keys
                .get(usize::from(*index))
                .map(Pubkey::to_string)
                .unwrap_or_default(),
            Address::Other(pubkey) => pubkey.to_string(),
            Address::Text(text) => text.clone(),
        }
    }

    /// Merges the two lists, which are ordered by account.
    fn join(
        &self,
        before: &[TransactionTokenBalance],
        after: &[TransactionTokenBalance],
    ) -> Result<Vec<TokenBalance>, StoreError> {
        let mut joined = Vec::with_capacity(before.len().max(after.len()));
        let mut after = after.iter().peekable();
        for balance in before {
            while let Some(created) =
                after.next_if(|other| other.account_index < balance.account_index)
            {
                joined.push(self.balance(created, None, Some(amount(created)?)));
            }
            let same = after.next_if(|other| same_account(balance, other));
            let amount_after = same.map(amount).transpose()?;
            joined.push(self.balance(balance, Some(amount(balance)?), amount_after));
        }
        for created in after {
            joined.push(self.balance(created, None, Some(amount(created)?)));
        }
        Ok(joined)
    }

    fn balance(
        &self,
        balance: &TransactionTokenBalance,
        before: Option<u64>,
        after: Option<u64>,
    ) -> TokenBalance {
        TokenBalance {
            account_index: balance.account_index,
            mint: self.address(&balance.mint),
            owner: self.address(&balance.owner),
            program: self.address(&balance.program_id),
            decimals: balance.ui_token_amount.decimals,
            before,
            after,
        }
    }

    fn split(
        &self,
        balances: &[TokenBalance],
        side: impl Fn(&TokenBalance) -> Option<u64>,
    ) -> Vec<TransactionTokenBalance> {
        balances
            .iter()
            .filter_map(|balance| {
                let amount = side(balance)?;
                Some(TransactionTokenBalance {
                    account_index: balance.account_index,
                    mint: self.text(&balance.mint),
                    ui_token_amount: token_amount_to_ui_amount_v3(
                        amount,
                        &SplTokenAdditionalDataV2::with_decimals(balance.decimals),
                    ),
                    owner: self.text(&balance.owner),
                    program_id: self.text(&balance.program),
                })
            })
            .collect()
    }
}

fn same_account(one: &TransactionTokenBalance, other: &TransactionTokenBalance) -> bool {
    one.account_index == other.account_index
        && one.mint == other.mint
        && one.owner == other.owner
        && one.program_id == other.program_id
        && one.ui_token_amount.decimals == other.ui_token_amount.decimals
}

fn amount(balance: &TransactionTokenBalance) -> Result<u64, StoreError> {
    balance.ui_token_amount.amount.parse().map_err(corrupt)
}

fn corrupt(reason: impl ToString) -> StoreError {
    StoreError::Corrupt {
        what: "transaction",
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use solana_sdk::message::{Message, VersionedMessage};
    use solana_sdk::signature::Signature;

    fn balance(account_index: u8, mint: Pubkey, amount: u64) -> TransactionTokenBalance {
        TransactionTokenBalance {
            account_index,
            mint: mint.to_string(),
            ui_token_amount: token_amount_to_ui_amount_v3(
                amount,
                &SplTokenAdditionalDataV2::with_decimals(9),
            ),
            owner: Pubkey::new_from_array([7; 32]).to_string(),
            program_id: spl_token_interface::ID.to_string(),
        }
    }

    fn transaction(keys: Vec<Pubkey>, meta: TransactionStatusMeta) -> TransactionWithStatusMeta {
        TransactionWithStatusMeta {
            slot: 31,
            transaction: VersionedTransaction {
                signatures: vec![Signature::from([3; 64])],
                message: VersionedMessage::Legacy(Message {
                    account_keys: keys,
                    ..Message::default()
                }),
            },
            meta,
        }
    }

    #[test]
    fn a_transaction_is_decoded_as_it_was_encoded() {
        let payer = Pubkey::new_from_array([1; 32]);
        let mint = Pubkey::new_from_array([2; 32]);
        let program = spl_token_interface::ID;
        let original = transaction(
            vec![payer, mint, program],
            TransactionStatusMeta {
                status: Ok(()),
                fee: 5_000,
                pre_balances: vec![10_000, 1, 1],
                post_balances: vec![5_000, 1, 1],
                log_messages: Some(vec![
                    format!("Program {program} invoke [1]"),
                    "Program log: Memo (len 5): \"g1abc\"".to_owned(),
                    format!("Program {program} consumed 119 of 199881 compute units"),
                    format!("Program {program} success"),
                ]),
                // Account 1 is created, 2 grows, 3 is closed.
                pre_token_balances: Some(vec![balance(2, mint, 5), balance(3, mint, 9)]),
                post_token_balances: Some(vec![balance(1, mint, 7), balance(2, mint, u64::MAX)]),
                compute_units_consumed: Some(119),
                ..TransactionStatusMeta::default()
            },
        );
        let bytes = encode(&original).unwrap();
        let back = decode(&bytes).unwrap();
        assert_eq!(back.slot, original.slot);
        assert_eq!(back.transaction, original.transaction);
        assert_eq!(
            back.meta,
            TransactionStatusMeta {
                rewards: Some(Vec::new()),
                ..original.meta
            }
        );
    }

    #[test]
    fn a_failed_transaction_is_decoded_with_its_error() {
        let original = transaction(
            vec![Pubkey::new_from_array([1; 32])],
            TransactionStatusMeta {
                status: Err(TransactionError::InsufficientFundsForFee),
                ..TransactionStatusMeta::default()
            },
        );
        let bytes = encode(&original).unwrap();
        for back in [decode(&bytes).unwrap(), decode_listed(&bytes).unwrap()] {
            assert_eq!(back.slot, 31);
            assert_eq!(
                back.meta.status,
                Err(TransactionError::InsufficientFundsForFee)
            );
        }
    }
}
