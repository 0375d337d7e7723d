//! The chain's side: mints of our authority that have not landed according to the ledger.
//!
//! The history is listed first and the ledger is queried afterwards. The service records a transaction before it sends it, so a
//! mint that is in the history and not in the ledger is not about to be recorded. A mint that is recorded but not confirmed
//! in the ledger is not a difference: the resolver will confirm it soon. An apparent difference is checked twice.
//!
//! Transactions of others that only mention our authority were read before, by the service's history scan or not at all. The ones
//! that it remembers are not read again, except for a few at random, unless the audit trusts nothing that is stored.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use rand::seq::IteratorRandom;

use super::context::{AuditContext, READS_AT_ONCE};
use super::difference::Difference;
use super::error::AuditError;
use super::findings::Findings;
use super::ledger_transactions::{self, LedgerEntry, is_landed};
use super::report::ForeignMint;
use super::scope::Memory;
use super::total::Total;
use crate::chain::{
    AddressHistory, ChainMint, Finality, HistoryRange, ListedTransaction, MintLookup,
};
use crate::domain::{MintTransactionState, TxSignature};

/// Remembered transactions of others that each audit reads again.
const REREAD: usize = 16;
/// Between the two checks of a difference: a live system confirms, books and adopts.
pub(super) const SECOND_LOOK_AFTER: Duration = Duration::from_secs(2);

/// A transaction of the history that has landed according to the ledger.
pub(super) struct LandedEntry {
    pub listed: ListedTransaction,
    pub number: i64,
}

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
    /// Of those that are differences: unknown ones, and dead ones that landed.
    pub base_units_unknown: Total,
    /// The parts of `base_units` by slot, because the supply is compared as of one slot.
    pub by_slot: Vec<(u64, Total)>,
    /// Of those that are differences.
    pub oldest_unknown_slot: Option<u64>,
    /// Transactions that were read from the chain, and those of others that were read before.
    pub read: u64,
    pub remembered: u64,
}

/// Walks the history of the authority, newest first.
pub(super) struct ChainWalk<'a> {
    context: &'a AuditContext<'a>,
    memory: Memory,
    pages: AddressHistory<'a>,
    booked: HashMap<String, String>,
    unmatched: UnmatchedMints,
    /// Differences of the first check.
    suspects: Vec<ChainMint>,
    /// An endpoint may list a transaction twice.
    seen: HashSet<TxSignature>,
    remembered: Vec<ListedTransaction>,
}

impl<'a> ChainWalk<'a> {
    /// Down to this slot, which is left out.
    pub async fn down_to(
        context: &'a AuditContext<'a>,
        floor_slot: u64,
        memory: Memory,
    ) -> Result<ChainWalk<'a>, AuditError> {
        let range = HistoryRange {
            floor_slot,
            head_slot: context.supply.slot,
            finality: Finality::Confirmed,
        };
        Ok(ChainWalk {
            context,
            memory,
            pages: AddressHistory::new(context.endpoint, context.authority, range),
            booked: ledger_transactions::booked_foreign(context.pool).await?,
            unmatched: UnmatchedMints::default(),
            suspects: Vec::new(),
            seen: HashSet::new(),
            remembered: Vec::new(),
        })
    }

    fn lookup(&self) -> MintLookup<'a> {
        MintLookup {
            endpoint: self.context.endpoint,
            mint: &self.context.mint,
            authority: &self.context.authority,
            finality: Finality::Confirmed,
        }
    }

    /// The landed transactions of the next page; the others are read from the chain. `None`: the history is walked.
    pub async fn next_page(&mut self) -> Result<Option<Vec<LandedEntry>>, AuditError> {
        let Some(page) = self.pages.next_page().await? else {
            return Ok(None);
        };
        let succeeded = page.into_iter().filter(|transaction| !transaction.failed);
        let succeeded: Vec<ListedTransaction> = succeeded.collect();
        let signatures: Vec<TxSignature> = succeeded.iter().map(|one| one.signature).collect();
        let known = ledger_transactions::known_among(self.context.pool, &signatures).await?;
        let read_before = match self.memory {
            Memory::Trusted => {
                ledger_transactions::read_before(self.context.pool, &signatures).await?
            }
            Memory::Ignored => HashSet::new(),
        };
        let (mut landed, mut open) = (Vec::new(), Vec::new());
        for listed in succeeded {
            match known.get(&listed.signature) {
                Some(entry) if is_landed(entry.state) => landed.push(LandedEntry {
                    number: entry.number,
                    listed,
                }),
                None if read_before.contains(&listed.signature) => self.remember(listed),
                _ => open.push(listed),
            }
        }
        self.classify(open).await?;
        Ok(Some(landed))
    }

    /// Keeps a few at random, each with the same chance.
    fn remember(&mut self, listed: ListedTransaction) {
        self.unmatched.remembered += 1;
        if self.remembered.len() < REREAD {
            self.remembered.push(listed);
        } else if let Some(place) = (0..self.unmatched.remembered).choose(&mut rand::rng())
            && let Some(kept) = usize::try_from(place)
                .ok()
                .and_then(|place| self.remembered.get_mut(place))
        {
            *kept = listed;
        }
    }

    async fn classify(&mut self, open: Vec<ListedTransaction>) -> Result<(), AuditError> {
        let lookup = self.lookup();
        self.unmatched.read += u64::try_from(open.len()).unwrap_or(u64::MAX);
        let read: Vec<ChainMint> = futures_util::stream::iter(open)
            .map(|listed| async move { lookup.read_listed(&listed).await })
            .buffer_unordered(READS_AT_ONCE)
            .try_collect()
            .await?;
        // Any transaction may mention our authority; only its mints count.
        let mut mints: Vec<ChainMint> = read
            .into_iter()
            .filter(|transaction| !transaction.payments.is_empty())
            .collect();
        mints.retain(|mint| self.seen.insert(mint.signature));
        let signatures: Vec<TxSignature> = mints.iter().map(|mint| mint.signature).collect();
        // Queried again, because the ledger may have changed while they were read from the chain.
        let known = ledger_transactions::known_among(self.context.pool, &signatures).await?;
        for mint in mints {
            let entry = known.get(&mint.signature).copied();
            let reason = self.booked.get(&mint.signature.to_string());
            if self.unmatched.classify(&mint, entry, reason) == Class::Difference {
                self.suspects.push(mint);
            }
        }
        Ok(())
    }

    /// Checks the differences a second time.
    pub async fn finish(mut self, findings: &mut Findings) -> Result<UnmatchedMints, AuditError> {
        let again = std::mem::take(&mut self.remembered);
        self.classify(again).await?;
        if self.suspects.is_empty() {
            return Ok(self.unmatched);
        }
        tokio::time::sleep(SECOND_LOOK_AFTER).await;
        let suspects = std::mem::take(&mut self.suspects);
        let signatures: Vec<TxSignature> = suspects.iter().map(|mint| mint.signature).collect();
        let known = ledger_transactions::known_among(self.context.pool, &signatures).await?;
        self.booked = ledger_transactions::booked_foreign(self.context.pool).await?;
        for mint in suspects {
            // One that a fork took back is none.
            if self.lookup().find(mint.signature).await?.is_none() {
                continue;
            }
            let entry = known.get(&mint.signature).copied();
            let reason = self.booked.get(&mint.signature.to_string());
            if self.unmatched.classify(&mint, entry, reason) == Class::Difference {
                findings.add(Some(self.unmatched.report(&mint, entry)));
            }
        }
        Ok(self.unmatched)
    }
}

