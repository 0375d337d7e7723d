//! An incremental audit: what is new since the last checkpoint, and a random sample of the old.
//!
//! The new transactions are not read one by one. The history lists them, a thousand in a call, and their own signed bytes, which
//! the ledger has stored, show what they paid; a signature is valid for those bytes only. One that does not fit is read from the
//! chain before it counts as a difference. The sample is read from the chain.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt, TryStreamExt};

use super::checkpoints::{Baseline, Prepared, StoredCheckpoint};
use super::compare_transaction::compare as compare_transaction;
use super::context::{AuditContext, READS_AT_ONCE};
use super::difference::Difference;
use super::error::AuditError;
use super::findings::Findings;
use super::incremental_rows;
use super::landed_transactions::{Compared, PAGE, check, compare_one};
use super::ledger_transactions;
use super::scope::Memory;
use super::tally::Tally;
use super::unmatched_mints::{ChainWalk, LandedEntry, SECOND_LOOK_AFTER};
use crate::chain::{ListedTransaction, mint_of_signed_bytes};

/// Checkpoints whose sums and hash are computed again from the ledger's rows.
const CHECKPOINTS_SAMPLED: i64 = 8;

/// Counts of an incremental audit, and the data that its further checks need.
pub(super) struct Compare {
    pub tally: Tally,
    /// Transactions above this number are new.
    pub above: i64,
    /// So are these below.
    pub late: Vec<i64>,
    /// Readings that the checkpoints cover.
    pub covered_readings: u64,
    /// `None`: nothing is to be stored.
    pub prepared: Option<Prepared>,
}

pub(super) async fn compare(
    context: &AuditContext<'_>,
    baseline: Baseline,
    sample: u32,
    is_stored: bool,
    findings: &mut Findings,
) -> Result<Compare, AuditError> {
    let slot = baseline.slot.unwrap_or_default();
    let above = baseline.through;
    let covered_readings = baseline.readings;
    let mut tally = Tally::new(context, is_stored);
    tally.count_covered(&baseline);
    let mut walk = ChainWalk::down_to(context, slot, Memory::Trusted).await?;
    let mut seen = HashSet::new();
    while let Some(landed) = walk.next_page().await? {
        for entries in landed.chunks(usize::from(PAGE)) {
            seen.extend(entries.iter().map(|entry| entry.number));
            for compared in compare_listed(context, entries).await? {
                tally.count(compared, findings);
            }
        }
    }
    tally.unmatched = walk.finish(findings).await?;
    let late: Vec<i64> = seen
        .iter()
        .copied()
        .filter(|number| *number <= above)
        .chain(baseline.pending.iter().copied())
        .collect();
    compare_unlisted(context, &baseline, &seen, &mut tally, findings).await?;
    sample_transactions(context, &baseline, sample, findings).await?;
    sample_checkpoints(context, &baseline, findings).await?;
    count_foreign(context, &baseline, slot, &mut tally).await?;
    // One that is late and not covered yet would be below the next slot, and in no checkpoint: then the slot stays.
    let is_settled = |number: &i64| *number > above || tally.covered.contains_key(number);
    let is_settled =
        seen.iter().all(is_settled) && tally.unmatched.is_settled_up_to(context.final_slot);
    let prepared = (is_stored && is_settled).then(|| Prepared {
        covered: std::mem::take(&mut tally.covered),
        slot: context.final_slot,
        baseline,
    });
    Ok(Compare {
        tally,
        above,
        late,
        covered_readings,
        prepared,
    })
}

/// From the list and the signed bytes; from the chain where these do not agree with the ledger.
async fn compare_listed(
    context: &AuditContext<'_>,
    entries: &[LandedEntry],
) -> Result<Vec<Compared>, AuditError> {
    let listed: HashMap<i64, &ListedTransaction> = entries
        .iter()
        .map(|entry| (entry.number, &entry.listed))
        .collect();
    let numbers: Vec<i64> = listed.keys().copied().collect();
    let booked = ledger_transactions::transactions(context.pool, &numbers).await?;
    let signed = incremental_rows::signed_bytes(context.pool, &numbers).await?;
    let mut all = Vec::with_capacity(booked.len());
    for booked in booked {
        let local = listed
            .get(&booked.number)
            .zip(signed.get(&booked.number))
            .and_then(|(listed, bytes)| {
                mint_of_signed_bytes(bytes, listed, &context.mint, &context.authority)
            })
            .filter(|found| {
                booked.landed() && compare_transaction(&booked, found, &context.mint).is_empty()
            });
        all.push(match local {
            Some(found) => Compared::Landed {
                booked,
                on_chain: Some(Box::new(found)),
                differences: Vec::new(),
            },
            None => compare_one(context, booked).await?,
        });
    }
    Ok(all)
}

