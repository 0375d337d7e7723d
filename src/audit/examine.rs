//! The order of the steps, and the sums.
//!
//! The supply comes first and says as of which slot everything is compared; then the history, which must reach beyond that
//! slot; then the ledger. So whatever the supply counts is on the list, and what is on the list was recorded before.

use std::time::Duration;

use chrono::Utc;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;

use super::difference::{Difference, Findings};
use super::report::{AuditReport, Total};
use super::{AuditError, admin_log, books, paid, strays};
use crate::chain::{ChainError, Endpoint, Endpoints, TokenSupply, shows_creation};
use crate::domain::BaseUnits;
use crate::ledger::{self, ChainBinding};

/// Transactions read from the chain at once.
pub(super) const READS_AT_ONCE: usize = 16;
/// How long the chain may take to go beyond the slot of the supply: a chain that stands still cannot be audited.
const NEXT_SLOT_LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What an audit works with.
pub(super) struct Examination<'a> {
    pub pool: &'a PgPool,
    pub endpoints: &'a Endpoints,
    /// The one whose history and supply are taken.
    pub endpoint: &'a Endpoint,
    pub mint: Pubkey,
    pub authority: Pubkey,
    pub supply: Supply,
}

/// The token's supply, and as of when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Supply {
    pub base_units: BaseUnits,
    pub slot: u64,
    /// The block of that slot was not closed yet: some of its transactions may have been executed after the supply was read.
    pub slot_is_open: bool,
}

/// Audits the ledger in this database. Mint and authority are those that it is bound to.
pub async fn audit(pool: &PgPool, endpoints: &Endpoints) -> Result<AuditReport, AuditError> {
    let binding = ledger::binding(pool).await?;
    let endpoint = endpoint_with_history(endpoints, &binding).await?;
    let supply = supply(endpoint, &binding.mint).await?;
    let examination = Examination {
        pool,
        endpoints,
        endpoint,
        mint: binding.mint,
        authority: binding.authority,
        supply,
    };
    let mut findings = Findings::default();
    let mut strays = strays::find(&examination, &mut findings).await?;
    let mut minted = Minted::until(supply);
    let paid = paid::examine(&examination, &mut findings, |mint| {
        strays.in_flight.remove(&mint.signature);
        for (_, base_units) in &mint.payments {
            minted.add(mint.slot, Total::from(*base_units));
        }
    })
    .await?;
    for (slot, base_units) in strays.in_flight.values().chain(&strays.by_slot) {
        minted.add(*slot, *base_units);
    }
    findings.add(books::paid_twice(pool, &strays.numbers).await?);
    findings.add(books::not_paid(pool).await?);
    findings.add(books::contradicting(pool).await?);
    findings.add(books::released(pool).await?);
    findings.add(minted.compare(supply));
    let base_units_chain = paid.base_units_chain + strays.base_units;
    findings.add(compare_sums(
        paid.base_units_ledger,
        strays.base_units_foreign,
        base_units_chain,
    ));
    let (admin_log, broken) = admin_log::examine(pool).await?;
    findings.add(broken);
    Ok(AuditReport {
        ok: findings.listed.is_empty(),
        mint_address: binding.mint.to_string(),
        readings_minted: paid.readings_minted,
        readings_finalized: paid.readings_finalized,
        transactions: paid.transactions,
        base_units_ledger: paid.base_units_ledger,
        base_units_chain,
        token_supply: supply.base_units,
        outstanding: books::outstanding(pool).await?,
        burned: minted.burned(supply),
        foreign: strays.foreign,
        admin_log,
        differences: findings.listed,
        differences_beyond: findings.beyond,
        finished_at: Utc::now(),
        slot: supply.slot,
    })
}

/// The first endpoint whose history begins with the mint; each that is asked must be on the ledger's chain.
///
/// A shorter history would hide mints that the ledger lacks: holders may have burned as much, so that the supply does not
/// betray them.
async fn endpoint_with_history<'a>(
    endpoints: &'a Endpoints,
    binding: &ChainBinding,
) -> Result<&'a Endpoint, AuditError> {
    let mut failure = AuditError::from(ChainError::Unreachable {
        endpoint: "any".to_owned(),
        reason: "none is configured".to_owned(),
    });
    let mut forgotten_by = Vec::new();
    for endpoint in endpoints.iter() {
        match reaches_back(endpoint, binding).await {
            Ok(true) => return Ok(endpoint),
            Ok(false) => forgotten_by.push(endpoint.name()),
            Err(AuditError::Chain(error)) => failure = error.into(),
            Err(error) => return Err(error),
        }
    }
    if forgotten_by.is_empty() {
        return Err(failure);
    }
    Err(AuditError::NoBeginning {
        mint: binding.mint.to_string(),
        endpoints: forgotten_by.join(", "),
    })
}

