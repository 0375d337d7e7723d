//! The limit of account data that a v1 transaction may load: its accounts and the programs that it calls.
//!
//! Invariant: the limit is always in the header, because without one a v1 transaction may load nothing and fails, and it covers
//! what the transaction loads when it lands, unless a program grows by more than the margin in between. Then the transaction fails,
//! no reading is blamed, and the next simulation reports the new size.
//!
//! A legacy transaction states no limit: the instruction for it would take the place of a payment, and the runtime's own limit,
//! [`LOADED_BYTES_MAX`], applies.

/// The most that the runtime lets any transaction load: 64 MiB (`MAX_LOADED_ACCOUNTS_DATA_SIZE_BYTES`).
pub const LOADED_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Room above what the simulation loaded: an upgrade of one of the four programs between simulation and landing. The largest of
/// them has some hundred kilobytes today.
///
/// The limit raises no fee. Leaders count it as work when they fill a block: eight compute units for each 32 KiB, so 256 for this
/// room and 16,384 for the runtime's own limit, which is more than all payments of a full transaction take.
const MARGIN_BYTES: u32 = 1024 * 1024;

/// The limit before a simulation is [`LOADED_BYTES_MAX`]; this is the one after a simulation that loaded `loaded` bytes. Without a
/// plausible number it stays.
pub(super) fn limit_after(loaded: Option<u32>) -> u32 {
    match loaded {
        None | Some(0) => LOADED_BYTES_MAX,
        Some(loaded) => loaded.saturating_add(MARGIN_BYTES).min(LOADED_BYTES_MAX),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_a_plausible_size_the_limit_is_the_runtimes() {
        assert_eq!(limit_after(None), LOADED_BYTES_MAX);
        assert_eq!(limit_after(Some(0)), LOADED_BYTES_MAX);
        assert_eq!(limit_after(Some(500_000)), 500_000 + 1_048_576);
    }

    proptest! {
        #[test]
        fn the_limit_covers_what_was_loaded(loaded in 1..=LOADED_BYTES_MAX) {
            let limit = limit_after(Some(loaded));
            prop_assert!((loaded..=LOADED_BYTES_MAX).contains(&limit));
        }
    }
}
