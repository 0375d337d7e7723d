//! The chain itself: surfpool, set to the state in the store.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use solana_sdk::hash::Hash;
use surfpool_core::runloops::start_local_surfnet_runloop;
use surfpool_core::surfnet::locker::SurfnetSvmLocker;
use surfpool_core::surfnet::svm::{SurfnetSvm, SurfnetSvmConfig};
use surfpool_types::{
    BlockProductionMode, RpcConfig, SimnetCommand, SimnetConfig, SimnetEvent, SurfpoolConfig,
};
use tokio::sync::oneshot;

use crate::error::{LocalnetError, StoreError};
use crate::execution_thread;
use crate::parameters::Choice;
use crate::persistence::{EVENTS_WAITING_MAX, Persistence};
use crate::ports::Addresses;
use crate::restore::{now_ms, restore, set_clock};
use crate::store::Store;

/// surfpool's own default: enough for 20 mints, and a limit on a runaway program.
const LOG_BYTES_MAX: usize = 10_000;

/// How often block times are compared with the wall clock.
const CLOCK_CHECK: Duration = Duration::from_secs(10);

/// A running chain.
pub struct Chain {
    pub genesis_hash: Hash,
    /// The slot that is open for transactions at the start.
    pub slot: u64,
    /// Fires once when transactions are accepted and answered.
    pub started: oneshot::Receiver<()>,
    /// Sends once why the chain has ended.
    pub ended: oneshot::Receiver<String>,
    commands: Sender<SimnetCommand>,
    locker: SurfnetSvmLocker,
    persistence: Persistence,
}

fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), LocalnetError> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    let started = thread.spawn(work);
    started
        .map(drop)
        .map_err(|error| LocalnetError::Start(error.to_string()))
}

impl Chain {
    /// Starts surfpool with the state in the store. Call on a multi-threaded runtime.
    pub fn start(
        store: Arc<Store>,
        addresses: &Addresses,
        chosen: Choice,
        on_store_failure: impl Fn(StoreError) + Clone + Send + Sync + 'static,
    ) -> Result<Self, LocalnetError> {
        let start_error = |error: &dyn std::fmt::Display| LocalnetError::Start(error.to_string());
        let parameters = store
            .parameters(chosen)
            .map_err(|error| start_error(&error))?;
        let slot_ms = parameters.slot_ms;
        let (mut svm, simnet_events, _unused) = SurfnetSvm::new(SurfnetSvmConfig {
            slot_time: slot_ms,
            // Profiling executes every prefix of a transaction again.
            instruction_profiling_enabled: false,
            max_profiles: 1,
            log_bytes_limit: Some(LOG_BYTES_MAX),
            ..SurfnetSvmConfig::default()
        })
        .map_err(|error| start_error(&error))?;
        let (geyser_tx, geyser_rx) = bounded(EVENTS_WAITING_MAX);
        svm.geyser_events_tx = geyser_tx;

        let restored = restore(
            &mut svm,
            store.clone(),
            parameters,
            on_store_failure.clone(),
        )
        .map_err(|error| start_error(&error))?;
        let airdrop_account = svm.inner.airdrop_pubkey();
        let slot = svm.get_latest_absolute_slot();
        let locker = SurfnetSvmLocker::new(svm);

        let persistence = Persistence::start(
            geyser_rx,
            store,
            restored.history,
            airdrop_account,
            on_store_failure,
        )
        .map_err(|error| start_error(&error))?;
        let (started_tx, started) = oneshot::channel();
        start_thread("surfpool-events", move || {
            log_events(&simnet_events, started_tx);
        })?;
        let (commands, commands_rx) = unbounded();
        let (ended_tx, ended) = oneshot::channel();
        let run = RunLoop {
            locker: locker.clone(),
            config: config(addresses, slot_ms),
            commands: commands.clone(),
            commands_rx,
        };
        start_thread("surfpool", move || {
            let _ = ended_tx.send(run.run());
        })?;
        Ok(Self {
            genesis_hash: restored.genesis_hash,
            slot,
            started,
            ended,
            commands,
            locker,
            persistence,
        })
    }

    /// Keeps block times near the wall clock. surfpool adds one slot's length per block, but a block takes a little longer, and
    /// much longer on a machine that sleeps or is overloaded.
    pub async fn keep_time(locker: SurfnetSvmLocker) {
        let mut tick = tokio::time::interval(CLOCK_CHECK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let mut svm = locker.0.write().await;
            let now = now_ms();
            // Never backwards: block times only increase.
            if now > svm.updated_at + svm.slot_time {
                set_clock(&mut svm, now);
            }
        }
    }

    pub fn locker(&self) -> SurfnetSvmLocker {
        self.locker.clone()
    }

    /// Stops the chain and writes its newest block, which includes every executed transaction.
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
    /// surfpool's loop blocks its thread between events, so it runs on its own runtime. Returns why it ended.
    fn run(self) -> String {
        let runtime = match tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return error.to_string(),
        };
        let _executing = execution_thread::mark();
        // Geyser plugins are not used: our events are taken before they reach this channel.
        let (_no_events, no_events_rx) = bounded(1);
        let ended = runtime.block_on(start_local_surfnet_runloop(
            self.locker,
            self.config,
            self.commands,
            self.commands_rx,
            no_events_rx,
        ));
        // surfpool's servers still run on it, and dropping it would wait for them; the process ends soon.
        std::mem::forget(runtime);
        match ended {
            Ok(()) => "surfpool ended".to_owned(),
            Err(error) => error.to_string(),
        }
    }
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

/// surfpool blocks when its events are not received, so this receives them for as long as it runs.
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
