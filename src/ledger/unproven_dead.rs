//! Mint transactions that a person has called dead without a proof: looked for as long as they are stored.
//!
//! Invariant: one that is found landed opens the ledger breaker. The walk alone would not do: it lists what lies above its
//! watermark, and this one may have landed long below, unseen.

use std::collections::HashSet;
use std::time::Duration;

use solana_commitment_config::CommitmentConfig;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signature;
use sqlx::PgPool;

use super::history_scan::known_among;
use super::signature_status::{self, SIGNATURES_PER_CALL, SignatureStatus};
use super::{LedgerError, breaker, unknown_mints};
use crate::chain::{ChainMint, Endpoints, MintLookup};
use crate::db::within;

/// Looks for all of them, on every endpoint with history. Returns how many were found landed for the first time. `limit` is
/// that of one transaction of the database.
pub(super) async fn find_landed(
    pool: &PgPool,
    endpoints: &Endpoints,
    mint: &Pubkey,
    authority: &Pubkey,
    limit: Duration,
) -> Result<u64, LedgerError> {
    let (mut found, mut after) = (0, 0);
    loop {
        let page = within(limit, watched_after(pool, after)).await?;
        let Some((last, _)) = page.last() else {
            return Ok(found);
        };
        after = *last;
        let signatures = signatures_of(&page)?;
        let stored = within(limit, known_among(pool, &signatures)).await?;
        let landed = landed_among(endpoints, &signatures, &stored).await?;
        let mut mints = Vec::new();
        for signature in landed {
            mints.push(read(endpoints, &signature, mint, authority).await?);
        }
        if !mints.is_empty() {
            let last_possible_height = breaker::last_possible_height(endpoints).await?;
            let booked = unknown_mints::store_unknown_mints(pool, &mints, last_possible_height);
            found += within(limit, booked).await?;
        }
    }
}

async fn watched_after(pool: &PgPool, number: i64) -> sqlx::Result<Vec<(i64, Vec<u8>)>> {
    sqlx::query_as(
        "SELECT number, signature
         FROM mint_transactions
         WHERE dead_unproven
           AND number > $1
         ORDER BY number
         LIMIT $2",
    )
    .bind(number)
    .bind(SIGNATURES_PER_CALL as i64)
    .fetch_all(pool)
    .await
}

fn signatures_of(page: &[(i64, Vec<u8>)]) -> Result<Vec<Signature>, LedgerError> {
    page.iter()
        .map(|(_, bytes)| {
            Signature::try_from(bytes.as_slice()).map_err(|_| LedgerError::Unreadable {
                what: "a signature of another length",
                value: bytes.len().to_string(),
            })
        })
        .collect()
}

/// Those that an endpoint shows, and that are not stored among the foreign mints yet.
async fn landed_among(
    endpoints: &Endpoints,
    signatures: &[Signature],
    stored: &HashSet<Vec<u8>>,
) -> Result<Vec<Signature>, LedgerError> {
    let missing: Vec<Signature> = signatures
        .iter()
        .filter(|signature| !stored.contains(signature.as_ref()))
        .copied()
        .collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let statuses = signature_status::fetch(endpoints, &missing, true).await?;
    Ok(missing
        .into_iter()
        .zip(statuses)
        .filter(|(_, status)| {
            matches!(
                status,
                SignatureStatus::Confirmed { .. } | SignatureStatus::Finalized { .. }
            )
        })
        .map(|(signature, _)| signature)
        .collect())
}

/// What it paid, from any endpoint that shows it.
async fn read(
    endpoints: &Endpoints,
    signature: &Signature,
    mint: &Pubkey,
    authority: &Pubkey,
) -> Result<ChainMint, LedgerError> {
    let mut failure = None;
    for endpoint in endpoints.iter() {
        let lookup = MintLookup {
            endpoint,
            mint,
            authority,
            commitment: CommitmentConfig::confirmed(),
        };
        match lookup.find(signature).await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.map_or_else(
        || LedgerError::Unreadable {
            what: "a landed transaction that no endpoint shows",
            value: signature.to_string(),
        },
        LedgerError::Chain,
    ))
}
