//! Runs the steps of an audit in order.
//!
//! The supply comes first and fixes the slot as of which everything is compared; then the history, which must reach beyond
//! that slot; then the ledger. So every mint that the supply counts is in the history, and every mint of ours in the history
//! was recorded in the ledger before.

use chrono::Utc;
use sqlx::PgPool;

use super::checkpoints::{self, Baseline, ForeignSum, Prepared, Which};
use super::context::AuditContext;
use super::difference::Difference;
use super::error::AuditError;
use super::findings::Findings;
use super::report::{AuditReport, ComparedScope};
use super::scope::{AuditScope, Memory};
use super::sums::compare_sums;
use super::tally::Tally;
use super::unmatched_mints::SECOND_LOOK_AFTER;
use super::{admin_log_check, full, incremental, ledger_checks, overlaps};
use crate::chain::Endpoints;
use crate::ledger::{self, ChainBinding};

/// Audits the ledger in this database, with the mint and the authority to which it is bound. Everything is compared, and nothing
/// is stored.
pub async fn audit(pool: &PgPool, endpoints: &Endpoints) -> Result<AuditReport, AuditError> {
    audit_with(pool, endpoints, AuditScope::FULL, None).await
}

/// `writable`: where progress and checkpoints are stored; `None` when nothing is.
pub async fn audit_with(
    pool: &PgPool,
    endpoints: &Endpoints,
    scope: AuditScope,
    writable: Option<&PgPool>,
) -> Result<AuditReport, AuditError> {
    let binding = ledger::binding(pool).await?;
    let audit = Audit {
        pool,
        endpoints,
        binding,
        writable,
    };
    match scope {
        AuditScope::Full { memory } => audit.everything(memory).await,
        AuditScope::Incremental { sample } => match audit.usable_baseline().await? {
            Some(baseline) => audit.what_is_new(baseline, sample).await,
            None => audit.everything(Memory::Trusted).await,
        },
    }
}

struct Audit<'a> {
    pool: &'a PgPool,
    endpoints: &'a Endpoints,
    binding: ChainBinding,
    writable: Option<&'a PgPool>,
}

impl Audit<'_> {
    /// The last complete run, if what it says of foreign mints still holds: one that was adopted since counts for readings now.
    async fn usable_baseline(&self) -> Result<Option<Baseline>, AuditError> {
        let Some(baseline) = Baseline::read(self.pool, Which::Complete).await? else {
            return Ok(None);
        };
        let slot = baseline.slot.unwrap_or_default();
        let foreign = ForeignSum::up_to(self.pool, slot).await?;
        Ok((foreign == baseline.foreign).then_some(baseline))
    }

    async fn everything(&self, memory: Memory) -> Result<AuditReport, AuditError> {
        let context = AuditContext::prepare(self.pool, self.endpoints, &self.binding, None).await?;
        let mut findings = Findings::default();
        let (tally, prepared) =
            full::compare(&context, memory, self.writable, &mut findings).await?;
        let numbers = tally.unmatched.numbers.clone();
        let pool = self.pool;
        findings.add(found_twice(|| ledger_checks::paid_twice(pool, &numbers)).await?);
        findings.add(found_twice(|| ledger_checks::not_paid(pool)).await?);
        findings.add(found_twice(|| overlaps::all(pool)).await?);
        let report = self
            .report(&context, tally, findings, ComparedScope::Full)
            .await?;
        self.settle(&report, prepared).await?;
        Ok(report)
    }

    async fn what_is_new(
        &self,
        baseline: Baseline,
        sample: u32,
    ) -> Result<AuditReport, AuditError> {
        let context =
            AuditContext::prepare(self.pool, self.endpoints, &self.binding, baseline.slot).await?;
        let mut findings = Findings::default();
        let compared = incremental::compare(
            &context,
            baseline,
            sample,
            self.writable.is_some(),
            &mut findings,
        )
        .await?;
        let (above, late) = (compared.above, compared.late);
        let numbers = compared.tally.unmatched.numbers.clone();
        let pool = self.pool;
        let twice = || ledger_checks::paid_twice_of_new(pool, above, &late, &numbers);
        findings.add(found_twice(twice).await?);
        findings.add(found_twice(|| overlaps::of_new(pool, above, &late)).await?);
        let covered = compared.covered_readings;
        let agree = || ledger_checks::counts_agree(pool, covered, above, &late);
        if !agree().await? {
            tokio::time::sleep(SECOND_LOOK_AFTER).await;
            if !agree().await? {
                // Some reading was called paid or taken away since it was compared.
                if let Some(pool) = self.writable {
                    // An interrupted full audit may have covered it, too.
                    checkpoints::discard_under_way(pool).await?;
                }
                return self.everything(Memory::Trusted).await;
            }
        }
        let scope = ComparedScope::Incremental;
        let report = self
            .report(&context, compared.tally, findings, scope)
            .await?;
        self.settle(&report, compared.prepared).await?;
        Ok(report)
    }

    /// Stores the checkpoints of an audit without a difference. One with a difference stores none, and its record discards all.
    async fn settle(
        &self,
        report: &AuditReport,
        prepared: Option<Prepared>,
    ) -> Result<(), AuditError> {
        if let (Some(pool), Some(prepared), true) = (self.writable, prepared, report.ok) {
            prepared.store(pool).await?;
        }
        Ok(())
    }

    async fn report(
        &self,
        context: &AuditContext<'_>,
        tally: Tally,
        mut findings: Findings,
        scope: ComparedScope,
    ) -> Result<AuditReport, AuditError> {
        let (pool, supply) = (self.pool, context.supply);
        let Tally {
            landed,
            mut minted,
            unmatched,
            ..
        } = tally;
        for (slot, base_units) in unmatched.in_flight.values().chain(&unmatched.by_slot) {
            minted.add(*slot, *base_units);
        }
        findings.add(found_twice(|| ledger_checks::contradicting(pool)).await?);
        findings.add(found_twice(|| ledger_checks::released(pool)).await?);
        findings.add(minted.compare(supply));
        let base_units_chain = landed.base_units_chain + unmatched.base_units;
        findings.add(compare_sums(
            landed.base_units_ledger,
            unmatched.base_units_foreign,
            unmatched.base_units_unknown,
            base_units_chain,
        ));
        let (admin_log, broken) = admin_log_check::check(pool).await?;
        findings.add(broken);
        Ok(AuditReport {
            ok: findings.listed.is_empty(),
            scope,
            mint_address: self.binding.mint.to_string(),
            readings_minted: landed.readings_minted,
            readings_finalized: landed.readings_finalized,
            transactions: landed.transactions,
            base_units_ledger: landed.base_units_ledger,
            base_units_chain,
            token_supply: supply.base_units,
            outstanding: ledger_checks::outstanding(pool).await?,
            burned: minted.burned(supply),
            foreign: unmatched.foreign,
            admin_log,
            differences: findings.listed,
            differences_beyond: findings.beyond,
            finished_at: Utc::now(),
            slot: supply.slot,
        })
    }
}

/// The differences that two runs of a check find, a moment apart: a live system moves.
async fn found_twice<Checked>(check: impl Fn() -> Checked) -> Result<Vec<Difference>, AuditError>
where
    Checked: Future<Output = sqlx::Result<Vec<Difference>>>,
{
    let first = check().await?;
    if first.is_empty() {
        return Ok(first);
    }
    tokio::time::sleep(SECOND_LOOK_AFTER).await;
    let second = check().await?;
    Ok(first
        .into_iter()
        .filter(|difference| second.contains(difference))
        .collect())
}
