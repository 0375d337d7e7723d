//! What surfpool remembers of blocks and transactions, answered from the store.
//!
//! surfpool keeps both in maps that only grow. Here the maps hold what is not written yet (a block or two), and
//! everything older is read from the store, so memory does not grow with the age of the chain, and a restart
//! reads no transaction at all.
//!
//! Invariant: what surfpool stored is found here at any time after. Kept by removing it from `unwritten` only after
//! its block is committed, and by looking there first.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use solana_sdk::signature::Signature;
use surfpool_core::storage::{Storage, StorageError, StorageResult};
use surfpool_core::surfnet::BlockHeader;
use surfpool_core::types::{SurfnetTransactionStatus, SyntheticBlockhash};

use crate::error::StoreError;
use crate::store::{Block, Header, Origin, Store};

/// surfpool walks all blocks only to find the newest hundred or so (`getRecentPrioritizationFees`).
const HEADERS_LISTED_MAX: usize = 1_000;

pub struct History {
    store: Arc<Store>,
    origin: Origin,
    slot_ms: u64,
    unwritten: RwLock<Unwritten>,
    /// The newest slot whose block is complete.
    closed_slot: AtomicU64,
    /// At start surfpool replays every transaction into its log, all in memory at once: it is shown none.
    is_serving: AtomicBool,
}

#[derive(Default)]
struct Unwritten {
    transactions: HashMap<String, SurfnetTransactionStatus>,
    blocks: BTreeMap<u64, BlockHeader>,
}

impl History {
    pub fn new(store: Arc<Store>, origin: Origin, slot_ms: u64, closed_slot: u64) -> Arc<Self> {
        Arc::new(Self {
            store,
            origin,
            slot_ms,
            unwritten: RwLock::default(),
            closed_slot: AtomicU64::new(closed_slot),
            is_serving: AtomicBool::new(false),
        })
    }

    pub fn blocks(self: &Arc<Self>) -> Box<dyn Storage<u64, BlockHeader>> {
        Box::new(Blocks(self.clone()))
    }

    pub fn transactions(self: &Arc<Self>) -> Box<dyn Storage<String, SurfnetTransactionStatus>> {
        Box::new(Transactions(self.clone()))
    }

    /// From now on surfpool's walks over all transactions see them.
    pub fn start_serving(&self) {
        self.is_serving.store(true, Ordering::Release);
    }

    pub fn set_closed_slot(&self, slot: u64) {
        self.closed_slot.store(slot, Ordering::Release);
    }

    /// The block is in the store: it need not be kept here.
    pub fn forget_written(&self, block: &Block) {
        let mut unwritten = self.unwritten_mut();
        unwritten.blocks.remove(&block.slot);
        for (signature, _) in &block.transactions {
            unwritten.transactions.remove(&signature.to_string());
        }
    }

    fn unwritten(&self) -> RwLockReadGuard<'_, Unwritten> {
        self.unwritten
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn unwritten_mut(&self) -> RwLockWriteGuard<'_, Unwritten> {
        self.unwritten
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn block(&self, slot: u64) -> Result<Option<BlockHeader>, StoreError> {
        if let Some(block) = self.unwritten().blocks.get(&slot) {
            return Ok(Some(block.clone()));
        }
        if slot < self.origin.slot || slot > self.closed_slot.load(Ordering::Acquire) {
            return Ok(None);
        }
        let Some((neighbour, header)) = self.store.header_at_or_below(slot)? else {
            return Ok(None);
        };
        Ok(Some(self.block_header(slot, neighbour, header)))
    }

    /// The block of `slot`, from its own header or, being empty and not stored, from the nearest one below.
    fn block_header(&self, slot: u64, neighbour: u64, header: Header) -> BlockHeader {
        let slots_after = slot - neighbour;
        let height = header.height + slots_after;
        let millis_after = i64::try_from(slots_after.saturating_mul(self.slot_ms));
        BlockHeader {
            hash: blockhash_at_height(height),
            previous_blockhash: blockhash_at_height(height.saturating_sub(1)),
            parent_slot: slot.saturating_sub(1),
            block_time: header
                .time
                .saturating_add(millis_after.unwrap_or(i64::MAX) / 1_000),
            block_height: height,
            signatures: if slots_after == 0 {
                header.signatures
            } else {
                Vec::new()
            },
        }
    }

