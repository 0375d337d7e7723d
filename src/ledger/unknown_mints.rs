//! Landed mints of our authority that the ledger lacks, or holds as dead: stored, announced, and never forgotten until a
//! person has dealt with each: adopted it (`adopt`), or booked it without a reading.

use rust_decimal::Decimal;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signature;
use solana_sdk::transaction::VersionedTransaction;
use sqlx::{PgConnection, PgPool};
use thiserror::Error;

use super::LedgerError;
use super::breaker::{self, Breaker, LedgerRow};
use crate::chain::{ChainMint, Endpoints, MintLookup};

/// Stores these mints, opens the breaker for them, and keeps our numbers above theirs. What the ledger has come to know
/// meanwhile is left out. `last_possible_height`: up to there may land what was signed before now. Returns how many are new.
pub(super) async fn store_unknown_mints(
    pool: &PgPool,
    found: &[ChainMint],
    last_possible_height: u64,
) -> Result<u64, LedgerError> {
    let mut transaction = pool.begin().await?;
    let row = LedgerRow::lock(&mut transaction).await?;
    let new = insert(&mut transaction, found).await?;
    // Only memos of our mint by our authority count: two deployments may share an authority, never a mint.
    let numbers = found.iter().filter_map(|mint| mint.memo);
    if let Some(highest) = numbers.map(|memo| memo.number().get()).max() {
        raise_next_number(&mut transaction, highest).await?;
    }
    open_breaker(&mut transaction, &row, new, last_possible_height).await?;
    transaction.commit().await?;
    Ok(new)
}

/// Opens the breaker when some foreign mint is not dealt with and the breaker does not say so.
pub(super) async fn open_for_unresolved(
    pool: &PgPool,
    last_possible_height: u64,
) -> Result<(), LedgerError> {
    let unresolved: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM foreign_mints WHERE booked_reason IS NULL)")
            .fetch_one(pool)
            .await?;
    if !unresolved {
        return Ok(());
    }
    let mut transaction = pool.begin().await?;
    let row = LedgerRow::lock(&mut transaction).await?;
    open_breaker(&mut transaction, &row, 0, last_possible_height).await?;
    transaction.commit().await?;
    Ok(())
}

async fn insert(transaction: &mut PgConnection, found: &[ChainMint]) -> Result<u64, LedgerError> {
    let texts: Vec<String> = found
        .iter()
        .map(|mint| mint.signature.to_string())
        .collect();
    let bytes: Vec<&[u8]> = found.iter().map(|mint| mint.signature.as_ref()).collect();
    let slots: Vec<i64> = found.iter().map(|mint| mint.slot as i64).collect();
    let memos: Vec<Option<&str>> = found.iter().map(|mint| mint.raw_memo.as_deref()).collect();
    let base_units = found
        .iter()
        .map(base_units_of)
        .collect::<Result<Vec<Decimal>, LedgerError>>()?;
    let inserted = sqlx::query(
        "INSERT INTO foreign_mints (signature, slot, base_units, memo)
         SELECT found.text, found.slot, found.base_units, found.memo
         FROM UNNEST($1::TEXT[], $2::BYTEA[], $3::BIGINT[], $4::NUMERIC[], $5::TEXT[])
           AS found (text, bytes, slot, base_units, memo)
         -- Looked up again: what was recorded since the first look is ours.
         WHERE NOT EXISTS (
             SELECT FROM mint_transactions
             WHERE signature = found.bytes
               AND state <> 'dead'
         )
         ON CONFLICT DO NOTHING",
    )
    .bind(texts)
    .bind(bytes)
    .bind(slots)
    .bind(base_units)
    .bind(memos)
    .execute(transaction)
    .await?;
    Ok(inserted.rows_affected())
}

fn base_units_of(mint: &ChainMint) -> Result<Decimal, LedgerError> {
    mint.base_units()
        .map(|sum| sum.to_decimal())
        .ok_or_else(|| LedgerError::Unreadable {
            what: "a mint of more than 64 bits",
            value: mint.signature.to_string(),
        })
}

/// Our numbers go on above this one.
pub(super) async fn raise_next_number(
    transaction: &mut PgConnection,
    highest: u64,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE ledger
         -- The column's own limit: a memo may hold the largest number there is.
         SET next_number = GREATEST(next_number, LEAST($1 + 1, 281474976710655))",
    )
    .bind(highest as i64)
    .execute(transaction)
    .await?;
    Ok(())
}

