//! surfpool's maps of blocks and transactions, backed by the store.
//!
//! surfpool's own maps only grow. Here the maps hold what is not written yet (a block or two) and the newest transactions, which
//! clients query repeatedly until they are final. Everything older is read from the store, so memory does not grow with the age
//! of the chain, and a restart reads no transaction at all.
//!
//! Invariant: whatever surfpool stored can be read here at any later time. Kept by removing it from `unwritten` only after its
//! block is committed, and by reading `unwritten` first.
//!
//! An iteration over all transactions (`getSignaturesForAddress`) yields of each written one only what such a list needs: slot,
//! error, addresses and memos. surfpool's own `getTransactionsForAddress`, which is not a method of Solana, would show no more
//! either.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use solana_sdk::hash::Hash;
use solana_sdk::signature::Signature;
use surfpool_core::storage::{Storage, StorageError, StorageResult};
use surfpool_core::surfnet::BlockHeader;
use surfpool_core::types::{
    SurfnetTransactionStatus, SyntheticBlockhash, TransactionWithStatusMeta,
};

use crate::block::{Block, Header};
use crate::error::StoreError;
use crate::execution_thread;
use crate::store::Store;

/// surfpool iterates over all blocks only to find the newest hundred or so (`getRecentPrioritizationFees`).
const HEADERS_LISTED_MAX: usize = 1_000;

/// Of the newest written transactions that stay in memory, the size of their records, bytes. In memory a transaction takes ten
/// times its record: so 30 MB, whatever the transactions are. These are 1,150 that mint for 19 wallets each: all that is not
/// final yet at 190 a second. Older ones are read from the store at each query.
const RECENT_RECORD_BYTES_MAX: usize = 3 * 1024 * 1024;

/// The blocks and transactions of the chain: the newest in memory, all of them in the store.
pub struct History {
    store: Arc<Store>,
    genesis_hash: Hash,
    slot_ms: u64,
    memory: RwLock<Memory>,
    /// The newest slot whose block is complete.
    closed_slot: AtomicU64,
    /// Called when the history cannot be read; ends the process.
    on_failure: Box<dyn Fn(StoreError) + Send + Sync>,
}

#[derive(Default)]
struct Memory {
    unwritten: HashMap<String, SurfnetTransactionStatus>,
    unwritten_blocks: BTreeMap<u64, BlockHeader>,
    recent: HashMap<String, SurfnetTransactionStatus>,
    /// Oldest first, with the size of each record.
    recent_order: VecDeque<(String, usize)>,
    recent_record_bytes: usize,
}

impl Memory {
    /// Moves a transaction that is in the store now from the unwritten to the recent ones.
    fn note_written(&mut self, signature: String, record_bytes: usize) {
        let Some(status) = self.unwritten.remove(&signature) else {
            return;
        };
        self.recent.insert(signature.clone(), status);
        self.recent_order.push_back((signature, record_bytes));
        self.recent_record_bytes += record_bytes;
        while self.recent_record_bytes > RECENT_RECORD_BYTES_MAX
            && let Some((oldest, bytes)) = self.recent_order.pop_front()
        {
            self.recent.remove(&oldest);
            self.recent_record_bytes -= bytes;
        }
    }
}

