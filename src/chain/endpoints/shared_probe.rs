//! Packages one process's probe of all endpoints for the other processes of the deployment.
//!
//! Invariant: only healthy results are shared. A process that finds a fault shares nothing of it, because the fault may be in its
//! own network, and the others must not stop minting for it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::chain_snapshot::ChainSnapshot;
use super::endpoint_health::ProbeResult;
use crate::chain::parameters::ChainCharges;

/// Identifies a list of endpoints, without revealing the access keys in their URLs.
pub type EndpointsKey = [u8; 32];

/// Heights and accounts as one probe found them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedProbe {
    /// In the configured order.
    heights: Vec<u64>,
    slot: u64,
    fee_payer: Option<SharedFeePayer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SharedFeePayer {
    address: String,
    balance: u64,
}

impl SharedProbe {
    /// `None` unless every endpoint answered and none reports that it is behind.
    pub(super) fn of(
        probes: &[ProbeResult],
        snapshot: ChainSnapshot,
        fee_payer: Option<String>,
    ) -> Option<SharedProbe> {
        let heights = probes.iter().map(|probe| match probe {
            ProbeResult::Height {
                height,
                reports_behind: None,
            } => Some(*height),
            _ => None,
        });
        let fee_payer = fee_payer
            .zip(snapshot.balance)
            .map(|(address, balance)| SharedFeePayer { address, balance });
        Some(SharedProbe {
            heights: heights.collect::<Option<_>>()?,
            slot: snapshot.slot,
            fee_payer,
        })
    }

    /// The probe of each endpoint, if there are as many.
    pub(super) fn probes(&self, endpoints: usize) -> Option<Vec<ProbeResult>> {
        let probe = |height: &u64| ProbeResult::Height {
            height: *height,
            reports_behind: None,
        };
        (self.heights.len() == endpoints).then(|| self.heights.iter().map(probe).collect())
    }

    /// The accounts, if the fee payer is the same one. `charges` are those that this process knows.
    pub(super) fn snapshot(
        &self,
        fee_payer: Option<&str>,
        charges: ChainCharges,
    ) -> Option<ChainSnapshot> {
        let shared = self.fee_payer.as_ref();
        if shared.map(|payer| payer.address.as_str()) != fee_payer {
            return None;
        }
        Some(ChainSnapshot {
            slot: self.slot,
            balance: shared.map(|payer| payer.balance),
            charges,
        })
    }
}

/// The key of a list of URLs.
pub(super) fn key_of(urls: &[String]) -> EndpointsKey {
    let mut hasher = Sha256::new();
    for url in urls {
        hasher.update(url.as_bytes());
        hasher.update([0]);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_well_is_shared_and_only_with_the_same_fee_payer() {
        let charges = ChainCharges {
            token_account_rent: 5,
            fee_payer_minimum: 2,
            per_signature: 1,
        };
        let snapshot = ChainSnapshot {
            slot: 70,
            balance: Some(9),
            charges,
        };
        let height = |reports_behind| ProbeResult::Height {
            height: 60,
            reports_behind,
        };
        let payer = || Some("payer".to_owned());
        let shared = SharedProbe::of(&[height(None), height(None)], snapshot, payer()).unwrap();
        let stored = serde_json::to_string(&shared).unwrap();
        let read: SharedProbe = serde_json::from_str(&stored).unwrap();
        assert_eq!(read.snapshot(Some("payer"), charges), Some(snapshot));
        assert_eq!(read.snapshot(Some("another"), charges), None);
        assert_eq!(read.snapshot(None, charges), None);
        assert_eq!(read.probes(2).unwrap(), [height(None), height(None)]);
        assert!(read.probes(1).is_none());
        for unwell in [
            height(Some(7)),
            ProbeResult::RateLimited(std::time::Duration::ZERO),
        ] {
            assert!(SharedProbe::of(&[height(None), unwell], snapshot, payer()).is_none());
        }
    }

    #[test]
    fn lists_that_differ_have_different_keys() {
        let key =
            |urls: &[&str]| key_of(&urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>());
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
        assert_ne!(key(&["a", "b"]), key(&["b", "a"]));
        assert_ne!(key(&["ab"]), key(&["a", "b"]));
    }
}
