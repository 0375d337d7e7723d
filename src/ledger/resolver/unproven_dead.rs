//! Searches for mint transactions that a person called dead without a proof, as long as they are stored.
//!
//! Invariant: one that is found landed opens the ledger breaker. The history scan alone would not find it: it lists what lies
//! above its watermark, and such a transaction may have landed far below.

use std::collections::HashSet;
use std::time::Duration;

use solana_sdk::hash::Hash;
use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;

use super::first_failure::{FirstFailure, Rest, no_endpoint_answers};
use super::signature_status::{self, Lookup, SIGNATURES_PER_CALL, SignatureStatus};
use crate::chain::{ChainMint, Endpoints, Finality, MintLookup};
use crate::db::{BigInt, within};
use crate::domain::{MintNumber, TxSignature};
use crate::ledger::breaker::heights::last_possible_height;
use crate::ledger::breaker::ledger_row::LedgerRow;
use crate::ledger::breaker::unknown_mints::{known_among, store_unknown_mints};
use crate::ledger::error::LedgerError;

/// Searches for all of them, on every endpoint with history. Returns how many were found landed for the first time; the error is
/// the first failure, after all others were searched for. `limit` bounds one transaction of the database.
pub async fn find_landed(
    pool: &PgPool,
    endpoints: &Endpoints,
    mint: &Pubkey,
    authority: &Pubkey,
    limit: Duration,
) -> Result<u64, LedgerError> {
    let search = Search {
        pool,
        endpoints,
        genesis_hash: within(limit, LedgerRow::read(pool)).await?.genesis()?,
        mint,
        authority,
        limit,
    };
    let (mut found, mut after) = (0, BigInt::default());
    let mut failures = FirstFailure::default();
    loop {
        let page = within(limit, unproven_after(pool, after)).await?;
        let Some((last, _)) = page.last() else {
            break;
        };
        after = BigInt::from(last.get());
        let signatures: Vec<TxSignature> = page.iter().map(|(_, signature)| *signature).collect();
        let searched = search.find_among(&signatures, &mut found).await;
        if searched.as_ref().is_err_and(no_endpoint_answers) {
            return searched.map(|()| found);
        }
        if failures.note(searched) == Rest::IsGivenUp {
            break;
        }
    }
    failures.into_result()?;
    Ok(found)
}

struct Search<'a> {
    pool: &'a PgPool,
    endpoints: &'a Endpoints,
    genesis_hash: Hash,
    mint: &'a Pubkey,
    authority: &'a Pubkey,
    limit: Duration,
}

impl Search<'_> {
    /// Adds to `found`. One that cannot be read or stored keeps no other from it.
    async fn find_among(
        &self,
        signatures: &[TxSignature],
        found: &mut u64,
    ) -> Result<(), LedgerError> {
        let stored = within(self.limit, known_among(self.pool, signatures)).await?;
        let mut failures = FirstFailure::default();
        let landed = landed_among(self.endpoints, &self.genesis_hash, signatures, &stored);
        for signature in landed.await? {
            let added = self.store_mint(&signature).await;
            if failures.note(added.map(|new| *found += new)) == Rest::IsGivenUp {
                break;
            }
        }
        failures.into_result()
    }

    async fn store_mint(&self, signature: &TxSignature) -> Result<u64, LedgerError> {
        let (endpoints, genesis) = (self.endpoints, &self.genesis_hash);
        let landed = read_mint(endpoints, genesis, signature, self.mint, self.authority).await?;
        let height = last_possible_height(endpoints, genesis).await?;
        within(
            self.limit,
            store_unknown_mints(self.pool, &[landed], height),
        )
        .await
    }
}

async fn unproven_after(
    pool: &PgPool,
    number: BigInt,
) -> sqlx::Result<Vec<(MintNumber, TxSignature)>> {
    sqlx::query_as(
        "SELECT number, signature
         FROM mint_transactions
         WHERE dead_unproven
           AND number > $1
         ORDER BY number
         LIMIT $2",
    )
    .bind(number)
    .bind(BigInt::from(SIGNATURES_PER_CALL))
    .fetch_all(pool)
    .await
}

/// Those that an endpoint shows, and that are not stored among the unknown mints yet.
async fn landed_among(
    endpoints: &Endpoints,
    genesis_hash: &Hash,
    signatures: &[TxSignature],
    stored: &HashSet<TxSignature>,
) -> Result<Vec<TxSignature>, LedgerError> {
    let missing: Vec<TxSignature> = signatures
        .iter()
        .filter(|signature| !stored.contains(signature))
        .copied()
        .collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let statuses =
        signature_status::fetch(endpoints, genesis_hash, &missing, Lookup::History).await?;
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
async fn read_mint(
    endpoints: &Endpoints,
    genesis_hash: &Hash,
    signature: &TxSignature,
    mint: &Pubkey,
    authority: &Pubkey,
) -> Result<ChainMint, LedgerError> {
    let mut failure = None;
    for endpoint in endpoints.iter() {
        let lookup = MintLookup {
            endpoint,
            mint,
            authority,
            finality: Finality::Confirmed,
        };
        let found = async {
            endpoint.ensure_chain(genesis_hash).await?;
            lookup.find(*signature).await
        };
        match found.await {
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