async fn reaches_back(endpoint: &Endpoint, binding: &ChainBinding) -> Result<bool, AuditError> {
    let found = endpoint.genesis_hash().await?;
    if found != binding.genesis_hash {
        return Err(AuditError::OtherChain {
            ledger: binding.genesis_hash.clone(),
            endpoint: found,
        });
    }
    Ok(shows_creation(endpoint, &binding.mint).await?)
}

async fn supply(endpoint: &Endpoint, mint: &Pubkey) -> Result<Supply, AuditError> {
    let newest_before = slot(endpoint, CommitmentConfig::processed()).await?;
    let TokenSupply { base_units, slot } = endpoint.token_supply(mint).await?;
    let supply = Supply {
        base_units,
        slot,
        slot_is_open: slot >= newest_before,
    };
    wait_until_beyond(endpoint, supply.slot).await?;
    Ok(supply)
}

/// The history that is listed next must hold all of the supply's slot.
async fn wait_until_beyond(endpoint: &Endpoint, supply_slot: u64) -> Result<(), AuditError> {
    let beyond = tokio::time::timeout(NEXT_SLOT_LIMIT, async {
        while slot(endpoint, CommitmentConfig::confirmed()).await? <= supply_slot {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    });
    beyond.await.unwrap_or(Err(AuditError::Standstill {
        slot: supply_slot,
        limit_secs: NEXT_SLOT_LIMIT.as_secs(),
    }))
}

async fn slot(endpoint: &Endpoint, commitment: CommitmentConfig) -> Result<u64, AuditError> {
    let slot = endpoint.rpc().get_slot_with_commitment(commitment).await;
    Ok(slot.map_err(|error| ChainError::from_client(endpoint.name(), &error))?)
}

/// What our authority minted up to the supply's slot.
#[derive(Debug)]
struct Minted {
    slot: u64,
    before: Total,
    in_slot: Total,
}

impl Minted {
    fn until(supply: Supply) -> Minted {
        Minted {
            slot: supply.slot,
            before: Total::ZERO,
            in_slot: Total::ZERO,
        }
    }

    fn add(&mut self, slot: u64, base_units: Total) {
        match slot.cmp(&self.slot) {
            std::cmp::Ordering::Less => self.before += base_units,
            std::cmp::Ordering::Equal => self.in_slot += base_units,
            std::cmp::Ordering::Greater => {}
        }
    }

    fn most(&self) -> Total {
        self.before + self.in_slot
    }

    /// Fewer tokens than were minted: holders burned the rest. More: somebody else minted them.
    fn compare(&self, supply: Supply) -> Option<Difference> {
        (Total::from(supply.base_units) > self.most()).then(|| Difference::SupplyTooLarge {
            token_supply: supply.base_units,
            minted: self.most(),
        })
    }

    /// At least so much: mints of a block that was still open may not be in the supply yet.
    fn burned(&self, supply: Supply) -> Total {
        let least = if supply.slot_is_open {
            self.before
        } else {
            self.most()
        };
        least.less(supply.base_units.into())
    }
}

fn compare_sums(ledger: Total, foreign: Total, chain: Total) -> Option<Difference> {
    (ledger + foreign != chain).then_some(Difference::SumsDiffer {
        base_units_ledger: ledger,
        base_units_foreign: foreign,
        base_units_chain: chain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minted_until(supply: Supply) -> Minted {
        let mut minted = Minted::until(supply);
        // Slot 10 is the supply's; what comes later is not in it.
        for (slot, base_units) in [(8, 100), (10, 20), (11, 3)] {
            minted.add(slot, Total::new(base_units));
        }
        minted
    }

    #[test]
    fn fewer_tokens_are_burned_and_more_are_a_difference() {
        let cases = [
            // supply, open, burned, is a difference
            (120, false, 0, false),
            (110, false, 10, false),
            (121, false, 0, true),
            // The 20 of the open slot may be in the supply or not.
            (120, true, 0, false),
            (100, true, 0, false),
            (110, true, 0, false),
            (90, true, 10, false),
            (121, true, 0, true),
        ];
        for (base_units, slot_is_open, burned, differs) in cases {
            let supply = Supply {
                base_units: BaseUnits::new(base_units),
                slot: 10,
                slot_is_open,
            };
            let minted = minted_until(supply);
            assert_eq!(minted.burned(supply), Total::new(burned), "{supply:?}");
            assert_eq!(minted.compare(supply).is_some(), differs, "{supply:?}");
        }
    }

    #[test]
    fn booked_foreign_mints_belong_to_the_sum() {
        let totals = |ledger, foreign, chain| {
            compare_sums(Total::new(ledger), Total::new(foreign), Total::new(chain))
        };
        assert_eq!(totals(10, 0, 10), None);
        assert_eq!(totals(10, 5, 15), None);
        assert!(totals(10, 0, 15).is_some());
        assert!(totals(10, 0, 9).is_some());
    }
}