/// The class of a mint in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Known,
    /// The ledger lacks it, or holds it as dead: not counted yet.
    Difference,
}

impl UnmatchedMints {
    /// Whether each of them up to this slot is booked. One that is in flight may still be declared dead, by a person or a false
    /// answer: the next audit must list it again.
    pub fn is_settled_up_to(&self, slot: u64) -> bool {
        self.oldest_unknown_slot.is_none()
            && self
                .in_flight
                .values()
                .all(|(in_flight, _)| *in_flight > slot)
    }

    fn classify(
        &mut self,
        mint: &ChainMint,
        entry: Option<LedgerEntry>,
        booked_reason: Option<&String>,
    ) -> Class {
        let base_units = worth(mint);
        let (signature, slot) = (mint.signature, mint.slot);
        match (entry, booked_reason) {
            (Some(LedgerEntry { number, state }), _) if state != MintTransactionState::Dead => {
                // It is or soon will be landed: `landed_transactions` compares it, or its readings are outstanding.
                self.in_flight.insert(signature, (slot, base_units));
                self.numbers.push(number);
                Class::Known
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
                Class::Known
            }
            (_, None) => Class::Difference,
        }
    }

    /// Counts a mint that was a difference in both checks.
    fn report(&mut self, mint: &ChainMint, entry: Option<LedgerEntry>) -> Difference {
        let base_units = worth(mint);
        let (signature, slot) = (mint.signature, mint.slot);
        self.count(slot, base_units);
        self.base_units_unknown += base_units;
        self.oldest_unknown_slot = Some(
            self.oldest_unknown_slot
                .map_or(slot, |oldest| oldest.min(slot)),
        );
        match entry {
            Some(LedgerEntry { number, .. }) => {
                self.numbers.push(number);
                Difference::DeadButLanded {
                    signature,
                    number,
                    slot,
                    base_units,
                }
            }
            None => Difference::UnknownMint {
                signature,
                slot,
                base_units,
                memo: mint.raw_memo.clone(),
            },
        }
    }

    fn count(&mut self, slot: u64, base_units: Total) {
        self.base_units += base_units;
        self.by_slot.push((slot, base_units));
    }
}

fn worth(mint: &ChainMint) -> Total {
    let payments = mint.payments.iter();
    payments
        .map(|(_, base_units)| Total::from(*base_units))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::BaseUnits;
    use solana_sdk::pubkey::Pubkey;

    fn minted(base_units: u64) -> ChainMint {
        ChainMint {
            owners: Vec::new(),
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
    fn what_is_in_flight_or_unknown_is_not_settled() {
        use MintTransactionState::{Dead, Quarantined};
        for state in [Some(Quarantined), Some(Dead), None] {
            let mut unmatched = UnmatchedMints::default();
            assert!(unmatched.is_settled_up_to(u64::MAX));
            let entry = state.map(|state| LedgerEntry { number: 3, state });
            let mint = minted(8);
            if unmatched.classify(&mint, entry, None) == Class::Difference {
                unmatched.report(&mint, entry);
            }
            assert!(!unmatched.is_settled_up_to(mint.slot), "{state:?}");
        }
        let mut unmatched = UnmatchedMints::default();
        let in_flight = Some(LedgerEntry {
            number: 3,
            state: Quarantined,
        });
        unmatched.classify(&minted(8), in_flight, None);
        assert!(unmatched.is_settled_up_to(29), "it is listed again above");
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
            let mint = minted(8);
            let found =
                (unmatched.classify(&mint, entry, booked) == Class::Difference).then(|| {
                    let difference = unmatched.report(&mint, entry);
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
