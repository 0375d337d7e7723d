//! Which readings share a Solana transaction.
//!
//! Invariant: every item is in exactly one transaction, and each transaction is within all limits, unless a single reading
//! exceeds them on its own: that one is marked `oversized` and must not be sent.
//!
//! A signature costs the same for one wallet as for nineteen, so transactions should leave full. First fit, costliest first
//! (wallets whose account must be created), leaves no two transactions that could have been one.

use std::collections::HashMap;

use super::bin::{Bin, PackItem, PackLimits, Packed};
use super::wallet::Wallet;

/// Packs every item into exactly one transaction. Items of one wallet become one payment per transaction; where its account is
/// missing, each transaction that pays it creates it, because they may land in any order (creation is idempotent, and its rent is
/// paid once).
pub fn pack(items: Vec<PackItem>, limits: &PackLimits) -> Vec<Packed> {
    let (alone, mut shared): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.alone);
    group_by_wallet(&mut shared);

    let mut closed: Vec<Bin> = alone
        .into_iter()
        .map(|item| Bin::of(item, limits))
        .collect();
    let mut open: Vec<Bin> = Vec::new();
    for item in shared {
        let with_its_wallet = open
            .iter()
            .position(|bin| bin.pays(item.wallet) && bin.admits(&item, limits));
        let first_fit = || open.iter().position(|bin| bin.admits(&item, limits));
        match with_its_wallet.or_else(first_fit) {
            Some(index) => open[index].add(item),
            None => {
                let bin = Bin::of(item, limits);
                if bin.oversized {
                    closed.push(bin);
                } else {
                    open.push(bin);
                }
            }
        }
    }
    // Each bin after the first was opened for an item that did not fit the bins before it, so only the last may wait for more.
    let last = open.pop();
    closed.append(&mut open);
    let packed = closed.into_iter().map(Bin::close);
    let last = last.map(|bin| {
        let full = !bin.admits_another(limits);
        Packed {
            full,
            ..bin.close()
        }
    });
    packed.chain(last).collect()
}

