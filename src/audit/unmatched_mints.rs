//! The chain's side: mints of our authority that have not landed according to the ledger.
//!
//! The history is listed first and the ledger is queried afterwards. The service records a transaction before it sends it, so a
//! mint that is in the history and not in the ledger is not about to be recorded. A mint that is recorded but not confirmed
//! in the ledger is not a difference: the resolver will confirm it soon.

use std::collections::HashMap;

use futures_util::{StreamExt, TryStreamExt};

use super::context::{AuditContext, READS_AT_ONCE};
use super::difference::Difference;
use super::error::AuditError;
use super::findings::Findings;
use super::ledger_transactions::{self, LedgerEntry, is_landed};
use super::report::ForeignMint;
use super::total::Total;
use crate::chain::{AddressHistory, ChainMint, Finality, HistoryRange, MintLookup};
use crate::domain::{MintTransactionState, TxSignature};

/// Mints of the history beyond the transactions that have landed according to the ledger.
#[derive(Default)]
pub(super) struct UnmatchedMints {
    /// Sent and landed, but not yet confirmed in the ledger when it was read: slot and amount.
    pub in_flight: HashMap<TxSignature, (u64, Total)>,
    /// Numbers of those, and of dead ones that landed.
    pub numbers: Vec<i64>,
    /// Mints that an admin has booked.
    pub foreign: Vec<ForeignMint>,
    /// Sum of the foreign ones, the unknown ones and the dead ones that landed.
    pub base_units: Total,
    pub base_units_foreign: Total,
    /// The parts of `base_units` by slot, because the supply is compared as of one slot.
    pub by_slot: Vec<(u64, Total)>,
}

/// Walks the whole history of the authority.
pub(super) async fn find(
    context: &AuditContext<'_>,
    findings: &mut Findings,
) -> Result<UnmatchedMints, AuditError> {
    let booked = ledger_transactions::booked_foreign(context.pool).await?;
    let mut unmatched = UnmatchedMints::default();
    let lookup = MintLookup {
        endpoint: context.endpoint,
        mint: &context.mint,
        authority: &context.authority,
        finality: Finality::Confirmed,
    };
    let range = HistoryRange {
        floor_slot: 0,
        head_slot: context.supply.slot,
        finality: lookup.finality,
    };
    let mut pages = AddressHistory::new(context.endpoint, context.authority, range);
    while let Some(page) = pages.next_page().await? {
        let landed: Vec<TxSignature> = page
            .iter()
            .filter(|transaction| !transaction.failed)
            .map(|transaction| transaction.signature)
            .collect();
        let known = ledger_transactions::known_among(context.pool, &landed).await?;
        let open: Vec<TxSignature> = landed
            .into_iter()
            .filter(|signature| {
                known
                    .get(signature)
                    .is_none_or(|entry| !is_landed(entry.state))
            })
            .collect();
        let read: Vec<ChainMint> = futures_util::stream::iter(open)
            .map(|signature| async move { lookup.read_listed(signature).await })
            .buffer_unordered(READS_AT_ONCE)
            .try_collect()
            .await?;
        // Any transaction may mention our authority; only its mints count.
        let mints: Vec<ChainMint> = read
            .into_iter()
            .filter(|transaction| !transaction.payments.is_empty())
            .collect();
        let signatures: Vec<TxSignature> = mints.iter().map(|mint| mint.signature).collect();
        // Queried again, because the ledger may have changed while they were read from the chain.
        let known = ledger_transactions::known_among(context.pool, &signatures).await?;
        for mint in mints {
            let signature = mint.signature;
            let entry = known.get(&signature).copied();
            let reason = booked.get(&signature.to_string());
            findings.add(unmatched.classify(&mint, entry, reason));
        }
    }
    Ok(unmatched)
}

impl UnmatchedMints {
    fn classify(
        &mut self,
        mint: &ChainMint,
        entry: Option<LedgerEntry>,
        booked_reason: Option<&String>,
    ) -> Option<Difference> {
        let base_units: Total = mint
            .payments
            .iter()
            .map(|(_, base_units)| Total::from(*base_units))
            .sum();
        let (signature, slot) = (mint.signature, mint.slot);
        match (entry, booked_reason) {
            (Some(LedgerEntry { number, state }), _) if state != MintTransactionState::Dead => {
                // It is or soon will be landed: `landed_transactions` compares it, or its readings are outstanding.
                self.in_flight.insert(signature, (slot, base_units));
                self.numbers.push(number);
                None
            }
            (entry, Some(reason)) => {
                self.numbers.extend(entry.map(|entry| entry.number));
                self.count(slot, base_units);
                self.base_units_foreign += base_units;
                self.foreign.push(ForeignMint {
                    signature,
                    slot,
                    base_units,
                    memo: mint.raw_memo.clone(),
                    booked_reason: reason.clone(),
                });
                None
            }
            (Some(LedgerEntry { number, .. }), None) => {
                self.numbers.push(number);
                self.count(slot, base_units);
                Some(Difference::DeadButLanded {
                    signature,
                    number,
                    slot,
                    base_units,
                })
            }
            (None, None) => {
                self.count(slot, base_units);
                Some(Difference::UnknownMint {
                    signature,
                    slot,
                    base_units,
                    memo: mint.raw_memo.clone(),
                })
            }
        }
    }

    fn count(&mut self, slot: u64, base_units: Total) {
        self.base_units += base_units;
        self.by_slot.push((slot, base_units));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::BaseUnits;
    use solana_sdk::pubkey::Pubkey;

    fn minted(base_units: u64) -> ChainMint {
        ChainMint {
            signature: TxSignature::from_bytes([5; 64]),
            slot: 30,
            block_time: None,
            failed: false,
            memo: None,
            raw_memo: Some("by hand".to_owned()),
            payments: vec![(Pubkey::new_unique(), BaseUnits::new(base_units))],
            fee_lamports: 5_000,
        }
    }

    #[test]
    fn the_kind_of_an_unmatched_mint_depends_on_the_ledger() {
        use MintTransactionState::{Confirmed, Dead, Quarantined, Recorded};
        let reason = "initial supply".to_owned();
        let cases = [
            (None, None, Some("unknown_mint"), 0, 0, 8),
            (None, Some(&reason), None, 0, 1, 8),
            (Some(Recorded), None, None, 1, 0, 0),
            (Some(Quarantined), None, None, 1, 0, 0),
            (Some(Confirmed), None, None, 1, 0, 0),
            (Some(Dead), None, Some("dead_but_landed"), 0, 0, 8),
            (Some(Dead), Some(&reason), None, 0, 1, 8),
        ];
        for (entry, booked, kind, in_flight, foreign, counted) in cases {
            let mut unmatched = UnmatchedMints::default();
            let entry = entry.map(|state| LedgerEntry { number: 3, state });
            let difference = unmatched.classify(&minted(8), entry, booked);
            let found = difference.map(|difference| {
                serde_json::to_value(difference).unwrap()["kind"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            });
            assert_eq!(found.as_deref(), kind, "{entry:?} {booked:?}");
            assert_eq!(unmatched.in_flight.len(), in_flight, "{entry:?} {booked:?}");
            assert_eq!(unmatched.foreign.len(), foreign, "{entry:?} {booked:?}");
            assert_eq!(
                unmatched.base_units,
                Total::new(counted),
                "{entry:?} {booked:?}"
            );
            assert_eq!(unmatched.numbers.len(), usize::from(entry.is_some()));
        }
    }
}
