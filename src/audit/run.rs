//! Runs the steps of an audit in order.
//!
//! The supply comes first and fixes the slot as of which everything is compared; then the history, which must reach beyond
//! that slot; then the ledger. So every mint that the supply counts is in the history, and every mint of ours in the history
//! was recorded in the ledger before.

use chrono::Utc;
use sqlx::PgPool;

use super::context::AuditContext;
use super::error::AuditError;
use super::findings::Findings;
use super::report::AuditReport;
use super::scope::Memory;
use super::sums::{Minted, compare_sums};
use super::total::Total;
use super::unmatched_mints::ChainWalk;
use super::{admin_log_check, landed_transactions, ledger_checks};
use crate::chain::Endpoints;
use crate::ledger;

/// Audits the ledger in this database, with the mint and the authority to which it is bound.
pub async fn audit(pool: &PgPool, endpoints: &Endpoints) -> Result<AuditReport, AuditError> {
    let binding = ledger::binding(pool).await?;
    let context = AuditContext::prepare(pool, endpoints, &binding).await?;
    let supply = context.supply;
    let mut findings = Findings::default();
    let mut walk = ChainWalk::down_to(&context, 0, Memory::Trusted).await?;
    while walk.next_page().await?.is_some() {}
    let mut unmatched = walk.finish(&mut findings).await?;
    let mut minted = Minted::until(supply);
    let landed = landed_transactions::check_all(&context, &mut findings, |mint| {
        unmatched.in_flight.remove(&mint.signature);
        for (_, base_units) in &mint.payments {
            minted.add(mint.slot, Total::from(*base_units));
        }
    })
    .await?;
    for (slot, base_units) in unmatched.in_flight.values().chain(&unmatched.by_slot) {
        minted.add(*slot, *base_units);
    }
    findings.add(ledger_checks::paid_twice(pool, &unmatched.numbers).await?);
    findings.add(ledger_checks::not_paid(pool).await?);
    findings.add(ledger_checks::contradicting(pool).await?);
    findings.add(ledger_checks::released(pool).await?);
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
        mint_address: binding.mint.to_string(),
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
