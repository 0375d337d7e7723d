//! The chain's side: what our authority minted and the ledger does not call landed.
//!
//! The history is listed first and the ledger asked afterwards: what we send is recorded before, so a mint that is on the
//! list and not in the ledger is not about to be recorded. What the ledger holds as sent is not a difference: the Resolver
//! confirms it any moment.

use std::collections::HashMap;

use futures_util::{StreamExt, TryStreamExt};
use solana_commitment_config::CommitmentConfig;
use solana_sdk::signature::Signature;

use super::AuditError;
use super::books::{self, is_landed};
use super::difference::{Difference, Findings};
use super::examine::{Examination, READS_AT_ONCE};
use super::report::{ForeignMint, Total};
use crate::chain::{ChainMint, mint_of, walk_history};
use crate::domain::MintTransactionState;

/// What the history holds beyond the transactions that the ledger calls landed.
#[derive(Default)]
pub(super) struct Strays {
    /// Sent and landed, but not confirmed in the ledger when it was looked at: slot and amount.
    pub in_flight: HashMap<Signature, (u64, Total)>,
    /// Numbers of those, and of the dead ones that landed.
    pub numbers: Vec<i64>,
    /// Booked by an admin.
    pub foreign: Vec<ForeignMint>,
    /// Foreign ones, unknown ones and dead ones that landed.
    pub base_units: Total,
    pub base_units_foreign: Total,
    /// Of `base_units`, by slot: a supply is compared as of one slot.
    pub by_slot: Vec<(u64, Total)>,
}

/// Walks the whole history of the authority.
pub(super) async fn find(
    examination: &Examination<'_>,
    findings: &mut Findings,
) -> Result<Strays, AuditError> {
    let booked = books::booked_foreign(examination.pool).await?;
    let mut strays = Strays::default();
    let mut pages = walk_history(
        examination.endpoint,
        examination.authority,
        0,
        examination.supply.slot,
        CommitmentConfig::confirmed(),
    );
    while let Some(page) = pages.next_page().await? {
        let landed: Vec<Signature> = page
            .iter()
            .filter(|transaction| !transaction.failed)
            .map(|transaction| transaction.signature)
            .collect();
        let known = books::known_among(examination.pool, &landed).await?;
        let open: Vec<Signature> = landed
            .into_iter()
            .filter(|signature| {
                known
                    .get(signature)
                    .is_none_or(|(_, state)| !is_landed(*state))
            })
            .collect();
        let read: Vec<ChainMint> = futures_util::stream::iter(open)
            .map(|signature| async move {
                mint_of(
                    examination.endpoint,
                    &signature,
                    &examination.mint,
                    &examination.authority,
                    CommitmentConfig::confirmed(),
                )
                .await
            })
            .buffer_unordered(READS_AT_ONCE)
            .try_collect()
            .await?;
        // Anybody can mention our authority: only what it minted counts.
        let mints: Vec<ChainMint> = read
            .into_iter()
            .filter(|transaction| !transaction.payments.is_empty())
            .collect();
        let signatures: Vec<Signature> = mints.iter().map(|mint| mint.signature).collect();
        // Looked up again, now that reading them from the chain took its time.
        let known = books::known_among(examination.pool, &signatures).await?;
        for mint in mints {
            let entry = known.get(&mint.signature).copied();
            let reason = booked.get(&mint.signature.to_string());
            findings.add(strays.sort_in(&mint, entry, reason));
        }
    }
    Ok(strays)
}

impl Strays {
    fn sort_in(
        &mut self,
        mint: &ChainMint,
        entry: Option<(i64, MintTransactionState)>,
        booked_reason: Option<&String>,
    ) -> Option<Difference> {
        let base_units: Total = mint
            .payments
            .iter()
            .map(|(_, base_units)| Total::from(*base_units))
            .sum();
        let slot = mint.slot;
        match (entry, booked_reason) {
            (Some((number, state)), _) if state != MintTransactionState::Dead => {
                // Landed by now or about to be: the ledger's side compares it, or it is outstanding.
                self.in_flight.insert(mint.signature, (slot, base_units));
                self.numbers.push(number);
                None
            }
            (entry, Some(reason)) => {
                self.numbers.extend(entry.map(|(number, _)| number));
                self.count(slot, base_units);
                self.base_units_foreign += base_units;
                self.foreign.push(ForeignMint {
                    signature: mint.signature.to_string(),
                    slot,
                    base_units,
                    memo: mint.raw_memo.clone(),
                    booked_reason: reason.clone(),
                });
                None
            }
            (Some((number, _)), None) => {
                self.numbers.push(number);
                self.count(slot, base_units);
                Some(Difference::DeadButLanded {
                    signature: mint.signature,
                    number,
                    slot,
                    base_units,
                })
            }
            (None, None) => {
                self.count(slot, base_units);
                Some(Difference::UnknownMint {
                    signature: mint.signature,
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
            signature: Signature::from([5; 64]),
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
    fn what_a_stray_is_depends_on_what_the_ledger_says() {
        use MintTransactionState::{Confirmed, Dead, Quarantined, Recorded};
        let reason = "initial supply".to_owned();
        let cases = [
            (None, None, Some("unknown_mint"), 0, 0, 8),
            (None, Some(&reason), None, 0, 1, 8),
            (Some((3, Recorded)), None, None, 1, 0, 0),
            (Some((3, Quarantined)), None, None, 1, 0, 0),
            (Some((3, Confirmed)), None, None, 1, 0, 0),
            (Some((3, Dead)), None, Some("dead_but_landed"), 0, 0, 8),
            (Some((3, Dead)), Some(&reason), None, 0, 1, 8),
        ];
        for (entry, booked, kind, in_flight, foreign, counted) in cases {
            let mut strays = Strays::default();
            let difference = strays.sort_in(&minted(8), entry, booked);
            let found = difference.map(|difference| {
                serde_json::to_value(difference).unwrap()["kind"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            });
            assert_eq!(found.as_deref(), kind, "{entry:?} {booked:?}");
            assert_eq!(strays.in_flight.len(), in_flight, "{entry:?} {booked:?}");
            assert_eq!(strays.foreign.len(), foreign, "{entry:?} {booked:?}");
            assert_eq!(
                strays.base_units,
                Total::new(counted),
                "{entry:?} {booked:?}"
            );
            assert_eq!(strays.numbers.len(), usize::from(entry.is_some()));
        }
    }
}
