//! Step 3 of the pipeline: packs readings into transactions, and decides which of the transactions are sent now. Pure.
//!
//! [`domain::pack`] decides which readings share a transaction. This file decides which transactions are
//! sent: a reading that no transaction can pay is refused, and under load a transaction that is not full waits for the next
//! batch, once.

use uuid::Uuid;

use crate::domain::{self, PackItem, PackLimits, Packed};

/// Every packed reading is in exactly one of these.
#[derive(Debug, Default)]
pub(super) struct Packing {
    pub leaving: Vec<Packed>,
    /// Readings of the transaction that waits for the next batch, because it is not full while others are.
    pub carried: Vec<Uuid>,
    /// One reading each, which exceeds the limits of a transaction on its own.
    pub oversized: Vec<Packed>,
}

/// `may_wait`: whether this reading may be handed to the next batch. A transaction waits only if all of its readings may.
pub(super) fn pack(
    items: Vec<PackItem>,
    limits: &PackLimits,
    may_wait: impl Fn(Uuid) -> bool,
) -> Packing {
    let (oversized, packed): (Vec<Packed>, Vec<Packed>) = domain::pack(items, limits)
        .into_iter()
        .partition(|packed| packed.oversized);
    let under_load = packed.iter().any(|packed| packed.full);
    let waits = |packed: &Packed| {
        under_load && !packed.full && packed.readings.iter().all(|reading| may_wait(*reading))
    };
    let (waiting, leaving): (Vec<Packed>, Vec<Packed>) = packed.into_iter().partition(waits);
    Packing {
        leaving,
        carried: waiting
            .into_iter()
            .flat_map(|packed| packed.readings)
            .collect(),
        oversized,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{BaseUnits, COMPUTE_UNITS_MAX, TransactionFormat, Wallet};

    const LIMITS: PackLimits = PackLimits {
        format: TransactionFormat::Legacy,
        max_readings: 5,
        max_base_units: BaseUnits::new(100),
        max_bytes: TransactionFormat::Legacy.bytes_max(),
        max_compute_units: COMPUTE_UNITS_MAX,
        separate_fee_payer: false,
        priced: false,
    };

    fn item(number: u128, base_units: u64) -> PackItem {
        PackItem {
            reading_id: Uuid::from_u128(number),
            wallet: Wallet::from_stored([7; 32]),
            base_units: BaseUnits::new(base_units),
            needs_account: false,
            alone: false,
        }
    }

    #[test]
    fn what_does_not_fill_a_transaction_waits_only_while_others_do_and_only_once() {
        let items = |count| (0..count).map(|number| item(number, 1)).collect::<Vec<_>>();
        let alone = pack(items(2), &LIMITS, |_| true);
        assert_eq!((alone.leaving.len(), alone.carried.len()), (1, 0));
        let under_load = pack(items(7), &LIMITS, |_| true);
        assert_eq!((under_load.leaving.len(), under_load.carried.len()), (1, 2));
        let again = pack(items(7), &LIMITS, |_| false);
        assert_eq!((again.leaving.len(), again.carried.len()), (2, 0));
    }

    proptest! {
        #[test]
        fn every_reading_leaves_waits_or_is_refused(
            amounts in prop::collection::vec(1_u64..130, 0..40),
            carried in prop::collection::hash_set(0_u128..40, 0..40),
        ) {
            let items: Vec<PackItem> = (0..).zip(&amounts).map(|(number, amount)| item(number, *amount)).collect();
            let carried_before: HashSet<Uuid> = carried.into_iter().map(Uuid::from_u128).collect();
            let packing = pack(items.clone(), &LIMITS, |reading| !carried_before.contains(&reading));

            let refused = packing.oversized.iter().flat_map(|packed| packed.readings.clone());
            let leaving = packing.leaving.iter().flat_map(|packed| packed.readings.clone());
            let mut found: Vec<Uuid> = refused.chain(leaving).chain(packing.carried.clone()).collect();
            found.sort_unstable();
            let all: Vec<Uuid> = items.iter().map(|item| item.reading_id).collect();
            prop_assert_eq!(found, all);

            prop_assert!(packing.carried.iter().all(|reading| !carried_before.contains(reading)));
            prop_assert!(packing.carried.is_empty() || packing.leaving.iter().any(|packed| packed.full));
            prop_assert!(packing.leaving.iter().all(|packed| !packed.oversized));
        }
    }
}