    fn transaction(&self, key: &str) -> Result<Option<SurfnetTransactionStatus>, StoreError> {
        if let Some(status) = self.unwritten().transactions.get(key) {
            return Ok(Some(status.clone()));
        }
        let Ok(signature) = key.parse::<Signature>() else {
            return Ok(None);
        };
        Ok(self
            .store
            .transaction(&signature)?
            // Which accounts it changed matters only until its block is confirmed.
            .map(|transaction| {
                SurfnetTransactionStatus::processed(transaction, Default::default())
            }))
    }
}

/// surfpool's blockhashes are a function of the height.
pub fn blockhash_at_height(height: u64) -> String {
    SyntheticBlockhash::new(height.saturating_sub(1)).to_string()
}

/// The store is read for an RPC call here, so the call fails and not the process; surfpool's error type has no
/// variant for a foreign store.
fn unreadable(error: StoreError) -> StorageError {
    tracing::error!("the chain's history cannot be read: {error}");
    StorageError::LockError
}

struct Blocks(Arc<History>);

impl Storage<u64, BlockHeader> for Blocks {
    fn store(&mut self, slot: u64, block: BlockHeader) -> StorageResult<()> {
        self.0.unwritten_mut().blocks.insert(slot, block);
        Ok(())
    }

    fn get(&self, slot: &u64) -> StorageResult<Option<BlockHeader>> {
        self.0.block(*slot).map_err(unreadable)
    }

    fn keys(&self) -> StorageResult<Vec<u64>> {
        let mut slots = self.0.store.slots().map_err(unreadable)?;
        slots.extend(self.0.unwritten().blocks.keys());
        slots.dedup();
        Ok(slots)
    }

    /// The newest ones only: see [`HEADERS_LISTED_MAX`].
    fn into_iter(&self) -> StorageResult<Box<dyn Iterator<Item = (u64, BlockHeader)> + '_>> {
        let mut blocks = self.0.unwritten().blocks.clone();
        let written = self.0.store.newest_headers(HEADERS_LISTED_MAX);
        for (slot, header) in written.map_err(unreadable)? {
            blocks.insert(slot, self.0.block_header(slot, slot, header));
        }
        Ok(Box::new(blocks.into_iter()))
    }

    fn count(&self) -> StorageResult<u64> {
        self.0.store.header_count().map_err(unreadable)
    }

    /// Only the cheat codes that reset a network ask for this; this chain does not forget.
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
        self.0.unwritten_mut().transactions.insert(key, status);
        Ok(())
    }

    fn get(&self, key: &String) -> StorageResult<Option<SurfnetTransactionStatus>> {
        self.0.transaction(key).map_err(unreadable)
    }

    fn contains_key(&self, key: &String) -> StorageResult<bool> {
        if self.0.unwritten().transactions.contains_key(key) {
            return Ok(true);
        }
        match key.parse() {
            Ok(signature) => self.0.store.has_transaction(&signature).map_err(unreadable),
            Err(_) => Ok(false),
        }
    }

    fn keys(&self) -> StorageResult<Vec<String>> {
        Ok(self.into_iter()?.map(|(signature, _)| signature).collect())
    }

    fn into_iter(
        &self,
    ) -> StorageResult<Box<dyn Iterator<Item = (String, SurfnetTransactionStatus)> + '_>> {
        if !self.0.is_serving.load(Ordering::Acquire) {
            return Ok(Box::new(std::iter::empty()));
        }
        // The unwritten ones are read first: one that is written meanwhile is then skipped in the store's list,
        // and none is missed.
        let unwritten = self.0.unwritten().transactions.clone();
        let written = self.0.store.transactions().map_err(unreadable)?;
        let written: Vec<_> = written
            .filter_map(|transaction| match transaction {
                Ok(transaction) => {
                    let signature = transaction.transaction.signatures.first()?.to_string();
                    (!unwritten.contains_key(&signature)).then(|| {
                        let status =
                            SurfnetTransactionStatus::processed(transaction, Default::default());
                        Ok((signature, status))
                    })
                }
                Err(error) => Some(Err(error)),
            })
            .collect::<Result<_, _>>()
            .map_err(unreadable)?;
        Ok(Box::new(unwritten.into_iter().chain(written)))
    }

    fn count(&self) -> StorageResult<u64> {
        let unwritten = self.0.unwritten().transactions.len() as u64;
        Ok(self.0.store.transaction_count().map_err(unreadable)? + unwritten)
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
