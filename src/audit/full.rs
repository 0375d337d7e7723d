//! A full audit: every transaction is read from the chain.
//!
//! One that stores its verdict stores its progress, too: interrupted, the next one lists the history again, which takes a call
//! for a thousand transactions, and continues with the transactions where this one was.

use crate::db;
use sqlx::PgPool;

use super::checkpoints::{self, Baseline, Prepared, Which};
use super::context::AuditContext;
use super::error::AuditError;
use super::findings::Findings;
use super::landed_transactions::{PAGE, check};
use super::ledger_transactions;
use super::scope::Memory;
use super::segment;
use super::tally::Tally;
use super::unmatched_mints::ChainWalk;

/// `writable`: where progress and checkpoints are stored; `None` when nothing is.
pub(super) async fn compare(
    context: &AuditContext<'_>,
    memory: Memory,
    writable: Option<&PgPool>,
    findings: &mut Findings,
) -> Result<(Tally, Option<Prepared>), AuditError> {
    let mut progress = match writable {
        Some(pool) => Some((pool, resume(pool, memory).await?)),
        None => None,
    };
    let mut walk = ChainWalk::down_to(context, 0, memory).await?;
    while walk.next_page().await?.is_some() {}
    let unmatched = walk.finish(findings).await?;
    if !unmatched.is_settled_up_to(context.final_slot) {
        // A checkpoint would hide what is below its slot from the next audit.
        progress = None;
    }
    let mut tally = Tally::new(context, progress.is_some());
    tally.unmatched = unmatched;
    let mut first = Some(i64::MIN);
    if let Some((_, baseline)) = &progress {
        tally.count_covered(baseline);
        first = baseline.through.checked_add(1);
        let pending: Vec<i64> = baseline.pending.iter().copied().collect();
        for numbers in pending.chunks(usize::from(PAGE)) {
            for compared in check(context, numbers).await? {
                tally.count(compared, findings);
            }
        }
    }
    while let Some(from) = first {
        let numbers = ledger_transactions::landed_from(context.pool, from, PAGE).await?;
        first = numbers.last().and_then(|last| last.checked_add(1));
        for compared in check(context, &numbers).await? {
            tally.count(compared, findings);
        }
        if let Some((pool, baseline)) = &mut progress
            && tally.covered.len() >= segment::TRANSACTIONS
        {
            let covered = std::mem::take(&mut tally.covered);
            let mut transaction = db::begin(pool).await?;
            baseline.lock(&mut transaction).await?;
            baseline.extend(&mut transaction, &covered).await?;
            transaction.commit().await?;
        }
    }
    let prepared = progress.map(|(_, baseline)| Prepared {
        baseline,
        covered: std::mem::take(&mut tally.covered),
        slot: context.final_slot,
    });
    Ok((tally, prepared))
}

async fn resume(pool: &PgPool, memory: Memory) -> Result<Baseline, AuditError> {
    if memory == Memory::Ignored {
        checkpoints::discard_under_way(pool).await?;
    }
    checkpoints::discard_old(pool).await?;
    match Baseline::read(pool, Which::UnderWay).await? {
        Some(baseline) => Ok(baseline),
        None => Ok(Baseline::begin(pool).await?),
    }
}
