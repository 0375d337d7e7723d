//! Writes surfpool's events to the store, one block in one transaction.
//!
//! Two threads in a row, so that the next block is collected while the last one is written:
//! `surfpool ─events─▶ collector ─blocks─▶ writer ─▶ redb`. Both channels are short and block their sender, and in the end
//! surfpool. So a chain stops while its disk stalls, and what clients saw `finalized` is always written: an idle block sends
//! four events, so at most 8 + 1 + 4 + 1 blocks wait, and finality is 31 behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use solana_sdk::message::AccountKeys;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signature;
use surfpool_core::surfnet::{GeyserBlockMetadata, GeyserEvent};
use surfpool_core::types::TransactionWithStatusMeta;

use crate::block::{AccountChange, Block, Header};
use crate::chain_history::History;
use crate::error::StoreError;
use crate::store::Store;
use crate::transaction_record;

pub const EVENTS_WAITING_MAX: usize = 32;
const BLOCKS_WAITING_MAX: usize = 4;

/// The two threads, until [`Persistence::finish`].
pub struct Persistence {
    stop: Sender<()>,
    collector: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Persistence {
    /// `airdrop_account` pays airdrops; surfpool creates a new one at each start, so it is not stored. `on_failure` is called once
    /// when a block cannot be written; nothing is written after that.
    pub fn start(
        events: Receiver<GeyserEvent>,
        store: Arc<Store>,
        history: Arc<History>,
        airdrop_account: Pubkey,
        on_failure: impl Fn(StoreError) + Clone + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = bounded(1);
        let (blocks_tx, blocks_rx) = bounded::<Block>(BLOCKS_WAITING_MAX);
        let writer = std::thread::Builder::new().name("writer".into()).spawn({
            let (history, on_failure) = (history.clone(), on_failure.clone());
            move || {
                for block in blocks_rx {
                    if let Err(error) = write(&store, &block) {
                        return on_failure(error);
                    }
                    history.forget_written(&block);
                }
            }
        })?;
        let collector = std::thread::Builder::new()
            .name("collector".into())
            .spawn(move || {
                let collector = Collector {
                    blocks: blocks_tx,
                    history,
                    airdrop_account,
                    accounts: HashMap::new(),
                    transactions: Vec::new(),
                };
                if let Err(error) = collector.run(&events, &stopped) {
                    on_failure(error);
                }
            })?;
        Ok(Self {
            stop,
            collector,
            writer,
        })
    }

    /// Writes the blocks whose events were sent before this call, and ends both threads. Blocks until then.
    pub fn finish(self) {
        let _ = self.stop.send(());
        let _ = self.collector.join();
        let _ = self.writer.join();
    }
}

fn write(store: &Store, block: &Block) -> Result<(), StoreError> {
    // `pause` delays a block, as a slow disk does; `return` simulates a full disk.
    fail::fail_point!("localnet.write", |_| Err(redb::StorageError::Io(
        std::io::ErrorKind::StorageFull.into()
    )
    .into()));
    let started = Instant::now();
    store.write(block)?;
    tracing::debug!(
        slot = block.slot,
        transactions = block.transactions.len(),
        accounts = block.accounts.len(),
        record_bytes = block
            .transactions
            .iter()
            .map(|(_, it)| it.len())
            .sum::<usize>(),
        elapsed_ms = started.elapsed().as_millis(),
        "block written"
    );
    Ok(())
}

/// Collects the changes of one block.
struct Collector {
    blocks: Sender<Block>,
    history: Arc<History>,
    airdrop_account: Pubkey,
    accounts: HashMap<Pubkey, AccountChange>,
    transactions: Vec<(Signature, Vec<u8>)>,
}

impl Collector {
    fn run(
        mut self,
        events: &Receiver<GeyserEvent>,
        stopped: &Receiver<()>,
    ) -> Result<(), StoreError> {
        loop {
            select! {
                recv(events) -> event => match event {
                    Ok(event) => self.take(event)?,
                    Err(_) => return Ok(()),
                },
                recv(stopped) -> _ => break,
            }
        }
        while let Ok(event) = events.try_recv() {
            self.take(event)?;
        }
        Ok(())
    }

    fn take(&mut self, event: GeyserEvent) -> Result<(), StoreError> {
        match event {
            GeyserEvent::UpdateAccount(update) | GeyserEvent::StartupAccountUpdate(update) => {
                self.accounts
                    .insert(update.pubkey, AccountChange::Whole(update.account));
            }
            GeyserEvent::NotifyTransaction(event) => {
                self.take_transaction(&event.transaction_with_status_meta)?;
            }
            GeyserEvent::NotifyBlockMetadata(metadata) => self.close_block(&metadata),
            GeyserEvent::EndOfStartup
            | GeyserEvent::UpdateSlotStatus { .. }
            | GeyserEvent::NotifyEntry(_) => {}
        }
        Ok(())
    }

    fn take_transaction(
        &mut self,
        transaction: &TransactionWithStatusMeta,
    ) -> Result<(), StoreError> {
        let Some(signature) = transaction.transaction.signatures.first() else {
            return Ok(());
        };
        self.transactions
            .push((*signature, transaction_record::encode(transaction)?));
        // surfpool reports no account for airdrops and failed transactions, which change only balances.
        let meta = &transaction.meta;
        let keys = AccountKeys::new(
            transaction.transaction.message.static_account_keys(),
            Some(&meta.loaded_addresses),
        );
        let balances = meta.pre_balances.iter().zip(&meta.post_balances);
        for (pubkey, (before, after)) in keys.iter().zip(balances) {
            if before == after || *pubkey == self.airdrop_account {
                continue;
            }
            match self.accounts.get_mut(pubkey) {
                Some(AccountChange::Whole(account)) => account.lamports = *after,
                _ => {
                    self.accounts
                        .insert(*pubkey, AccountChange::Lamports(*after));
                }
            }
        }
        Ok(())
    }

    fn close_block(&mut self, metadata: &GeyserBlockMetadata) {
        let block = Block {
            slot: metadata.slot,
            header: Header {
                height: metadata.block_height.unwrap_or(metadata.slot),
                time: metadata.block_time.unwrap_or_default(),
                signatures: self.transactions.iter().map(|(it, _)| *it).collect(),
            },
            accounts: self.accounts.drain().collect(),
            transactions: std::mem::take(&mut self.transactions),
        };
        self.history.close_block(&block);
        // Fails only when the writer has failed, which it has reported.
        let _ = self.blocks.send(block);
    }
}
