//! Figures of a chain that its flags choose and its store keeps.

use serde::{Deserialize, Serialize};

/// The length of a slot, and the rent of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    pub slot_ms: u64,
    /// An account must hold this for each byte of its data plus 128 bytes of overhead.
    pub rent_lamports_per_byte: u64,
}

impl Parameters {
    /// Mainnet's since September 2026 (SIMD-0525, SIMD-0437): a new chain begins with these.
    pub const OF_A_NEW_CHAIN: Self = Self {
        slot_ms: 200,
        rent_lamports_per_byte: 5_080,
    };

    /// The figures of every chain from before stores kept them.
    pub const UNSTORED: Self = Self {
        slot_ms: 400,
        rent_lamports_per_byte: 6_960,
    };
}

/// The figures that the command line chooses; the rest stays as it is in the store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    pub slot_ms: Option<u64>,
    pub rent_lamports_per_byte: Option<u64>,
}

impl Choice {
    pub fn apply_to(self, stored: Parameters) -> Parameters {
        Parameters {
            slot_ms: self.slot_ms.unwrap_or(stored.slot_ms),
            rent_lamports_per_byte: self
                .rent_lamports_per_byte
                .unwrap_or(stored.rent_lamports_per_byte),
        }
    }
}
