//! Encodes a transaction for the store: its signed bytes, and its metadata without repetitions.
//!
//! A transaction of 18 mints and a memo takes 2.6 kB here and about 60 kB as JSON. The difference is text: log lines and token
//! balances repeat the same few addresses in base58. Here an address that the message lists is stored as its index there, and
//! an amount as a number.
//!
//! The signed bytes are those of the wire, which only `wincode` writes: `bincode` writes other bytes for a transaction of
//! version 1, without an error. Records of a store of format 1 hold bincode's bytes, which bincode reads back.

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

/// Begins a record that states its version. A record of a store of format 1 begins with its slot, and no number begins with
/// this byte in the [`encoding`].
const VERSION_MARKER: u8 = 0xff;

/// Of a record whose signed bytes are those of the wire.
const WIRE_RECORD: u8 = 2;

/// The encoding of the signed bytes in a record.
#[derive(Clone, Copy)]
enum SignedBytesEncoding {
    /// In records without a version. Equals the wire for legacy transactions and those of version 0.
    Bincode,
    Wire,
}

impl SignedBytesEncoding {
    /// Splits a record into the encoding that it states and the rest.
    fn split(record: &[u8]) -> Result<(Self, &[u8]), StoreError> {
        match record {
            [VERSION_MARKER, WIRE_RECORD, rest @ ..] => Ok((Self::Wire, rest)),
            [VERSION_MARKER, version, ..] => Err(corrupt(format!(
                "its record has version {version}, this program reads versions up to {WIRE_RECORD}"
            ))),
            _ => Ok((Self::Bincode, record)),
        }
    }

    fn decode(self, signed_bytes: &[u8]) -> Result<VersionedTransaction, StoreError> {
        match self {
            Self::Bincode => bincode::deserialize(signed_bytes).map_err(corrupt),
            Self::Wire => wincode::deserialize(signed_bytes).map_err(corrupt),
        }
    }
}

/// The fields that a list of transactions needs: they come first, so that listing reads no further.
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
    let signed_bytes = wincode::serialize(&transaction.transaction).map_err(corrupt)?;
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
    let mut record = vec![VERSION_MARKER, WIRE_RECORD];
    encoding()
        .serialize_into(&mut record, &(head, details))
        .map_err(corrupt)?;
    Ok(record)
}

pub fn decode(record: &[u8]) -> Result<TransactionWithStatusMeta, StoreError> {
    let (signed_bytes, rest) = SignedBytesEncoding::split(record)?;
    let (head, details): (Head, Details) = encoding().deserialize(rest).map_err(corrupt)?;
    let transaction = signed_bytes.decode(head.signed_bytes)?;
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
pub fn decode_listed(record: &[u8]) -> Result<TransactionWithStatusMeta, StoreError> {
    let (_, rest) = SignedBytesEncoding::split(record)?;
    let mut reader = bincode::Deserializer::from_slice(rest, encoding());
    let head = Head::deserialize(&mut reader).map_err(corrupt)?;
    let memo_programs = [spl_memo_interface::v1::ID, spl_memo_interface::v3::ID];
    let Some(transaction) = outline::outline(head.signed_bytes, &memo_programs) else {
        return decode(record);
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
mod tests;
