//! A person books a landed mint that the ledger lacks without a reading.
//!
//! Invariant: it is booked only if an endpoint shows it as finalized and no transaction of the ledger that may pay readings has its
//! signature.

use solana_sdk::pubkey::Pubkey;
use solana_sdk::transaction::VersionedTransaction;
use sqlx::{PgConnection, PgPool};
use thiserror::Error;

use crate::chain::{ChainMint, Endpoints, Finality, MintLookup};
use crate::domain::{MintNumber, TxSignature};
use crate::ledger::breaker::ledger_row::LedgerRow;
use crate::ledger::breaker::unknown_mints;
use crate::ledger::error::LedgerError;

/// The reason for which a mint is not treated as unknown, or not booked.
#[derive(Debug, Error)]
pub enum UnknownMintError {
    #[error(
        "no RPC endpoint shows transaction {signature} as finalized; check the signature, or wait, or add an endpoint with \
         full history"
    )]
    NotFinalized { signature: TxSignature },
    #[error(
        "transaction {signature} minted nothing of our token by our authority, so there is nothing to book"
    )]
    MintedNothing { signature: TxSignature },
    #[error("transaction {signature} is in the ledger (number {number}): it pays readings")]
    InLedger {
        signature: TxSignature,
        number: MintNumber,
    },
    /// `reason` is that of the person who booked it.
    #[error("transaction {signature} is booked already: {reason}")]
    Booked {
        signature: TxSignature,
        reason: String,
    },
    #[error("transaction {signature} was adopted meanwhile, so there is nothing to book")]
    Adopted { signature: TxSignature },
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
    /// Name of the endpoint that shows it.
    pub(super) endpoint: String,
    /// Of that endpoint, after it showed the mint.
    pub(super) finalized_height: u64,
    /// Its number, if the ledger holds it as dead.
    pub(super) held_as_dead: Option<MintNumber>,
}

/// Reads the mint from the chain. An error if the ledger has it and it may pay readings.
pub async fn fetch_unknown_mint(
    pool: &PgPool,
    endpoints: &Endpoints,
    mint: &Pubkey,
    authority: &Pubkey,
    signature: TxSignature,
) -> Result<UnknownMint, UnknownMintError> {
    let genesis = LedgerRow::read(pool).await?.genesis()?;
    let mut failure = None;
    for endpoint in endpoints.iter() {
        if let Err(error) = endpoint.ensure_chain(&genesis).await {
            failure = Some(error);
            continue;
        }
        let lookup = MintLookup {
            endpoint,
            mint,
            authority,
            finality: Finality::Final,
        };
        match lookup.find_with_transaction(signature).await {
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
    signature: TxSignature,
) -> Result<Option<MintNumber>, UnknownMintError> {
    let known: Option<(MintNumber, bool)> = sqlx::query_as(
        "SELECT number, state = 'dead'
         FROM mint_transactions
         WHERE signature = $1",
    )
    .bind(signature)
    .fetch_optional(pool)
    .await?;
    match known {
        None => Ok(None),
        Some((number, true)) => Ok(Some(number)),
        Some((number, false)) => Err(UnknownMintError::InLedger { signature, number }),
    }
}

/// Books it without a reading, in the caller's transaction, so that it no longer holds the breaker open. `reason` is the
/// person's.
pub async fn book_without_reading(
    transaction: &mut PgConnection,
    landed: &UnknownMint,
    reason: &str,
) -> Result<(), UnknownMintError> {
    let signature = landed.mint.signature;
    // The history scan may not have stored it yet.
    unknown_mints::insert(transaction, std::slice::from_ref(&landed.mint)).await?;
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
    Err(match reason {
        Some(reason) => UnknownMintError::Booked { signature, reason },
        None => UnknownMintError::Adopted { signature },
    })
}
