//! A person adopts a landed mint that the ledger lacks: it is booked for the readings that it paid.
//!
//! Invariant: it is booked only for readings of which its own memo proves that it paid them, and only while no other transaction
//! pays them. They pass through the same states as all others: recorded, confirmed, and finalized by the resolver.

use solana_sdk::pubkey::Pubkey;
use solana_sdk::transaction::VersionedTransaction;
use sqlx::{PgConnection, PgPool};
use thiserror::Error;

use super::book_unknown::{UnknownMint, UnknownMintError, fetch_unknown_mint};
use super::paid_readings::{Search, find_paid_readings};
use crate::chain::{ChainCharges, Endpoints, RecentBlockhash};
use crate::db::{BigInt, SqlCondition};
use crate::domain::{Memo, MintNumber, MintTransactionEvent, TxSignature, signed_bytes};
use crate::ledger::breaker::unknown_mints;
use crate::ledger::error::LedgerError;
use crate::ledger::proof::run_store;
use crate::ledger::record::{NewMintTransaction, PackedReading, StoreOutcome, store};
use crate::ledger::transitions::{Confirmed, Landed, confirm_in};

/// The reason for which a mint is not adopted.
#[derive(Debug, Error)]
pub enum AdoptError {
    /// The chain does not show it as a landed mint of ours, or the ledger has it.
    #[error(transparent)]
    Foreign(#[from] UnknownMintError),
    #[error(
        "the ledger holds transaction {signature} as dead (number {number}); if its readings were paid by another one since, \
         book it with --foreign"
    )]
    HeldAsDead {
        signature: TxSignature,
        number: MintNumber,
    },
    #[error(
        "transaction {signature} has no memo of this program, so nothing shows which readings it paid; book it with --foreign"
    )]
    NoMemo { signature: TxSignature },
    #[error(
        "transaction {signature} has number {number}, which another transaction has in the ledger; book it with --foreign"
    )]
    NumberTaken {
        signature: TxSignature,
        number: MintNumber,
    },
    #[error(
        "no pending readings of this database give the sums and the root of transaction {signature} ({searched} were \
         searched). Failed ones count after a retry. If its readings are not here any more, book it with --foreign"
    )]
    NoReadings {
        signature: TxSignature,
        searched: usize,
    },
    #[error(
        "the pending readings of the wallets that transaction {signature} paid can be combined in too many ways \
         ({searched} were searched), and none that was tried gives its root; adopt the transactions with lower numbers first"
    )]
    TooManySets {
        signature: TxSignature,
        searched: usize,
    },
    #[error(
        "a reading that transaction {signature} paid has changed while it was adopted; try again"
    )]
    Changed { signature: TxSignature },
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<sqlx::Error> for AdoptError {
    fn from(error: sqlx::Error) -> AdoptError {
        AdoptError::Ledger(error.into())
    }
}

/// A landed mint, and the readings that it paid.
#[derive(Debug)]
pub struct Adoptable {
    new: NewMintTransaction,
    slot: u64,
}

impl Adoptable {
    /// From its memo.
    pub fn number(&self) -> MintNumber {
        self.new.number
    }
}

/// An adopted mint, once the caller has committed.
#[derive(Debug)]
#[must_use = "to be reported to the metrics after the commit"]
pub struct Adopted {
    pub readings: u64,
    confirmed: Confirmed,
}

impl Adopted {
    /// Reports it to the metrics; after the commit.
    pub fn report_committed(&self) {
        self.confirmed.report();
    }
}

/// Reads the mint from the chain, at finalized commitment, and finds its readings. Holds no lock.
pub async fn check_adoptable(
    pool: &PgPool,
    endpoints: &Endpoints,
    mint: &Pubkey,
    authority: &Pubkey,
    signature: TxSignature,
) -> Result<Adoptable, AdoptError> {
    let landed = fetch_unknown_mint(pool, endpoints, mint, authority, signature).await?;
    if let Some(number) = landed.held_as_dead {
        return Err(AdoptError::HeldAsDead { signature, number });
    }
    let memo = landed.mint.memo.ok_or(AdoptError::NoMemo { signature })?;
    let number = memo.number();
    let taken: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM mint_transactions WHERE number = $1)")
            .bind(number)
            .fetch_one(pool)
            .await?;
    if taken {
        return Err(AdoptError::NumberTaken { signature, number });
    }
    let readings = match find_paid_readings(pool, mint, &landed.mint, memo.root()).await? {
        Search::Found(readings) => readings,
        Search::NotFound { searched } => {
            return Err(AdoptError::NoReadings {
                signature,
                searched,
            });
        }
        Search::TooManySets { searched } => {
            return Err(AdoptError::TooManySets {
                signature,
                searched,
            });
        }
    };
    let charges = endpoints.known_charges(authority).await;
    let charges = charges.map_err(LedgerError::Chain)?;
    Ok(Adoptable {
        slot: landed.mint.slot,
        new: transaction_of(&landed, &memo, readings, charges)?,
    })
}