impl History {
    pub fn new(
        store: Arc<Store>,
        genesis_hash: Hash,
        slot_ms: u64,
        closed_slot: u64,
        on_failure: impl Fn(StoreError) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            genesis_hash,
            slot_ms,
            memory: RwLock::default(),
            closed_slot: AtomicU64::new(closed_slot),
            on_failure: Box::new(on_failure),
        })
    }

    pub fn blocks(self: &Arc<Self>) -> Box<dyn Storage<u64, BlockHeader>> {
        Box::new(Blocks(self.clone()))
    }

    pub fn transactions(self: &Arc<Self>) -> Box<dyn Storage<String, SurfnetTransactionStatus>> {
        Box::new(Transactions(self.clone()))
    }

    /// The block is complete. surfpool itself stores only blocks with transactions.
    pub fn close_block(&self, block: &Block) {
        let header = self.block_header(block.slot, block.slot, block.header.clone());
        self.memory_mut()
            .unwritten_blocks
            .insert(block.slot, header);
        self.closed_slot.store(block.slot, Ordering::Release);
    }

    /// The block is in the store: removes it from the unwritten ones.
    pub fn forget_written(&self, block: &Block) {
        let mut memory = self.memory_mut();
        memory.unwritten_blocks.remove(&block.slot);
        for (signature, record) in &block.transactions {
            memory.note_written(signature.to_string(), record.len());
        }
    }

    fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory_mut(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn block(&self, slot: u64) -> Result<Option<BlockHeader>, StoreError> {
        if let Some(block) = self.memory().unwritten_blocks.get(&slot) {
            return Ok(Some(block.clone()));
        }
        // Plus one: surfpool may have closed a block whose event has not arrived yet.
        if slot > self.closed_slot.load(Ordering::Acquire) + 1 {
            return Ok(None);
        }
        let neighbour = self.store.header_at_or_below(slot)?;
        Ok(neighbour.map(|(neighbour, header)| self.block_header(slot, neighbour, header)))
    }

    /// The block of `slot`, from its own header or, being empty and not stored, from the nearest one below.
    fn block_header(&self, slot: u64, neighbour: u64, header: Header) -> BlockHeader {
        let slots_after = slot - neighbour;
        let height = header.height + slots_after;
        let seconds_after = slots_after.saturating_mul(self.slot_ms) / 1_000;
        BlockHeader {
            hash: self.blockhash(height),
            previous_blockhash: self.blockhash(height.saturating_sub(1)),
            parent_slot: slot.saturating_sub(1),
            block_time: header.time.saturating_add_unsigned(seconds_after),
            block_height: height,
            signatures: if slots_after == 0 {
                header.signatures
            } else {
                Vec::new()
            },
        }
    }

    /// surfpool's blockhashes are a function of the height, from height 1 on.
    pub fn blockhash(&self, height: u64) -> String {
        match height.checked_sub(1) {
            Some(index) => SyntheticBlockhash::new(index).to_string(),
            None => self.genesis_hash.to_string(),
        }
    }

    fn transaction(&self, key: &str) -> Result<Option<SurfnetTransactionStatus>, StoreError> {
        {
            let memory = self.memory();
            let known = memory.unwritten.get(key).or_else(|| memory.recent.get(key));
            if let Some(status) = known {
                return Ok(Some(status.clone()));
            }
        }
        let Ok(signature) = key.parse::<Signature>() else {
            return Ok(None);
        };
        Ok(self.store.transaction(&signature)?.map(processed))
    }

    fn has_transaction(&self, key: &str) -> Result<bool, StoreError> {
        {
            let memory = self.memory();
            if memory.unwritten.contains_key(key) || memory.recent.contains_key(key) {
                return Ok(true);
            }
        }
        match key.parse() {
            Ok(signature) => self.store.has_transaction(&signature),
            Err(_) => Ok(false),
        }
    }

    fn read<T>(&self, result: Result<T, StoreError>) -> StorageResult<T> {
        result.map_err(|error| {
            (self.on_failure)(error);
            // surfpool's error has no variant for a store that is not its own.
            StorageError::LockError
        })
    }
}

/// The set of changed accounts matters only until the block is confirmed, and a written block is.
fn processed(transaction: TransactionWithStatusMeta) -> SurfnetTransactionStatus {
    SurfnetTransactionStatus::processed(transaction, Default::default())
}

struct Blocks(Arc<History>);

impl Storage<u64, BlockHeader> for Blocks {
    fn store(&mut self, slot: u64, block: BlockHeader) -> StorageResult<()> {
        self.0.memory_mut().unwritten_blocks.insert(slot, block);
        Ok(())
    }

