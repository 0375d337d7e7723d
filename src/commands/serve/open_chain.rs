//! The chain at start: opened and bound to the ledger, or read from the ledger while no endpoint answers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::PgPool;
use tokio::sync::SetOnce;

use super::base::Base;
use super::solana::{self, Solana};
use super::start_error::StartError;
use crate::chain::{PriorityFees, TransactionFormats};
use crate::config::Config;
use crate::ledger::{self, BindingError};
use crate::mint::{ChainHandle, FeePayerSource};

/// How often an endpoint that answers is looked up after a start without one.
const CHECK_CHAIN_EVERY: Duration = Duration::from_secs(2);

/// The chain, as far as it is known at start.
pub(super) struct OpenedChain {
    pub solana: Solana,
    /// False when no endpoint answered: the chain is checked later.
    is_checked: bool,
}

/// Opens the chain and binds the ledger to it. While no endpoint answers, a process that signs nothing reads what it needs to know
/// about the chain from its ledger.
pub(super) async fn open_or_recall(base: &Base) -> Result<OpenedChain, StartError> {
    let pool = &base.database.pool;
    match open(&base.config, pool).await {
        Ok(solana) => Ok(OpenedChain {
            solana,
            is_checked: true,
        }),
        Err(StartError::Chain(error)) => {
            let Some(solana) = solana::recall(&base.config, pool).await? else {
                return Err(StartError::Chain(error));
            };
            tracing::warn!(%error, "no RPC endpoint answers: readings are accepted, and the chain is checked later");
            Ok(OpenedChain {
                solana,
                is_checked: false,
            })
        }
        Err(error) => Err(error),
    }
}

/// The chain, and the ledger bound to it.
async fn open(config: &Config, pool: &PgPool) -> Result<Solana, StartError> {
    // Boxed: through all their borrows the compiler does not see that they are `Send`.
    let mut solana = solana::open(config).boxed().await?;
    solana.scan_request = Some(solana.bind_ledger(config, pool).boxed().await?);
    Ok(solana)
}

/// The handle that all rooms use. A process that mints has the fee payer's key and stores its address for the other
/// processes, whose own keys, if they have any, pay nothing.
pub(super) async fn chain_handle(base: &Base, solana: &Solana) -> Result<ChainHandle, StartError> {
    let (config, pool) = (&base.config, &base.database.pool);
    let minting = solana
        .signer
        .as_ref()
        .filter(|_| config.service.role.runs_jobs());
    let fee_payer = match minting {
        Some(signer) => {
            let fee_payer = signer.fee_payer();
            ledger::store_fee_payer(pool, &fee_payer).await?;
            FeePayerSource::OwnKey(fee_payer)
        }
        None => FeePayerSource::Ledger(ledger::fee_payer(pool).await?),
    };
    let handle = ChainHandle::new(
        solana.endpoints.clone(),
        solana.accounts(config.tokenization.decimals),
        fee_payer,
        PriorityFees::new(
            config.blockchain.priority_fee,
            config.blockchain.priority_fee_max,
        ),
    );
    let formats = TransactionFormats::new(config.blockchain.transaction_format);
    let handle = handle.with_transaction_formats(formats);
    Ok(match (minting, solana.scan_request) {
        (Some(_), Some(scan_request)) => handle.signing_after(scan_request),
        _ => handle,
    })
}

/// The error with which this process would not have started, found only after it had.
pub(super) type FailedCheck = Arc<SetOnce<StartError>>;

/// Runs `task` in the background: at once, or, after a start without an endpoint, once the chain is checked.
pub(super) fn run_on_checked_chain(
    base: &Base,
    opened: &OpenedChain,
    task: BoxFuture<'static, ()>,
) -> FailedCheck {
    let failed_check = FailedCheck::default();
    if opened.is_checked {
        base.tasks.background.spawn(task);
        return failed_check;
    }
    let checked = check_later(
        base.config.clone(),
        base.database.pool.clone(),
        Arc::clone(&failed_check),
    );
    base.spawn_background(|stop| async move {
        if let Some(true) = stop.run_until_cancelled(checked).await {
            task.await;
        }
    });
    failed_check
}

/// Does the checks that a start without an endpoint skipped; true once they pass. What would have kept the process from starting,
/// such as another chain, becomes the failed check that ends it.
async fn check_later(config: Config, pool: PgPool, failed_check: FailedCheck) -> bool {
    loop {
        tokio::time::sleep(CHECK_CHAIN_EVERY).await;
        match open(&config, &pool).await {
            Ok(_) => {
                tracing::info!("an RPC endpoint answers, and it is on the ledger's chain");
                return true;
            }
            // The part "chain" of health reports it.
            Err(StartError::Chain(_) | StartError::Binding(BindingError::Database(_))) => {}
            Err(error) => {
                // Nothing else sets it.
                let _ = failed_check.set(error);
                return false;
            }
        }
    }
}
