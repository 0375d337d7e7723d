//! The chain itself: surfpool, set to where the store left off.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use solana_sdk::hash::Hash;
use solana_sdk::pubkey::Pubkey;
use surfpool_core::runloops::start_local_surfnet_runloop;
use surfpool_core::solana_account::Account;
use surfpool_core::storage::{Storage, StorageError};
use surfpool_core::surfnet::locker::SurfnetSvmLocker;
use surfpool_core::surfnet::svm::{SurfnetSvm, SurfnetSvmConfig};
use surfpool_core::surfnet::{BlockIdentifier, FINALIZATION_SLOT_THRESHOLD};
use surfpool_types::{
    BlockProductionMode, RpcConfig, SimnetCommand, SimnetConfig, SimnetEvent, SurfpoolConfig,
};
use tokio::sync::oneshot;

use crate::error::{LocalnetError, StoreError};
use crate::history::History;
use crate::index::{self, Index};
use crate::persist::{EVENTS_WAITING_MAX, Persistence};
use crate::ports::Addresses;
use crate::store::{Header, Store};

/// As surfpool's own default: enough for 20 mints, and a limit for a runaway program.
const LOG_BYTES_MAX: usize = 10_000;

/// How often block times are compared with the wall clock.
const CLOCK_CHECK: Duration = Duration::from_secs(10);

/// A running chain.
pub struct Chain {
    pub genesis_hash: Hash,
    /// The slot that is open for transactions at the start.
    pub slot: u64,
    /// Says once that transactions are taken and answered.
    pub started: oneshot::Receiver<()>,
    /// Says once why the chain has ended.
    pub ended: oneshot::Receiver<String>,
    commands: Sender<SimnetCommand>,
    locker: SurfnetSvmLocker,
    persistence: Persistence,
    history: Arc<History>,
}

impl Chain {
    /// Starts surfpool on what the store holds. Call on a multi-threaded runtime.
    pub fn start(
        store: Arc<Store>,
        addresses: &Addresses,
        slot_ms: u64,
        on_store_failure: impl Fn(StoreError) + Clone + Send + Sync + 'static,
    ) -> Result<Self, LocalnetError> {
        let start_error = |error: &dyn std::fmt::Display| LocalnetError::Start(error.to_string());
        let (mut svm, simnet_events, _unused) = SurfnetSvm::new(SurfnetSvmConfig {
            slot_time: slot_ms,
            // Profiling executes every prefix of a transaction once more.
            instruction_profiling_enabled: false,
            max_profiles: 1,
            log_bytes_limit: Some(LOG_BYTES_MAX),
            ..SurfnetSvmConfig::default()
        })
        .map_err(|error| start_error(&error))?;
        let (geyser_tx, geyser_rx) = bounded(EVENTS_WAITING_MAX);
        svm.geyser_events_tx = geyser_tx;

        let restored = restore(&mut svm, store.clone(), slot_ms, on_store_failure.clone())
            .map_err(|error| start_error(&error))?;
        let airdrop_account = svm.inner.airdrop_pubkey();
        let slot = svm.get_latest_absolute_slot();
        let locker = SurfnetSvmLocker::new(svm);

        let persistence = Persistence::start(
            geyser_rx,
            store,
            restored.history.clone(),
            airdrop_account,
            on_store_failure,
        )
        .map_err(|error| start_error(&error))?;
        let (started_tx, started) = oneshot::channel();
        std::thread::Builder::new()
            .name("surfpool-events".into())
            .spawn(move || log_events(&simnet_events, started_tx))
            .map_err(|error| start_error(&error))?;
        let (commands, commands_rx) = unbounded();
        let (ended_tx, ended) = oneshot::channel();
        let run = RunLoop {
            locker: locker.clone(),
            config: config(addresses, slot_ms),
            commands: commands.clone(),
            commands_rx,
        };
        std::thread::Builder::new()
            .name("surfpool".into())
            .spawn(move || {
                let _ = ended_tx.send(run.run());
            })
            .map_err(|error| start_error(&error))?;
        Ok(Self {
            genesis_hash: restored.genesis_hash,
            slot,
            started,
            ended,
            commands,
            locker,
            persistence,
            history: restored.history,
        })
    }

    /// From now on walks over all transactions see them.
    pub fn start_serving(&self) {
        self.history.start_serving();
    }

    /// Keeps block times near the wall clock. surfpool adds one slot's length per block, but a block takes a
    /// little longer, and much longer on a machine that sleeps or is overloaded.
    pub async fn keep_time(locker: SurfnetSvmLocker) {
        let mut tick = tokio::time::interval(CLOCK_CHECK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let mut svm = locker.0.write().await;
            let now = now_ms();
            // Never backwards: block times only grow.
            if now > svm.updated_at + svm.slot_time {
                set_clock(&mut svm, now);
            }
        }
    }

    pub fn locker(&self) -> SurfnetSvmLocker {
        self.locker.clone()
    }