/// Groups the items by wallet: wallets that need an account first, otherwise in the order of arrival.
fn group_by_wallet(items: &mut [PackItem]) {
    let mut wallets: HashMap<Wallet, (bool, usize)> = HashMap::with_capacity(items.len());
    for (order, item) in items.iter().enumerate() {
        let (exists, _) = wallets.entry(item.wallet).or_insert((true, order));
        *exists &= !item.needs_account;
    }
    for item in items.iter_mut() {
        item.needs_account = !wallets[&item.wallet].0;
    }
    items.sort_by_key(|item| wallets[&item.wallet]);
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use proptest::prelude::*;
    use solana_sdk::message::Message;
    use solana_sdk::pubkey::Pubkey;
    use solana_sdk::transaction::Transaction;
    use uuid::Uuid;

    use super::*;
    use crate::domain::transaction::Shape;
    use crate::domain::{
        BaseUnits, COMPUTE_UNITS_MAX, ComputeUnitPrice, Memo, MintNumber, TRANSACTION_BYTES_MAX,
        instructions,
    };

    const LIMITS: PackLimits = PackLimits {
        max_readings: 50,
        max_base_units: BaseUnits::new(1_000_000_000_000),
        max_bytes: TRANSACTION_BYTES_MAX,
        max_compute_units: COMPUTE_UNITS_MAX,
        separate_fee_payer: false,
        priced: false,
    };

    fn wallet(number: u8) -> Wallet {
        Wallet::from_stored([number; 32])
    }

    fn item(number: u128, wallet_number: u8) -> PackItem {
        PackItem {
            reading_id: Uuid::from_u128(number),
            wallet: wallet(wallet_number),
            base_units: BaseUnits::new(1_000),
            needs_account: false,
            alone: false,
        }
    }

    fn wallets_per_transaction(items: Vec<PackItem>, limits: &PackLimits) -> Vec<usize> {
        let packed = pack(items, limits);
        packed.iter().map(|packed| packed.payments.len()).collect()
    }

    #[test]
    fn nineteen_wallets_share_a_transaction() {
        let items: Vec<_> = (0..40).map(|number| item(number, number as u8)).collect();
        assert_eq!(wallets_per_transaction(items.clone(), &LIMITS), [19, 19, 2]);
        let separate = PackLimits {
            separate_fee_payer: true,
            ..LIMITS
        };
        assert_eq!(
            wallets_per_transaction(items.clone(), &separate),
            [17, 17, 6]
        );
        let priced = PackLimits {
            priced: true,
            ..LIMITS
        };
        assert_eq!(wallets_per_transaction(items.clone(), &priced), [19, 19, 2]);
        let both = PackLimits {
            priced: true,
            ..separate
        };
        assert_eq!(wallets_per_transaction(items, &both), [16, 16, 8]);
    }

    #[test]
    fn seven_accounts_are_created_and_the_rest_is_filled_with_wallets_that_have_one() {
        let items: Vec<_> = (0..30)
            .map(|number| PackItem {
                needs_account: number >= 16,
                ..item(number, number as u8)
            })
            .collect();
        let packed = pack(items, &LIMITS);
        let shapes: Vec<_> = packed
            .iter()
            .map(|packed| (packed.account_creations(), packed.payments.len()))
            .collect();
        assert_eq!(shapes, [(7, 11), (7, 11), (0, 8)]);
        assert!(packed[..2].iter().all(|packed| packed.full));
        assert!(!packed[2].full, "eight wallets leave room for more");
    }

    #[test]
    fn a_wallets_readings_are_one_payment() {
        let items: Vec<_> = (0..40)
            .map(|number| item(number, (number % 2) as u8))
            .collect();
        let packed = pack(items, &LIMITS);
        assert_eq!(packed.len(), 1);
        assert_eq!(packed[0].readings.len(), 40);
        let amounts: Vec<_> = packed[0]
            .payments
            .iter()
            .map(|payment| payment.base_units.get())
            .collect();
        assert_eq!(amounts, [20_000, 20_000]);
        assert_eq!(packed[0].base_units.get(), 40_000);
    }

    #[test]
    fn a_wallet_is_not_paid_twice_where_one_payment_suffices() {
        let with = |number, wallet_number, base_units| PackItem {
            base_units: BaseUnits::new(base_units),
            ..item(number, wallet_number)
        };
        let limits = PackLimits {
            max_base_units: BaseUnits::new(10),
            ..LIMITS
        };
        // The last two units would fit beside the eight, but another transaction pays their wallet already.
        let items = vec![with(1, 1, 8), with(2, 2, 5), with(3, 2, 2)];
        assert_eq!(wallets_per_transaction(items, &limits), [1, 1]);
    }

    #[test]
    fn fifty_readings_fill_a_transaction() {
        let items: Vec<_> = (0..51).map(|number| item(number, 1)).collect();
        let packed = pack(items, &LIMITS);
        let readings: Vec<_> = packed
            .iter()
            .map(|packed| (packed.readings.len(), packed.full))
            .collect();
        assert_eq!(readings, [(50, true), (1, false)]);
    }

    #[test]
    fn a_reading_that_failed_on_chain_is_alone() {
        let items = vec![
            item(1, 1),
            PackItem {
                alone: true,
                ..item(2, 1)
            },
            item(3, 2),
        ];
        let packed = pack(items, &LIMITS);
        let readings: Vec<_> = packed
            .iter()
            .map(|packed| packed.readings.clone())
            .collect();
        assert_eq!(
            readings,
            [
                vec![Uuid::from_u128(2)],
                vec![Uuid::from_u128(1), Uuid::from_u128(3)]
            ]
        );
        assert!(packed[0].full, "it waits for no other reading");
    }

    #[test]
    fn a_reading_above_the_limit_is_marked_and_affects_no_other() {
        let large = PackItem {
            base_units: BaseUnits::new(1_000_000_000_001),
            ..item(1, 1)
        };
        let packed = pack(vec![large, item(2, 1), item(3, 2)], &LIMITS);
        assert_eq!(packed.len(), 2);
        assert!(packed[0].oversized);
        assert_eq!(packed[0].readings, [Uuid::from_u128(1)]);
        assert!(!packed[1].oversized);
    }

    #[test]
    fn nothing_packs_into_nothing() {
        assert!(pack(Vec::new(), &LIMITS).is_empty());
    }

    fn items() -> impl Strategy<Value = Vec<PackItem>> {
        let readings =
            prop::collection::vec((0_u8..40, 0_u64..400, prop::bool::weighted(0.05)), 0..150);
        let missing = prop::collection::hash_set(0_u8..40, 0..20);
        (readings, missing).prop_map(|(readings, missing)| {
            readings
                .into_iter()
                .enumerate()
                .map(|(number, (wallet_number, base_units, alone))| PackItem {
                    base_units: BaseUnits::new(base_units),
                    needs_account: missing.contains(&wallet_number),
                    alone,
                    ..item(number as u128, wallet_number)
                })
                .collect()
        })
    }

    fn limits() -> impl Strategy<Value = PackLimits> {
        (
            1_usize..60,
            300_u64..5_000,
            500_usize..=1232,
            140_000_u32..=1_400_000,
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(
                |(
                    max_readings,
                    max_base_units,
                    max_bytes,
                    max_compute_units,
                    separate_fee_payer,
                    priced,
                )| PackLimits {
                    max_readings,
                    max_base_units: BaseUnits::new(max_base_units),
                    max_bytes,
                    max_compute_units,
                    separate_fee_payer,
                    priced,
                },
            )
    }

    proptest! {
        #[test]
        fn every_reading_is_packed_once_and_within_the_limits(
            items in items(),
            limits in limits(),
        ) {
            let packed = pack(items.clone(), &limits);

            let mut readings: Vec<_> = packed
                .iter()
                .flat_map(|packed| packed.readings.clone())
                .collect();
            readings.sort_unstable();
            let expected: Vec<_> = items.iter().map(|item| item.reading_id).collect();
            prop_assert_eq!(readings, expected);

            let by_id: BTreeMap<_, _> = items.iter().map(|item| (item.reading_id, item)).collect();
            let needing: HashSet<_> = items
                .iter()
                .filter(|item| item.needs_account)
                .map(|item| item.wallet)
                .collect();
            for packed in &packed {
                let mut expected = BTreeMap::<Wallet, u64>::new();
                for reading in &packed.readings {
                    let item = by_id[reading];
                    *expected.entry(item.wallet).or_default() += item.base_units.get();
                    prop_assert!(!item.alone || packed.readings.len() == 1);
                }
                let paid: BTreeMap<_, _> = packed
                    .payments
                    .iter()
                    .map(|payment| (payment.wallet, payment.base_units.get()))
                    .collect();
                prop_assert_eq!(paid.len(), packed.payments.len(), "one payment a wallet");
                prop_assert_eq!(&paid, &expected);
                prop_assert_eq!(packed.base_units.get(), paid.values().sum::<u64>());
                for payment in &packed.payments {
                    prop_assert_eq!(payment.create_account, needing.contains(&payment.wallet));
                }
                if packed.oversized {
                    prop_assert_eq!(packed.readings.len(), 1);
                    prop_assert!(
                        packed.base_units > limits.max_base_units
                            || packed.bytes > limits.max_bytes
                            || packed.compute_units > limits.max_compute_units
                    );
                } else {
                    prop_assert!(packed.readings.len() <= limits.max_readings);
                    prop_assert!(packed.base_units <= limits.max_base_units);
                    prop_assert!(packed.bytes <= limits.max_bytes);
                    prop_assert!(packed.compute_units <= limits.max_compute_units);
                    let trace = 2 + usize::from(limits.priced) + packed.payments.len() + 7 * packed.payments.iter().filter(|payment| payment.create_account).count();
                    prop_assert!(trace <= 64);
                }
            }
            prop_assert!(packed.iter().filter(|packed| !packed.full).count() <= 1);
        }

        /// The real transaction, for whatever mix of wallets: what the chain would get.
        #[test]
        fn what_was_packed_is_serialised_within_a_packet(
            items in items(),
            separate_fee_payer in any::<bool>(),
            price in prop_oneof![Just(0_u64), any::<u64>()],
        ) {
            let (mint, authority) = (Pubkey::new_unique(), Pubkey::new_unique());
            let fee_payer = if separate_fee_payer { Pubkey::new_unique() } else { authority };
            let memo = Memo::new(MintNumber::MAX, [255; 32]);
            let limits = PackLimits { separate_fee_payer, priced: price > 0, ..LIMITS };
            let price = ComputeUnitPrice::from_micro_lamports(price);
            for packed in pack(items, &limits) {
                let built = instructions(&packed.payments, &mint, &authority, &fee_payer, &memo, price);
                prop_assert!(built.compute.ceiling() <= packed.compute_units);
                let transaction = Transaction::new_unsigned(Message::new(&built.list, Some(&fee_payer)));
                let signed_bytes = bincode::serialize(&transaction).unwrap();
                prop_assert!(signed_bytes.len() <= 1232, "{} bytes", signed_bytes.len());
                // Less when a wallet is an address that is there anyway: wallet 0 is the system program's.
                prop_assert!(signed_bytes.len() == packed.bytes || signed_bytes.len() + 32 == packed.bytes);
            }
        }

        /// Transactions cost the same full or not: no two of them could have been one.
        #[test]
        fn no_two_transactions_could_be_one(items in items(), limits in limits()) {
            let shared = items
                .into_iter()
                .map(|item| PackItem { alone: false, ..item })
                .collect();
            let mut packed = pack(shared, &limits);
            packed.retain(|packed| !packed.oversized);
            for (index, left) in packed.iter().enumerate() {
                for right in &packed[index + 1..] {
                    let both = left.payments.iter().chain(&right.payments);
                    let wallets: BTreeMap<_, _> = both
                        .map(|payment| (payment.wallet, payment.create_account))
                        .collect();
                    let shape = Shape {
                        payments: wallets.len(),
                        creations: wallets.values().filter(|creates| **creates).count(),
                        separate_fee_payer: limits.separate_fee_payer,
                        priced: limits.priced,
                    };
                    let readings = left.readings.len() + right.readings.len();
                    let base_units = left.base_units.get() + right.base_units.get();
                    let fits = readings <= limits.max_readings
                        && base_units <= limits.max_base_units.get()
                        && limits.allow(shape);
                    prop_assert!(!fits, "{left:?} and {right:?}");
                }
            }
        }
    }
}