/// Landed according to the ledger, and neither covered nor listed above the slot: read from the chain.
async fn compare_unlisted(
    context: &AuditContext<'_>,
    baseline: &Baseline,
    seen: &HashSet<i64>,
    tally: &mut Tally,
    findings: &mut Findings,
) -> Result<(), AuditError> {
    let pending: Vec<i64> = baseline
        .pending
        .difference(&seen.iter().copied().collect())
        .copied()
        .collect();
    for numbers in pending.chunks(usize::from(PAGE)) {
        for compared in check(context, numbers).await? {
            tally.count(compared, findings);
        }
    }
    let mut first = baseline.through.checked_add(1);
    while let Some(from) = first {
        let mut numbers = ledger_transactions::landed_from(context.pool, from, PAGE).await?;
        first = numbers.last().and_then(|last| last.checked_add(1));
        numbers.retain(|number| !seen.contains(number));
        for compared in check(context, &numbers).await? {
            tally.count(compared, findings);
        }
    }
    Ok(())
}

/// Old transactions at random, read from the chain.
async fn sample_transactions(
    context: &AuditContext<'_>,
    baseline: &Baseline,
    sample: u32,
    findings: &mut Findings,
) -> Result<(), AuditError> {
    let mut numbers =
        incremental_rows::random_finalized(context.pool, baseline.through, sample).await?;
    numbers.retain(|number| !baseline.pending.contains(number));
    for numbers in numbers.chunks(usize::from(PAGE)) {
        let booked = ledger_transactions::transactions(context.pool, numbers).await?;
        let compared: Vec<Compared> = futures_util::stream::iter(booked)
            .map(|booked| compare_one(context, booked))
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        for one in compared {
            if let Compared::Landed { differences, .. } = one {
                findings.add(differences);
            }
        }
    }
    Ok(())
}

/// Sums and hashes of some checkpoints, against the ledger's rows as they are now.
async fn sample_checkpoints(
    context: &AuditContext<'_>,
    baseline: &Baseline,
    findings: &mut Findings,
) -> Result<(), AuditError> {
    let sampled = StoredCheckpoint::sample(context.pool, baseline.run, CHECKPOINTS_SAMPLED).await?;
    for checkpoint in sampled {
        if checkpoint.in_ledger(context.pool, baseline.run).await? == checkpoint.stored() {
            continue;
        }
        tokio::time::sleep(SECOND_LOOK_AFTER).await;
        let found = checkpoint.in_ledger(context.pool, baseline.run).await?;
        if found != checkpoint.stored() {
            findings.add(Some(Difference::CheckpointDiffers {
                first_number: checkpoint.first_number,
                last_number: checkpoint.last_number,
                transactions_checkpoint: checkpoint.stored().transactions,
                transactions_ledger: found.transactions,
                base_units_checkpoint: checkpoint.stored().base_units,
                base_units_ledger: found.base_units,
            }));
        }
    }
    Ok(())
}

/// Booked foreign mints below the slot were walked by an earlier audit.
async fn count_foreign(
    context: &AuditContext<'_>,
    baseline: &Baseline,
    slot: u64,
    tally: &mut Tally,
) -> Result<(), AuditError> {
    let sum = baseline.foreign.base_units_foreign;
    tally.unmatched.base_units += sum;
    tally.unmatched.base_units_foreign += sum;
    tally.unmatched.by_slot.push((0, sum));
    let listed = incremental_rows::foreign_up_to(context.pool, slot).await?;
    tally.unmatched.foreign.extend(listed);
    Ok(())
}