/// Books it in the caller's transaction, whatever the breaker's state: nothing is signed.
pub async fn adopt(
    transaction: &mut PgConnection,
    adoptable: &Adoptable,
) -> Result<Adopted, AdoptError> {
    let new = &adoptable.new;
    let signature = new.signature;
    sqlx::query("DELETE FROM foreign_mints WHERE signature = $1")
        .bind(signature.to_string())
        .execute(&mut *transaction)
        .await?;
    match store(transaction, new).await {
        Ok(StoreOutcome::Stored) => {}
        Ok(StoreOutcome::Stale) => return Err(AdoptError::Changed { signature }),
        // Another transaction pays a reading by now, or the number was taken meanwhile.
        Err(error) if SqlCondition::of(&error) == SqlCondition::UniqueViolation => {
            return Err(AdoptError::Changed { signature });
        }
        Err(error) => return Err(error.into()),
    }
    // It is recorded after it landed, unlike all others: a block that was read before has dropped its signature as a foreign one.
    run_store::store_found(transaction, &[signature], adoptable.slot, &new.endpoint).await?;
    unknown_mints::raise_next_number(transaction, new.number).await?;
    let landed = Landed {
        number: new.number,
        slot: adoptable.slot,
    };
    let event = MintTransactionEvent::Confirmed;
    let confirmed = confirm_in(transaction, &[landed], event).await?;
    Ok(Adopted {
        readings: BigInt::from(confirmed.readings.len()).get(),
        confirmed,
    })
}

/// The transaction as it would have been recorded. The fields that only serve to send it again or to prove it dead are no longer
/// needed.
fn transaction_of(
    landed: &UnknownMint,
    memo: &Memo,
    readings: Vec<PackedReading>,
    charges: ChainCharges,
) -> Result<NewMintTransaction, LedgerError> {
    let signature = landed.mint.signature;
    let unreadable = |what| LedgerError::Unreadable {
        what,
        value: signature.to_string(),
    };
    let transaction = &landed.transaction;
    let signed_bytes = signed_bytes::encode(transaction)
        .map_err(|_| unreadable("a transaction that cannot be serialised"))?;
    let base_units = landed
        .mint
        .base_units()
        .ok_or_else(|| unreadable("a mint of more than 64 bits"))?;
    let signatures = BigInt::from(transaction.signatures.len()).get();
    let fee_lamports = landed.mint.fee_lamports;
    Ok(NewMintTransaction {
        number: memo.number(),
        signature,
        signed_bytes,
        merkle_root: memo.root(),
        base_units,
        blockhash: RecentBlockhash {
            hash: *transaction.message.recent_blockhash(),
            slot: landed.mint.slot,
            last_valid_block_height: landed.finalized_height,
        },
        endpoint: landed.endpoint.clone(),
        account_creations: account_creations(transaction),
        fee_lamports,
        priority_fee_lamports: fee_lamports.saturating_sub(signatures * charges.per_signature),
        token_account_rent_lamports: charges.token_account_rent,
        readings,
    })
}

fn account_creations(transaction: &VersionedTransaction) -> u32 {
    let keys = transaction.message.static_account_keys();
    let creates = |program: u8| {
        keys.get(usize::from(program)) == Some(&spl_associated_token_account_interface::program::ID)
    };
    let instructions = transaction.message.instructions().iter();
    let creations = instructions
        .filter(|instruction| creates(instruction.program_id_index))
        .count();
    // A transaction has at most 4,096 bytes, so it has far fewer instructions.
    u32::try_from(creations).unwrap_or(u32::MAX)
}
