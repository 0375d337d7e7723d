//! A block as it is stored: its header, its changes of accounts, and its transactions.

use bincode::Options;
use serde::{Deserialize, Serialize};
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signature;
use surfpool_core::solana_account::Account;

use crate::error::StoreError;
use crate::transaction_record::encoding;

/// The stored part of a block besides its transactions. Its blockhash is derived from its height.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub height: u64,
    /// Seconds since 1970.
    pub time: i64,
    /// In the order of execution.
    pub signatures: Vec<Signature>,
}

/// The change of one account by a block.
#[derive(Clone, Debug)]
pub enum AccountChange {
    Whole(Account),
    /// Only the balance is known: after an airdrop or a failed transaction.
    Lamports(u64),
}

/// One block, complete, as it is written.
#[derive(Debug)]
pub struct Block {
    pub slot: u64,
    pub header: Header,
    pub accounts: Vec<(Pubkey, AccountChange)>,
    pub transactions: Vec<(Signature, Vec<u8>)>,
}

#[derive(Serialize, Deserialize)]
struct StoredAccount {
    lamports: u64,
    owner: Pubkey,
    executable: bool,
    rent_epoch: u64,
    data: Vec<u8>,
}

pub fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, StoreError> {
    encoding()
        .serialize(value)
        .map_err(|error| StoreError::Corrupt {
            what,
            reason: error.to_string(),
        })
}

pub fn decode<T: for<'de> Deserialize<'de>>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, StoreError> {
    encoding()
        .deserialize(bytes)
        .map_err(|error| StoreError::Corrupt {
            what,
            reason: error.to_string(),
        })
}

pub fn encode_account(account: Account) -> Result<Vec<u8>, StoreError> {
    encode(
        "account",
        &StoredAccount {
            lamports: account.lamports,
            owner: account.owner,
            executable: account.executable,
            rent_epoch: account.rent_epoch,
            data: account.data,
        },
    )
}

pub fn decode_account(bytes: &[u8]) -> Result<Account, StoreError> {
    let stored: StoredAccount = decode("account", bytes)?;
    Ok(Account {
        lamports: stored.lamports,
        owner: stored.owner,
        executable: stored.executable,
        rent_epoch: stored.rent_epoch,
        data: stored.data,
    })
}
