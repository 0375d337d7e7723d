//! A first scan counts only on an endpoint whose history begins with the mint's creation. The search for it is durable, too: with
//! the transaction that created the mint, one call shows whether another endpoint has the beginning.

use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;

use super::scan_progress::ScanProgress;
use crate::chain::{ChainError, Endpoint, UnusableAnswer, mint_history, shows_creation};
use crate::ledger::error::LedgerError;

/// An error if this endpoint does not show the mint's creation.
pub(super) async fn require_creation(
    pool: &PgPool,
    endpoint: &Endpoint,
    mint: &Pubkey,
    progress: &mut ScanProgress,
) -> Result<(), LedgerError> {
    let oldest = match progress.mint_created_by {
        Some(signature) => Some(signature),
        None => {
            let mut pages = mint_history(endpoint, mint, progress.mint_cursor()).await?;
            while pages.next_page().await?.is_some() {
                if let Some(cursor) = pages.resume_cursor() {
                    progress.advance_mint(pool, cursor).await?;
                }
            }
            pages.cursor().map(|cursor| cursor.signature)
        }
    };
    if let Some(signature) = oldest
        && shows_creation(endpoint, mint, signature).await? == Some(true)
    {
        progress.note_creation(pool, signature).await?;
        return Ok(());
    }
    // A list that ends too early does not count: another endpoint may show more below, or less.
    Err(LedgerError::Chain(ChainError::Unusable {
        endpoint: endpoint.name().to_owned(),
        reason: UnusableAnswer::HistoryWithoutCreation { mint: *mint },
    }))
}
