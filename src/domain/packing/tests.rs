use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signature;
use solana_sdk::transaction::VersionedTransaction;
use uuid::Uuid;

use super::*;
use crate::domain::shape::Shape;
use crate::domain::{
    BaseUnits, COMPUTE_UNITS_MAX, ComputeUnitPrice, Memo, MintNumber, TransactionFormat,
    TransactionTerms, instructions, signed_bytes,
};

const LIMITS: PackLimits = PackLimits {
    format: TransactionFormat::Legacy,
    max_readings: 50,
    max_base_units: BaseUnits::new(1_000_000_000_000),
    max_bytes: TransactionFormat::Legacy.bytes_max(),
    max_compute_units: COMPUTE_UNITS_MAX,
    separate_fee_payer: false,
    priced: false,
};

/// Of a service whose batches are large enough to fill v1 transactions.
const V1_LIMITS: PackLimits = PackLimits {
    format: TransactionFormat::V1,
    max_readings: 200,
    max_bytes: TransactionFormat::V1.bytes_max(),
    ..LIMITS
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

/// 64 addresses are allowed; four of them, and a separate fee payer, are in every transaction.
#[test]
fn sixty_wallets_share_a_v1_transaction() {
    let items: Vec<_> = (0..150).map(|number| item(number, number as u8)).collect();
    let one_key = wallets_per_transaction(items.clone(), &V1_LIMITS);
    assert_eq!(one_key, [60, 60, 30]);
    for priced in [false, true] {
        let two_keys = PackLimits {
            separate_fee_payer: true,
            priced,
            ..V1_LIMITS
        };
        let packed = pack(items.clone(), &two_keys);
        let payments: Vec<_> = packed.iter().map(|packed| packed.payments.len()).collect();
        assert_eq!(payments, [59, 59, 32]);
        assert_eq!(packed[0].bytes, if priced { 3_235 } else { 3_227 });
    }
    let batches_of_fifty = PackLimits {
        max_readings: 50,
        ..V1_LIMITS
    };
    assert_eq!(
        wallets_per_transaction(items, &batches_of_fifty),
        [50, 50, 50]
    );
}

/// The cost of a reading at full packing: 5,000 lamports a signature.
#[test]
fn a_full_v1_transaction_costs_at_most_90_lamports_a_reading_with_one_key_and_175_with_two() {
    let items: Vec<_> = (0..200).map(|number| item(number, number as u8)).collect();
    for (separate_fee_payer, most) in [(false, 90), (true, 175)] {
        let limits = PackLimits {
            separate_fee_payer,
            ..V1_LIMITS
        };
        let full = &pack(items.clone(), &limits)[0];
        let fee = 5_000 * (1 + usize::from(separate_fee_payer));
        assert!(full.full && fee <= most * full.readings.len());
    }
}

/// The instructions that the creations execute are limited in both formats, so a v1 transaction creates no more accounts.
#[test]
fn seven_accounts_are_created_by_a_v1_transaction_too() {
    let items: Vec<_> = (0..30)
        .map(|number| PackItem {
            needs_account: number >= 16,
            ..item(number, number as u8)
        })
        .collect();
    let shapes: Vec<_> = pack(items, &V1_LIMITS)
        .iter()
        .map(|packed| (packed.account_creations(), packed.payments.len()))
        .collect();
    assert_eq!(shapes, [(7, 14), (7, 14), (0, 2)]);
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
        prop::collection::vec((0_u8..120, 0_u64..400, prop::bool::weighted(0.05)), 0..200);
    let missing = prop::collection::hash_set(0_u8..120, 0..40);
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
    let format = prop::sample::select(TransactionFormat::ALL.to_vec());
    let max_bytes = format.prop_flat_map(|format| (Just(format), 500..=format.bytes_max()));
    (
        max_bytes,
        1_usize..150,
        300_u64..20_000,
        140_000_u32..=1_400_000,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(
                (format, max_bytes),
                max_readings,
                max_base_units,
                max_compute_units,
                separate_fee_payer,
                priced,
            )| PackLimits {
                format,
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
                let compute_budget = match limits.format {
                    TransactionFormat::Legacy => 1 + usize::from(limits.priced),
                    TransactionFormat::V1 => 0,
                };
                let trace = 1 + compute_budget + packed.payments.len() + 7 * packed.account_creations() as usize;
                prop_assert!(trace <= 64);
            }
        }
        prop_assert!(packed.iter().filter(|packed| !packed.full).count() <= 1);
    }

    /// The real transaction, for whatever mix of wallets: what the chain would get.
    #[test]
    fn what_was_packed_is_a_transaction_that_its_format_allows(
        items in items(),
        format in prop::sample::select(TransactionFormat::ALL.to_vec()),
        separate_fee_payer in any::<bool>(),
        price in prop_oneof![Just(0_u64), any::<u64>()],
    ) {
        let (mint, authority) = (Pubkey::new_unique(), Pubkey::new_unique());
        let fee_payer = if separate_fee_payer { Pubkey::new_unique() } else { authority };
        let memo = Memo::new(MintNumber::MAX, [255; 32]);
        let limits = PackLimits {
            format,
            max_readings: 200,
            max_bytes: format.bytes_max(),
            separate_fee_payer,
            priced: price > 0,
            ..LIMITS
        };
        let terms = TransactionTerms { format, price: ComputeUnitPrice::from_micro_lamports(price) };
        for packed in pack(items, &limits) {
            let built = instructions(&packed.payments, &mint, &authority, &fee_payer, &memo, terms);
            prop_assert!(built.compute.ceiling() <= packed.compute_units);
            // Compiling v1 checks its rules.
            let message = built.compile(&fee_payer).unwrap();
            let keys = message.static_account_keys().len();
            prop_assert!(keys <= 64 && message.instructions().len() <= 64);
            let signatures = vec![Signature::default(); 1 + usize::from(separate_fee_payer)];
            let transaction = VersionedTransaction { signatures, message };
            // Encoding checks them again.
            let signed_bytes = signed_bytes::encode(&transaction).unwrap();
            prop_assert!(signed_bytes.len() <= format.bytes_max(), "{} bytes", signed_bytes.len());
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
                    format: limits.format,
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
