//! The ledger's side: compares each transaction that has landed according to the ledger with its own bytes on chain.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};

use super::compare_transaction::compare;
use super::context::{AuditContext, READS_AT_ONCE};
use super::difference::Difference;
use super::error::AuditError;
use super::ledger_transactions::{self, LedgerTransaction};
use super::total::Total;
use crate::chain::{ChainMint, Finality, MintLookup};
use crate::domain::MintTransactionState;

/// Transactions in one page, each with a few dozen readings at most: bounds the memory.
pub(super) const PAGE: u16 = 200;
/// Number of times that a transaction is queried before it counts as missing. A confirmed transaction that no endpoint shows may
/// have been on a fork, which the resolver takes a few rounds to note, or an endpoint may lag behind.
const QUERIES: u32 = 10;
const QUERY_INTERVAL: Duration = Duration::from_secs(1);

/// The sums of the landed transactions.
#[derive(Debug, Default)]
pub(super) struct LandedTotals {
    pub transactions: u64,
    pub readings_minted: u64,
    pub readings_finalized: u64,
    pub base_units_ledger: Total,
    pub base_units_chain: Total,
}

/// One transaction, compared.
pub(super) enum Compared {
    /// It went back to `recorded` meanwhile because of a fork. Its readings are outstanding.
    NotLanded,
    Landed {
        booked: LedgerTransaction,
        /// `None`: no endpoint shows it.
        on_chain: Option<Box<ChainMint>>,
        differences: Vec<Difference>,
    },
}

/// Reads these transactions of the ledger and of the chain, and compares them.
pub(super) async fn check(
    context: &AuditContext<'_>,
    numbers: &[i64],
) -> Result<Vec<Compared>, AuditError> {
    let booked = ledger_transactions::transactions(context.pool, numbers).await?;
    futures_util::stream::iter(booked)
        .map(|booked| compare_one(context, booked))
        .buffered(READS_AT_ONCE)
        .try_collect()
        .await
}

impl LandedTotals {
    pub fn add(&mut self, booked: &LedgerTransaction, on_chain: Option<&ChainMint>) {
        let readings = u64::try_from(booked.readings.len()).unwrap_or(u64::MAX);
        self.transactions += 1;
        self.readings_minted += readings;
        if booked.state == MintTransactionState::Finalized {
            self.readings_finalized += readings;
        }
        self.base_units_ledger += booked.worth();
        self.base_units_chain += on_chain
            .iter()
            .flat_map(|mint| &mint.payments)
            .map(|(_, base_units)| Total::from(*base_units))
            .sum();
    }
}

/// A transaction that differs is read again, from the ledger and from the chain, and compared again: it may have changed since the
/// page was read, and a fork may have moved it.
pub(super) async fn compare_one(
    context: &AuditContext<'_>,
    mut booked: LedgerTransaction,
) -> Result<Compared, AuditError> {
    if !booked.landed() {
        return Ok(Compared::NotLanded);
    }
    for query in 0..QUERIES {
        if query > 0 {
            tokio::time::sleep(QUERY_INTERVAL).await;
            match reread(context, booked.number).await? {
                Some(again) if again.landed() => booked = again,
                _ => return Ok(Compared::NotLanded),
            }
        }
        let Some(mut on_chain) = query_endpoints(context, &booked).await? else {
            continue;
        };
        let mut differences = compare(&booked, &on_chain, &context.mint);
        if !differences.is_empty() {
            tokio::time::sleep(QUERY_INTERVAL).await;
            match reread(context, booked.number).await? {
                Some(again) if again.landed() => booked = again,
                _ => return Ok(Compared::NotLanded),
            }
            match query_endpoints(context, &booked).await? {
                Some(again) => on_chain = again,
                None => continue,
            }
            differences = compare(&booked, &on_chain, &context.mint);
        }
        return Ok(Compared::Landed {
            booked,
            on_chain: Some(Box::new(on_chain)),
            differences,
        });
    }
    check_history(context, &booked).await?;
    let missing = Difference::NotOnChain {
        signature: booked.signature,
        number: booked.number,
        state: booked.state,
        base_units: booked.worth(),
    };
    Ok(Compared::Landed {
        booked,
        on_chain: None,
        differences: vec![missing],
    })
}

async fn reread(
    context: &AuditContext<'_>,
    number: i64,
) -> Result<Option<LedgerTransaction>, AuditError> {
    Ok(ledger_transactions::transactions(context.pool, &[number])
        .await?
        .pop())
}

/// The transaction as the first endpoint that knows it shows it. An endpoint that fails is ignored as long as another one
/// answers.
async fn query_endpoints(
    context: &AuditContext<'_>,
    booked: &LedgerTransaction,
) -> Result<Option<ChainMint>, AuditError> {
    let mut failure = None;
    let mut answered = false;
    for endpoint in context.endpoints.iter() {
        let lookup = MintLookup {
            endpoint,
            mint: &context.mint,
            authority: &context.authority,
            finality: Finality::Confirmed,
        };
        let found = lookup.find(booked.signature).await;
        match found {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => answered = true,
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if !answered => Err(error.into()),
        _ => Ok(None),
    }
}

/// "Not found" counts only if an endpoint still has the block of that slot.
async fn check_history(
    context: &AuditContext<'_>,
    booked: &LedgerTransaction,
) -> Result<(), AuditError> {
    let slot = booked.slot.unwrap_or_default();
    for endpoint in context.endpoints.iter() {
        if endpoint
            .first_available_slot()
            .await
            .is_ok_and(|oldest| oldest <= slot)
        {
            return Ok(());
        }
    }
    Err(AuditError::NoHistory {
        signature: booked.signature.to_string(),
        slot,
    })
}
