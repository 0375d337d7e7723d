//! The ledger's side: each transaction that it calls landed, against its own bytes on chain.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use solana_commitment_config::CommitmentConfig;

use super::AuditError;
use super::books::{self, BookedTransaction};
use super::difference::{Difference, Findings};
use super::examine::{Examination, READS_AT_ONCE};
use super::report::Total;
use super::verdict;
use crate::chain::{ChainMint, find_mint};
use crate::domain::MintTransactionState;

/// Transactions in one page, each with at most some dozens of readings: bounds the memory.
const PAGE: i64 = 200;
/// A confirmed transaction that no endpoint shows may be on a fork: the Resolver takes a few rounds to say so, and an
/// endpoint may lag. It is looked for so often before it is a difference.
const LOOKS: u32 = 10;
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the landed transactions come to.
#[derive(Debug, Default)]
pub(super) struct Paid {
    pub transactions: u64,
    pub readings_minted: u64,
    pub readings_finalized: u64,
    pub base_units_ledger: Total,
    pub base_units_chain: Total,
}

/// One transaction, looked at.
pub(super) enum Examined {
    /// It went back to `recorded` meanwhile: a fork. Its readings are outstanding.
    NotLanded,
    Landed {
        booked: BookedTransaction,
        /// `None`: no endpoint shows it.
        on_chain: Option<Box<ChainMint>>,
        differences: Vec<Difference>,
    },
}

/// Goes through the ledger in order of the numbers; `each` sees every transaction that is on chain.
pub(super) async fn examine(
    examination: &Examination<'_>,
    findings: &mut Findings,
    mut each: impl FnMut(&ChainMint),
) -> Result<Paid, AuditError> {
    let mut paid = Paid::default();
    let mut last = i64::MIN;
    loop {
        let numbers = books::landed_after(examination.pool, last, PAGE).await?;
        let Some(newest) = numbers.last() else {
            return Ok(paid);
        };
        last = *newest;
        let booked = books::transactions(examination.pool, &numbers).await?;
        let examined: Vec<Examined> = futures_util::stream::iter(booked)
            .map(|booked| examine_one(examination, booked))
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        for one in examined {
            let Examined::Landed {
                booked,
                on_chain,
                differences,
            } = one
            else {
                continue;
            };
            paid.count(&booked, on_chain.as_deref());
            if let Some(on_chain) = &on_chain {
                each(on_chain);
            }
            findings.add(differences);
        }
    }
}

impl Paid {
    fn count(&mut self, booked: &BookedTransaction, on_chain: Option<&ChainMint>) {
        let readings = booked.readings.len() as u64;
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

/// What differs is compared again with the ledger as it is then: it may have changed since the page was read.
async fn examine_one(
    examination: &Examination<'_>,
    mut booked: BookedTransaction,
) -> Result<Examined, AuditError> {
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
            match reread(examination, booked.number).await? {
                Some(again) if again.landed() => booked = again,
                _ => return Ok(Examined::NotLanded),
            }
        }
        let Some(on_chain) = look_everywhere(examination, &booked).await? else {
            continue;
        };
        let mut differences = verdict::compare(&booked, &on_chain, &examination.mint);
        if !differences.is_empty() {
            match reread(examination, booked.number).await? {
                Some(again) if again.landed() => booked = again,
                _ => return Ok(Examined::NotLanded),
            }
            differences = verdict::compare(&booked, &on_chain, &examination.mint);
        }
        return Ok(Examined::Landed {
            booked,
            on_chain: Some(Box::new(on_chain)),
            differences,
        });
    }
    check_history(examination, &booked).await?;
    let missing = Difference::NotOnChain {
        signature: booked.signature,
        number: booked.number,
        state: booked.state,
        base_units: booked.worth(),
    };
    Ok(Examined::Landed {
        booked,
        on_chain: None,
        differences: vec![missing],
    })
}

async fn reread(
    examination: &Examination<'_>,
    number: i64,
) -> Result<Option<BookedTransaction>, AuditError> {
    Ok(books::transactions(examination.pool, &[number])
        .await?
        .pop())
}

/// Found anywhere is found. An endpoint that does not answer is passed over while another one does.
async fn look_everywhere(
    examination: &Examination<'_>,
    booked: &BookedTransaction,
) -> Result<Option<ChainMint>, AuditError> {
    let mut failure = None;
    let mut answered = false;
    for endpoint in examination.endpoints.iter() {
        let found = find_mint(
            endpoint,
            &booked.signature,
            &examination.mint,
            &examination.authority,
            CommitmentConfig::confirmed(),
        )
        .await;
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

/// "Not found" counts only where the block would still be.
async fn check_history(
    examination: &Examination<'_>,
    booked: &BookedTransaction,
) -> Result<(), AuditError> {
    let slot = booked.slot.unwrap_or_default();
    for endpoint in examination.endpoints.iter() {
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