/// Announced when it opens, and again for each batch of new ones while it is open. The height that a changed database set
/// stays in force.
async fn open_breaker(
    transaction: &mut PgConnection,
    row: &LedgerRow,
    new: u64,
    last_possible_height: u64,
) -> Result<(), LedgerError> {
    let (unresolved, newest): (i64, Option<String>) = sqlx::query_as(
        "SELECT count(*), (array_agg(signature ORDER BY slot DESC))[1]
         FROM foreign_mints
         WHERE booked_reason IS NULL",
    )
    .fetch_one(&mut *transaction)
    .await?;
    let Some(newest) = newest else {
        return Ok(());
    };
    if row.breaker == Breaker::Mismatch && new == 0 {
        return Ok(());
    }
    let reason = format!(
        "LedgerMismatch: landed mints of our authority that the ledger lacks or holds as dead: {unresolved}, the newest \
         {newest}; nothing is signed until an admin has dealt with each"
    );
    sqlx::query(
        "UPDATE ledger
         SET breaker = $1, breaker_reason = $2,
             breaker_opened_at = CASE WHEN breaker = 'closed' THEN now() ELSE breaker_opened_at END,
             breaker_closes_after_height = CASE WHEN breaker = 'identity'
                                                THEN COALESCE(breaker_closes_after_height, $3)
                                                ELSE breaker_closes_after_height END",
    )
    .bind(Breaker::Mismatch.as_str())
    .bind(&reason)
    .bind(last_possible_height as i64)
    .execute(&mut *transaction)
    .await?;
    breaker::announce(transaction, &reason, Some(&newest)).await?;
    tracing::error!(reason, "the ledger breaker is open");
    Ok(())
}

/// Why a mint is not booked.
#[derive(Debug, Error)]
pub enum UnknownMintError {
    #[error(
        "no RPC endpoint shows transaction {signature} as finalized; check the signature, or wait, or add an endpoint with \
         full history"
    )]
    NotFinalized { signature: Signature },
    #[error(
        "transaction {signature} minted nothing of our token by our authority, so there is nothing to book"
    )]
    MintedNothing { signature: Signature },
    #[error("transaction {signature} is in the ledger (number {number}): it pays readings")]
    InLedger { signature: Signature, number: u64 },
    #[error("transaction {signature} is booked already: {reason}")]
    Booked {
        signature: Signature,
        reason: String,
    },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<sqlx::Error> for UnknownMintError {
    fn from(error: sqlx::Error) -> UnknownMintError {
        UnknownMintError::Ledger(error.into())
    }
}

/// A landed mint that the ledger lacks, or holds as dead, as an endpoint shows it at finalized commitment.
#[derive(Debug)]
pub struct UnknownMint {
    pub mint: ChainMint,
    pub(super) transaction: VersionedTransaction,
    /// The endpoint's name.
    pub(super) endpoint: String,
    /// Of that endpoint, afterwards.
    pub(super) finalized_height: u64,
    /// Its number, where the ledger holds it as dead.
    pub(super) held_as_dead: Option<u64>,
}

/// Reads the chain, and demands that the ledger lacks the mint.
pub async fn fetch_unknown_mint(
    pool: &PgPool,
    endpoints: &Endpoints,
    mint: &Pubkey,
    authority: &Pubkey,
    signature: Signature,
) -> Result<UnknownMint, UnknownMintError> {
    let mut failure = None;
    for endpoint in endpoints.iter() {
        let lookup = MintLookup {
            endpoint,
            mint,
            authority,
            commitment: CommitmentConfig::finalized(),
        };
        match lookup.find_with_transaction(&signature).await {
            Ok(Some((mint, transaction))) => {
                if mint.payments.is_empty() {
                    return Err(UnknownMintError::MintedNothing { signature });
                }
                let finalized_height = endpoint
                    .finalized_height()
                    .await
                    .map_err(LedgerError::from)?;
                return Ok(UnknownMint {
                    mint,
                    transaction,
                    endpoint: endpoint.name().to_owned(),
                    finalized_height,
                    held_as_dead: held_as_dead(pool, signature).await?,
                });
            }
            Ok(None) => {}
            Err(error) => failure = Some(error),
        }
    }
    Err(
        failure.map_or(UnknownMintError::NotFinalized { signature }, |error| {
            LedgerError::from(error).into()
        }),
    )
}

async fn held_as_dead(
    pool: &PgPool,
    signature: Signature,
) -> Result<Option<u64>, UnknownMintError> {
    let known: Option<(i64, bool)> = sqlx::query_as(
        "SELECT number, state = 'dead'
         FROM mint_transactions
         WHERE signature = $1",
    )
    .bind(signature.as_ref())
    .fetch_optional(pool)
    .await?;
    match known {
        None => Ok(None),
        Some((number, true)) => Ok(Some(number as u64)),
        Some((number, false)) => Err(UnknownMintError::InLedger {
            signature,
            number: number as u64,
        }),
    }
}

/// Books it without a reading, in the caller's transaction: it holds the breaker open no longer. `reason` is the person's.
pub async fn book_without_reading(
    transaction: &mut PgConnection,
    landed: &UnknownMint,
    reason: &str,
) -> Result<(), UnknownMintError> {
    let signature = landed.mint.signature;
    // Those that the walk has not come to are stored first.
    insert(transaction, std::slice::from_ref(&landed.mint)).await?;
    let booked = sqlx::query(
        "UPDATE foreign_mints
         SET booked_reason = $2
         WHERE signature = $1
           AND booked_reason IS NULL",
    )
    .bind(signature.to_string())
    .bind(reason)
    .execute(&mut *transaction)
    .await?;
    if booked.rows_affected() == 1 {
        return Ok(());
    }
    let reason: Option<String> =
        sqlx::query_scalar("SELECT booked_reason FROM foreign_mints WHERE signature = $1")
            .bind(signature.to_string())
            .fetch_optional(transaction)
            .await?;
    Err(UnknownMintError::Booked {
        signature,
        reason: reason.unwrap_or_else(|| "it was adopted meanwhile".to_owned()),
    })
}
