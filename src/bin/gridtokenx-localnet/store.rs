//! The embedded store: one redb file, one transaction per block.
//!
//! Invariant: the file holds the chain as it was after some block, never between two. Kept by writing a block's accounts,
//! transactions and header in one transaction of redb; it would break if anything wrote a part alone.

use std::path::Path;

use redb::backends::InMemoryBackend;
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};
use solana_sdk::hash::Hash;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signature;
use surfpool_core::solana_account::Account;
use surfpool_core::types::TransactionWithStatusMeta;

use crate::block::{AccountChange, Block, Header, decode, decode_account, encode, encode_account};
use crate::error::StoreError;
use crate::parameters::{Choice, Parameters};
use crate::transaction_record;

/// To be raised with every change of the stored format.
pub const FORMAT_VERSION: u32 = 2;

/// Its transactions' records state no version: this program reads them and continues the chain as one of
/// [`FORMAT_VERSION`].
const UNVERSIONED_RECORDS: u32 = 1;

/// Headers of blocks without transactions are stored for a day of 200 ms slots; older ones are a function of their neighbours.
/// Without this limit an idle chain would grow by 430,000 rows a day.
const EMPTY_HEADERS_KEPT: u64 = 432_000;

/// redb's default of 1 GiB is more memory than the rest of this program needs.
const CACHE_BYTES: usize = 24 * 1024 * 1024;

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const ACCOUNTS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("accounts");
const TRANSACTIONS: TableDefinition<&[u8; 64], &[u8]> = TableDefinition::new("transactions");
const HEADERS: TableDefinition<u64, &[u8]> = TableDefinition::new("headers");

const VERSION_KEY: &str = "version";
const GENESIS_HASH_KEY: &str = "genesis hash";
const PARAMETERS_KEY: &str = "parameters";

/// The open store. One process has it open at a time.
pub struct Store {
    database: Database,
}

