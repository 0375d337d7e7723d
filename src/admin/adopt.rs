//! Adopts or books a landed mint that the ledger lacks.

use sqlx::PgPool;
use thiserror::Error;

use super::error::{AdminError, parse_reason};
use crate::admin_log::{self, AdminAction};
use crate::chain::Endpoints;
use crate::db;
use crate::domain::TxSignature;
use crate::ledger::{self, AdoptError, BindingError, UnknownMintError};

/// The mint stays unknown. Nothing was changed and nothing was logged.
#[derive(Debug, Error)]
pub enum AdoptionError {
    /// The reason is empty or too long.
    #[error(transparent)]
    Reason(#[from] AdminError),
    #[error(transparent)]
    Binding(#[from] BindingError),
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    #[error(transparent)]
    Foreign(#[from] UnknownMintError),
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// Assigns the mint to the pending readings that match its amounts and Merkle root. Returns the number of those readings.
pub async fn adopt_mint(
    pool: &PgPool,
    endpoints: &Endpoints,
    actor: &str,
    signature: TxSignature,
) -> Result<u64, AdoptionError> {
    let binding = ledger::binding(pool).await?;
    let adoptable = ledger::check_adoptable(
        pool,
        endpoints,
        &binding.mint,
        &binding.authority,
        signature,
    )
    .await?;
    let mut transaction = db::begin(pool).await?;
    let adopted = ledger::adopt(&mut transaction, &adoptable).await?;
    let action = AdminAction::AdoptMint {
        signature,
        number: adoptable.number(),
        readings: adopted.readings,
    };
    admin_log::append(&mut transaction, actor, &action).await?;
    transaction.commit().await?;
    adopted.report_committed();
    Ok(adopted.readings)
}

/// Books the mint without a reading: the audit lists it as foreign from then on.
pub async fn book_foreign_mint(
    pool: &PgPool,
    endpoints: &Endpoints,
    actor: &str,
    signature: TxSignature,
    reason: &str,
) -> Result<(), AdoptionError> {
    let reason = parse_reason(reason)?;
    let binding = ledger::binding(pool).await?;
    let landed = ledger::fetch_unknown_mint(
        pool,
        endpoints,
        &binding.mint,
        &binding.authority,
        signature,
    )
    .await?;
    let mut transaction = db::begin(pool).await?;
    ledger::book_without_reading(&mut transaction, &landed, &reason).await?;
    let base_units = landed.mint.base_units();
    let action = AdminAction::BookForeignMint {
        signature,
        base_units: base_units.map(|sum| sum.to_string()).unwrap_or_default(),
        reason,
    };
    admin_log::append(&mut transaction, actor, &action).await?;
    transaction.commit().await?;
    Ok(())
}