    /// Ends the chain and writes its newest block. Transactions that were executed are in it.
    pub async fn stop(self) -> Result<(), LocalnetError> {
        let _ = self.commands.send(SimnetCommand::Terminate(None));
        let _ = self.ended.await;
        let has_open_transactions = {
            let svm = self.locker.0.read().await;
            !svm.transactions_queued_for_confirmation.is_empty()
        };
        if has_open_transactions {
            self.locker
                .confirm_current_block(&None)
                .await
                .map_err(|error| LocalnetError::Stopped(error.to_string()))?;
        }
        let persistence = self.persistence;
        tokio::task::spawn_blocking(move || persistence.finish())
            .await
            .map_err(|error| LocalnetError::Stopped(error.to_string()))
    }
}

struct RunLoop {
    locker: SurfnetSvmLocker,
    config: SurfpoolConfig,
    commands: Sender<SimnetCommand>,
    commands_rx: Receiver<SimnetCommand>,
}

impl RunLoop {
    /// surfpool's loop blocks its thread between events, so it gets a runtime of its own. Returns why it ended.
    fn run(self) -> String {
        let runtime = match tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return error.to_string(),
        };
        let _executing = index::executing();
        // Geyser plugins are for others: our events are taken before they get here.
        let (_no_events, no_events_rx) = bounded(1);
        let ended = runtime.block_on(start_local_surfnet_runloop(
            self.locker,
            self.config,
            self.commands,
            self.commands_rx,
            no_events_rx,
        ));
        // Its servers still run on it; the process ends soon.
        std::mem::forget(runtime);
        match ended {
            Ok(()) => "surfpool ended".to_owned(),
            Err(error) => error.to_string(),
        }
    }
}

struct Restored {
    genesis_hash: Hash,
    history: Arc<History>,
}

/// A new chain begins with so many empty blocks behind it that a finalized block and blockhash exist at once.
const FIRST_OPEN_SLOT: u64 = FINALIZATION_SLOT_THRESHOLD + 1;

/// Sets a new `svm` to the state after the store's newest block; a new chain begins.
fn restore(
    svm: &mut SurfnetSvm,
    store: Arc<Store>,
    slot_ms: u64,
    on_failure: impl Fn(StoreError) + Send + Sync + 'static,
) -> Result<Restored, StoreError> {
    let now_ms = now_ms();
    // Height and slot are the same number from the first block on. surfpool would count the height of blocks
    // with transactions from its own start, and that of the others from slot 0.
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
    restore_accounts(svm, store.accounts()?)?;
    svm.reconstruct_sysvars();
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
        let mut ours = Index::default();
        for (key, listed) in index.into_iter().map_err(corrupt_index)? {
            ours.store(key, listed).map_err(corrupt_index)?;
        }
        *index = ours.clone_box();
    }
    let _executing = index::executing();
    accounts.sort_by_key(|(_, account)| order_of_restoring(account));
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
fn order_of_restoring(account: &Account) -> u8 {
    /// Of an SPL mint; longer accounts of Token-2022 say what they are in the byte after a token account's.
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
fn set_clock(svm: &mut SurfnetSvm, unix_ms: u64) {
    let age_slots = svm
        .get_latest_absolute_slot()
        .saturating_sub(svm.genesis_slot);
    svm.updated_at = unix_ms;
    svm.genesis_updated_at = unix_ms.saturating_sub(age_slots.saturating_mul(svm.slot_time));
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

fn config(addresses: &Addresses, slot_ms: u64) -> SurfpoolConfig {
    SurfpoolConfig {
        simnets: vec![SimnetConfig {
            offline_mode: true,
            remote_rpc_url: None,
            slot_time: slot_ms,
            block_production_mode: BlockProductionMode::Clock,
            instruction_profiling_enabled: false,
            max_profiles: 1,
            log_bytes_limit: Some(LOG_BYTES_MAX),
            ..SimnetConfig::default()
        }],
        rpc: RpcConfig {
            bind_host: addresses.host(),
            bind_port: addresses.rpc.port(),
            ws_port: addresses.pubsub.port(),
            ..RpcConfig::default()
        },
        ..SurfpoolConfig::default()
    }
}

/// surfpool waits when nobody takes its events, so they are taken for as long as it runs.
fn log_events(events: &Receiver<SimnetEvent>, started: oneshot::Sender<()>) {
    let mut started = Some(started);
    for event in events {
        match event {
            SimnetEvent::CoreStarted(_) => {
                if let Some(started) = started.take() {
                    let _ = started.send(());
                }
            }
            SimnetEvent::Aborted(reason) => tracing::error!("surfpool: {reason}"),
            SimnetEvent::ErrorLog(_, text) | SimnetEvent::WarnLog(_, text) => {
                tracing::warn!("surfpool: {text}");
            }
            SimnetEvent::InfoLog(_, text) | SimnetEvent::DebugLog(_, text) => {
                tracing::debug!("surfpool: {text}");
            }
            _ => {}
        }
    }
}