impl Store {
    /// Opens or creates the file. A file of a later version is refused.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| match error {
                redb::DatabaseError::UpgradeRequired(version) => {
                    StoreError::OtherVersion(format!("of file format {version}"))
                }
                other => other.into(),
            })?;
        Self::prepare(database)
    }

    /// A store that ends with the process.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::prepare(
            Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(InMemoryBackend::new())?,
        )
    }

    fn prepare(database: Database) -> Result<Self, StoreError> {
        let store = Self { database };
        let transaction = store.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            let found = meta
                .get(VERSION_KEY)?
                .map(|version| version.value().to_vec());
            match found.as_deref().map(version_of) {
                Some(Some(FORMAT_VERSION)) => return Ok(store),
                Some(Some(UNVERSIONED_RECORDS)) => {
                    meta.insert(VERSION_KEY, FORMAT_VERSION.to_le_bytes().as_slice())?;
                }
                None => {
                    meta.insert(VERSION_KEY, FORMAT_VERSION.to_le_bytes().as_slice())?;
                    let parameters = encode("parameters", &Parameters::OF_A_NEW_CHAIN)?;
                    meta.insert(PARAMETERS_KEY, parameters.as_slice())?;
                }
                Some(other) => {
                    let other = other.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
                    return Err(StoreError::OtherVersion(other));
                }
            }
            transaction.open_table(ACCOUNTS)?;
            transaction.open_table(TRANSACTIONS)?;
            transaction.open_table(HEADERS)?;
        }
        transaction.commit()?;
        Ok(store)
    }

    /// With quick repair: the next start after a kill -9 opens at once instead of reading the whole file.
    fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_quick_repair(true);
        Ok(transaction)
    }

    /// The genesis hash of the chain in this store, and its newest block. A new chain begins with `first_blocks`, which are
    /// empty, oldest first.
    pub fn begin_or_continue(
        &self,
        new_genesis_hash: Hash,
        first_blocks: &[(u64, Header)],
    ) -> Result<(Hash, (u64, Header)), StoreError> {
        let transaction = self.begin_write()?;
        let (genesis_hash, tip) = {
            let mut meta = transaction.open_table(META)?;
            let mut headers = transaction.open_table(HEADERS)?;
            let stored = meta
                .get(GENESIS_HASH_KEY)?
                .map(|bytes| decode("genesis hash", bytes.value()))
                .transpose()?;
            let genesis_hash = match stored {
                Some(genesis_hash) => genesis_hash,
                None => {
                    let bytes = encode("genesis hash", &new_genesis_hash)?;
                    meta.insert(GENESIS_HASH_KEY, bytes.as_slice())?;
                    for (slot, header) in first_blocks {
                        headers.insert(slot, encode("header", header)?.as_slice())?;
                    }
                    new_genesis_hash
                }
            };
            let (slot, header) = headers.last()?.ok_or_else(|| StoreError::Corrupt {
                what: "chain",
                reason: "it has no block".to_owned(),
            })?;
            (
                genesis_hash,
                (slot.value(), decode("header", header.value())?),
            )
        };
        transaction.commit()?;
        Ok((genesis_hash, tip))
    }

    /// The chain's parameters, as the command line chooses them or as they were; these are stored.
    pub fn parameters(&self, chosen: Choice) -> Result<Parameters, StoreError> {
        let transaction = self.begin_write()?;
        let parameters = {
            let mut meta = transaction.open_table(META)?;
            let stored = meta
                .get(PARAMETERS_KEY)?
                .map(|bytes| decode("parameters", bytes.value()))
                .transpose()?;
            let parameters = chosen.apply_to(stored.unwrap_or(Parameters::UNSTORED));
            meta.insert(
                PARAMETERS_KEY,
                encode("parameters", &parameters)?.as_slice(),
            )?;
            parameters
        };
        transaction.commit()?;
        Ok(parameters)
    }

    /// Writes a block atomically.
    pub fn write(&self, block: &Block) -> Result<(), StoreError> {
        let transaction = self.begin_write()?;
        {
            let mut accounts = transaction.open_table(ACCOUNTS)?;
            for (pubkey, change) in &block.accounts {
                let key = pubkey.as_array();
                let account = match change {
                    AccountChange::Whole(account) => account.clone(),
                    AccountChange::Lamports(lamports) => {
                        let stored = accounts
                            .get(key)?
                            .map(|bytes| decode_account(bytes.value()));
                        Account {
                            lamports: *lamports,
                            ..stored.transpose()?.unwrap_or_default()
                        }
                    }
                };
                if account.lamports == 0 {
                    // Closed. A restart begins with the programs only, so a missing row means the same.
                    accounts.remove(key)?;
                } else {
                    accounts.insert(key, encode_account(account)?.as_slice())?;
                }
            }
            let mut transactions = transaction.open_table(TRANSACTIONS)?;
            for (signature, record) in &block.transactions {
                transactions.insert(signature.as_array(), record.as_slice())?;
            }
            let mut headers = transaction.open_table(HEADERS)?;
            headers.insert(block.slot, encode("header", &block.header)?.as_slice())?;
            // The first one is never removed: those after it are derived from it.
            if let Some(old) = block
                .slot
                .checked_sub(EMPTY_HEADERS_KEPT)
                .filter(|&old| old > 0)
            {
                let is_empty = headers
                    .get(old)?
                    .map(|bytes| decode::<Header>("header", bytes.value()))
                    .transpose()?
                    .is_some_and(|header| header.signatures.is_empty());
                if is_empty {
                    headers.remove(old)?;
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// The newest stored header whose slot is not above `slot`.
    pub fn header_at_or_below(&self, slot: u64) -> Result<Option<(u64, Header)>, StoreError> {
        let headers = self.database.begin_read()?.open_table(HEADERS)?;
        let found = headers.range(..=slot)?.next_back().transpose()?;
        found
            .map(|(slot, bytes)| Ok((slot.value(), decode("header", bytes.value())?)))
            .transpose()
    }

    /// The slots of all stored headers, oldest first.
    pub fn slots(&self) -> Result<Vec<u64>, StoreError> {
        let headers = self.database.begin_read()?.open_table(HEADERS)?;
        headers.iter()?.map(|row| Ok(row?.0.value())).collect()
    }

    /// Up to `limit` headers, newest first.
    pub fn newest_headers(&self, limit: usize) -> Result<Vec<(u64, Header)>, StoreError> {
        let headers = self.database.begin_read()?.open_table(HEADERS)?;
        headers
            .iter()?
            .rev()
            .take(limit)
            .map(|row| {
                let (slot, bytes) = row?;
                Ok((slot.value(), decode("header", bytes.value())?))
            })
            .collect()
    }

    pub fn header_count(&self) -> Result<u64, StoreError> {
        Ok(self.database.begin_read()?.open_table(HEADERS)?.len()?)
    }

    pub fn transaction(
        &self,
        signature: &Signature,
    ) -> Result<Option<TransactionWithStatusMeta>, StoreError> {
        let transactions = self.database.begin_read()?.open_table(TRANSACTIONS)?;
        transactions
            .get(signature.as_array())?
            .map(|record| transaction_record::decode(record.value()))
            .transpose()
    }

    pub fn has_transaction(&self, signature: &Signature) -> Result<bool, StoreError> {
        let transactions = self.database.begin_read()?.open_table(TRANSACTIONS)?;
        Ok(transactions.get(signature.as_array())?.is_some())
    }

    pub fn transaction_count(&self) -> Result<u64, StoreError> {
        Ok(self
            .database
            .begin_read()?
            .open_table(TRANSACTIONS)?
            .len()?)
    }

    /// The listed fields of every transaction, one at a time: those of a chain that ran for weeks do not fit into memory.
    pub fn transactions_listed(
        &self,
    ) -> Result<impl Iterator<Item = Result<TransactionWithStatusMeta, StoreError>>, StoreError>
    {
        let transactions = self.database.begin_read()?.open_table(TRANSACTIONS)?;
        Ok(transactions
            .range::<&[u8; 64]>(..)?
            .map(|row| transaction_record::decode_listed(row?.1.value())))
    }

    pub fn accounts(&self) -> Result<Vec<(Pubkey, Account)>, StoreError> {
        let accounts = self.database.begin_read()?.open_table(ACCOUNTS)?;
        accounts
            .iter()?
            .map(|row| {
                let (pubkey, bytes) = row?;
                Ok((
                    Pubkey::new_from_array(*pubkey.value()),
                    decode_account(bytes.value())?,
                ))
            })
            .collect()
    }
}

fn version_of(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(slot: u64, accounts: Vec<(Pubkey, AccountChange)>) -> Block {
        Block {
            slot,
            header: header(slot),
            accounts,
            transactions: Vec::new(),
        }
    }

    fn header(slot: u64) -> Header {
        Header {
            height: slot,
            time: 1_800_000_000,
            signatures: Vec::new(),
        }
    }

    fn started() -> Store {
        let store = Store::in_memory().unwrap();
        store
            .begin_or_continue(Hash::new_from_array([1; 32]), &[(0, header(0))])
            .unwrap();
        store
    }

    #[test]
    fn a_chain_keeps_its_genesis_hash_and_its_newest_block() {
        let store = started();
        store.write(&block(1, Vec::new())).unwrap();
        let other = Hash::new_from_array([2; 32]);
        let (genesis_hash, tip) = store.begin_or_continue(other, &[(9, header(9))]).unwrap();
        assert_eq!(genesis_hash, Hash::new_from_array([1; 32]));
        assert_eq!(tip, (1, header(1)));
    }

    #[test]
    fn a_store_of_format_1_continues_as_one_of_this_format() {
        let set_version = |store: &Store, version: u32| {
            let transaction = store.begin_write().unwrap();
            transaction
                .open_table(META)
                .unwrap()
                .insert(VERSION_KEY, version.to_le_bytes().as_slice())
                .unwrap();
            transaction.commit().unwrap();
        };
        let store = started();
        set_version(&store, UNVERSIONED_RECORDS);
        let store = Store::prepare(store.database).unwrap();
        assert_eq!(store.slots().unwrap(), [0]);
        let store = Store::prepare(store.database).unwrap();
        set_version(&store, FORMAT_VERSION + 1);
        let refused = Store::prepare(store.database).err().unwrap();
        assert_eq!(
            refused.to_string(),
            format!("version {}", FORMAT_VERSION + 1)
        );
    }

    #[test]
    fn a_chain_keeps_its_parameters_until_others_are_chosen() {
        let store = started();
        let kept = |store: &Store| store.parameters(Choice::default()).unwrap();
        assert_eq!(kept(&store), Parameters::OF_A_NEW_CHAIN);
        let chosen = Choice {
            slot_ms: Some(50),
            ..Choice::default()
        };
        let parameters = Parameters {
            slot_ms: 50,
            ..Parameters::OF_A_NEW_CHAIN
        };
        assert_eq!(store.parameters(chosen).unwrap(), parameters);
        assert_eq!(kept(&store), parameters);
    }

    #[test]
    fn a_chain_from_before_parameters_were_stored_continues_with_what_it_had() {
        let store = started();
        let transaction = store.begin_write().unwrap();
        transaction
            .open_table(META)
            .unwrap()
            .remove(PARAMETERS_KEY)
            .unwrap();
        transaction.commit().unwrap();
        assert_eq!(
            store.parameters(Choice::default()).unwrap(),
            Parameters::UNSTORED
        );
    }

    #[test]
    fn old_empty_headers_are_removed_except_the_first() {
        let store = started();
        for slot in [1, 2, EMPTY_HEADERS_KEPT, EMPTY_HEADERS_KEPT + 1] {
            store.write(&block(slot, Vec::new())).unwrap();
        }
        let kept = [0, 2, EMPTY_HEADERS_KEPT, EMPTY_HEADERS_KEPT + 1];
        assert_eq!(store.slots().unwrap(), kept);
    }

    #[test]
    fn a_balance_changes_an_existing_account_and_a_closed_one_is_removed() {
        let store = started();
        let (token_account, wallet) = (Pubkey::new_unique(), Pubkey::new_unique());
        let whole = Account {
            lamports: 5,
            data: vec![1, 2, 3],
            owner: spl_token_interface::ID,
            ..Account::default()
        };
        let changes = vec![
            (token_account, AccountChange::Whole(whole.clone())),
            (wallet, AccountChange::Lamports(7)),
        ];
        store.write(&block(1, changes)).unwrap();
        let changes = vec![
            (token_account, AccountChange::Lamports(6)),
            (wallet, AccountChange::Lamports(0)),
        ];
        store.write(&block(2, changes)).unwrap();
        let changed = Account {
            lamports: 6,
            ..whole
        };
        assert_eq!(store.accounts().unwrap(), [(token_account, changed)]);
    }
}
