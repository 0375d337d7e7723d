//! Retries a reading at an admin's request.

use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;
use uuid::Uuid;

use super::error::{AdminError, parse_reason};
use crate::admin_log::{self, AdminAction};
use crate::chain::Endpoints;
use crate::db;
use crate::domain::ReadingState;
use crate::ledger;
use crate::meters;

/// An admin's request to retry a reading.
#[derive(Clone, Debug)]
pub struct RetryRequest {
    pub reading: Uuid,
    /// The wallet that this reading pays from now on; its meter keeps its own.
    pub wallet_address: Option<String>,
    pub reason: Option<String>,
}

/// Makes a failed or pending reading due at once, with all its attempts. A new wallet is validated as at a registration; `mint`
/// is this service's token, which cannot be a wallet.
pub async fn retry_reading(
    pool: &PgPool,
    endpoints: &Endpoints,
    mint: &Pubkey,
    actor: &str,
    retry: RetryRequest,
) -> Result<ReadingState, AdminError> {
    let reason = retry.reason.as_deref().map(parse_reason).transpose()?;
    ledger::check_retryable(pool, retry.reading).await?;
    let wallet = match &retry.wallet_address {
        Some(address) => Some(meters::payable_wallet(endpoints, mint, address).await?),
        None => None,
    };
    let mut transaction = db::begin(pool).await?;
    let state = ledger::retry_reading(&mut transaction, retry.reading, wallet).await?;
    let action = AdminAction::RetryReading {
        reading_id: retry.reading,
        wallet_address: wallet.map(|wallet| wallet.to_string()),
        reason,
    };
    admin_log::append(&mut transaction, actor, &action).await?;
    crate::failpoint!("admin.before_retry_commit");
    transaction.commit().await?;
    Ok(state)
}