    fn get(&self, slot: &u64) -> StorageResult<Option<BlockHeader>> {
        self.0.read(self.0.block(*slot))
    }

    fn keys(&self) -> StorageResult<Vec<u64>> {
        let mut slots = self.0.read(self.0.store.slots())?;
        slots.extend(self.0.memory().unwritten_blocks.keys());
        slots.dedup();
        Ok(slots)
    }

    /// The newest ones only: see [`HEADERS_LISTED_MAX`].
    fn into_iter(&self) -> StorageResult<Box<dyn Iterator<Item = (u64, BlockHeader)> + '_>> {
        let mut blocks = self.0.memory().unwritten_blocks.clone();
        let written = self.0.store.newest_headers(HEADERS_LISTED_MAX);
        for (slot, header) in self.0.read(written)? {
            blocks.insert(slot, self.0.block_header(slot, slot, header));
        }
        Ok(Box::new(blocks.into_iter()))
    }

    fn count(&self) -> StorageResult<u64> {
        self.0.read(self.0.store.header_count())
    }

    /// Only the cheat code that resets a network calls this; this chain does not delete its history.
    fn clear(&mut self) -> StorageResult<()> {
        Err(StorageError::LockError)
    }

    fn take(&mut self, _slot: &u64) -> StorageResult<Option<BlockHeader>> {
        Err(StorageError::LockError)
    }

    fn clone_box(&self) -> Box<dyn Storage<u64, BlockHeader>> {
        self.0.blocks()
    }
}

struct Transactions(Arc<History>);

impl Storage<String, SurfnetTransactionStatus> for Transactions {
    fn store(&mut self, key: String, status: SurfnetTransactionStatus) -> StorageResult<()> {
        self.0.memory_mut().unwritten.insert(key, status);
        Ok(())
    }

    fn get(&self, key: &String) -> StorageResult<Option<SurfnetTransactionStatus>> {
        self.0.read(self.0.transaction(key))
    }

    fn contains_key(&self, key: &String) -> StorageResult<bool> {
        self.0.read(self.0.has_transaction(key))
    }

    fn keys(&self) -> StorageResult<Vec<String>> {
        Ok(self.into_iter()?.map(|(signature, _)| signature).collect())
    }

    fn into_iter(
        &self,
    ) -> StorageResult<Box<dyn Iterator<Item = (String, SurfnetTransactionStatus)> + '_>> {
        // At its start surfpool's loop replays every transaction into its log, all in memory at once: it gets none. Clients, which
        // may query at the same time, get all.
        if execution_thread::is_current() {
            return Ok(Box::new(std::iter::empty()));
        }
        // The unwritten ones are read first: one that is written in the meantime is then skipped in the store's list, and none is
        // missed.
        let unwritten = self.0.memory().unwritten.clone();
        let mut written = self.0.read(self.0.store.transactions_listed())?;
        let is_unwritten: std::collections::HashSet<String> = unwritten.keys().cloned().collect();
        let written = std::iter::from_fn(move || self.0.read(written.next()?).ok())
            .filter_map(|transaction| {
                let signature = transaction.transaction.signatures.first()?.to_string();
                Some((signature, processed(transaction)))
            })
            .filter(move |(signature, _)| !is_unwritten.contains(signature));
        Ok(Box::new(unwritten.into_iter().chain(written)))
    }

    fn count(&self) -> StorageResult<u64> {
        let unwritten = u64::try_from(self.0.memory().unwritten.len()).unwrap_or(u64::MAX);
        let written = self.0.read(self.0.store.transaction_count())?;
        Ok(written.saturating_add(unwritten))
    }

    fn clear(&mut self) -> StorageResult<()> {
        Err(StorageError::LockError)
    }

    fn take(&mut self, _key: &String) -> StorageResult<Option<SurfnetTransactionStatus>> {
        Err(StorageError::LockError)
    }

    fn clone_box(&self) -> Box<dyn Storage<String, SurfnetTransactionStatus>> {
        self.0.transactions()
    }
}
