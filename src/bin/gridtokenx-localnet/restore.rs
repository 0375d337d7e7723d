//! Restores the chain: sets a new `SurfnetSvm` to the state after the store's newest block.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use solana_sdk::hash::Hash;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::rent::Rent;
use surfpool_core::solana_account::Account;
use surfpool_core::storage::{Storage, StorageError};
use surfpool_core::surfnet::svm::SurfnetSvm;
use surfpool_core::surfnet::{BlockIdentifier, FINALIZATION_SLOT_THRESHOLD};

use crate::account_index::AccountIndex;
use crate::block::Header;
use crate::chain_history::History;
use crate::discard::Discard;
use crate::error::StoreError;
use crate::execution_thread;
use crate::parameters::Parameters;
use crate::store::Store;

/// The parts of a restored chain that do not belong to the `svm`.
pub struct Restored {
    pub genesis_hash: Hash,
    pub history: Arc<History>,
}

/// A new chain begins after this many empty blocks, so that a finalized block and blockhash exist immediately.
const FIRST_OPEN_SLOT: u64 = FINALIZATION_SLOT_THRESHOLD + 1;

/// Sets a new `svm` to the state after the store's newest block, or starts a new chain where the store is empty.
pub fn restore(
    svm: &mut SurfnetSvm,
    store: Arc<Store>,
    parameters: Parameters,
    on_failure: impl Fn(StoreError) + Send + Sync + 'static,
) -> Result<Restored, StoreError> {
    let slot_ms = parameters.slot_ms;
    let now_ms = now_ms();
    // Height and slot are the same number from the first block on. surfpool would count the height of blocks with transactions
    // from its own start, and that of the others from slot 0.
    let first_blocks = [0, FIRST_OPEN_SLOT - 1].map(|slot| {
        let age_ms = (FIRST_OPEN_SLOT - slot) * slot_ms;
        let header = Header {
            height: slot,
            time: i64::try_from(now_ms.saturating_sub(age_ms) / 1_000).unwrap_or(i64::MAX),
            signatures: Vec::new(),
        };
        (slot, header)
    });
    let new_genesis_hash = Hash::new_from_array(rand::random());
    let (genesis_hash, (closed_slot, tip)) =
        store.begin_or_continue(new_genesis_hash, &first_blocks)?;
    let open_slot = closed_slot + 1;
    let history = History::new(
        store.clone(),
        genesis_hash,
        slot_ms,
        closed_slot,
        on_failure,
    );

    svm.cached_genesis_hash = Some(genesis_hash);
    svm.genesis_slot = 0;
    svm.chain_tip = BlockIdentifier::new(tip.height, &history.blockhash(tip.height));
    let epoch = &mut svm.latest_epoch_info;
    epoch.absolute_slot = open_slot;
    epoch.block_height = tip.height;
    epoch.epoch = open_slot / epoch.slots_in_epoch;
    epoch.slot_index = open_slot % epoch.slots_in_epoch;
    let transactions = store.transaction_count()?;
    epoch.transaction_count = Some(transactions);
    svm.transactions_processed = transactions;
    svm.last_checkpoint_slot = open_slot;
    let tip_time_ms = u64::try_from(tip.time).unwrap_or(0).saturating_mul(1_000);
    set_clock(svm, now_ms.max(tip_time_ms));

    svm.blocks = history.blocks();
    svm.transactions = history.transactions();
    svm.profile_tag_map = Box::new(Discard);
    svm.simulated_transaction_profiles = Box::new(Discard);
    svm.executed_transaction_profiles = Box::new(Discard);
    restore_accounts(svm, store.accounts()?)?;
    svm.reconstruct_sysvars();
    // It is not among the accounts that blocks change, so no store holds it.
    let mut rent = svm.inner.get_sysvar::<Rent>();
    rent.lamports_per_byte = parameters.rent_lamports_per_byte;
    svm.inner.set_sysvar(&rent);
    Ok(Restored {
        genesis_hash,
        history,
    })
}

fn restore_accounts(
    svm: &mut SurfnetSvm,
    mut accounts: Vec<(Pubkey, Account)>,
) -> Result<(), StoreError> {
    for index in [
        &mut svm.accounts_by_owner,
        &mut svm.token_accounts_by_owner,
        &mut svm.token_accounts_by_mint,
    ] {
        let mut ours = AccountIndex::default();
        for (key, listed) in index.into_iter().map_err(corrupt_index)? {
            ours.store(key, listed).map_err(corrupt_index)?;
        }
        *index = ours.clone_box();
    }
    let _executing = execution_thread::mark();
    accounts.sort_by_key(|(_, account)| restore_order(account));
    for (pubkey, account) in accounts {
        svm.set_account(&pubkey, account)
            .map_err(|error| StoreError::Corrupt {
                what: "account",
                reason: format!("{pubkey}: {error}"),
            })?;
    }
    Ok(())
}

fn corrupt_index(error: StorageError) -> StoreError {
    StoreError::Corrupt {
        what: "index",
        reason: error.to_string(),
    }
}

/// An account is set after those that it refers to: a token account after its mint, a program after its code.
fn restore_order(account: &Account) -> u8 {
    /// Of an SPL mint; longer accounts of Token-2022 hold their kind in the byte after a token account's.
    const MINT_BYTES: usize = 82;
    const TOKEN_ACCOUNT_BYTES: usize = 165;
    const IS_MINT: u8 = 1;
    let is_mint =
        account.data.len() == MINT_BYTES || account.data.get(TOKEN_ACCOUNT_BYTES) == Some(&IS_MINT);
    match (account.executable, is_mint) {
        (false, true) => 0,
        (false, false) => 1,
        (true, _) => 2,
    }
}

/// Sets the time of the open block, and the genesis time from which surfpool derives times of other slots.
pub fn set_clock(svm: &mut SurfnetSvm, unix_ms: u64) {
    let age_slots = svm
        .get_latest_absolute_slot()
        .saturating_sub(svm.genesis_slot);
    svm.updated_at = unix_ms;
    svm.genesis_updated_at = unix_ms.saturating_sub(age_slots.saturating_mul(svm.slot_time));
}

pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
