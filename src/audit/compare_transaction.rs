//! Compares one mint transaction of the ledger with its own bytes on chain: pure.

use std::collections::BTreeMap;

use solana_sdk::pubkey::Pubkey;
use uuid::Uuid;

use super::difference::Difference;
use super::ledger_transactions::LedgerTransaction;
use super::total::Total;
use crate::chain::ChainMint;
use crate::domain::{Hash32, MintNumber, MintTransactionState, ReadingState, hex, root_of};

/// All differences between the two.
pub(super) fn compare(
    booked: &LedgerTransaction,
    landed: &ChainMint,
    mint: &Pubkey,
) -> Vec<Difference> {
    let mut differences = Vec::new();
    if landed.failed {
        differences.push(Difference::FailedOnChain {
            signature: booked.signature,
            number: booked.number,
            slot: landed.slot,
            base_units: booked.worth(),
        });
        return differences;
    }
    compare_readings(booked, &mut differences);
    compare_amounts(booked, landed, mint, &mut differences);
    compare_memo(booked, landed, &mut differences);
    compare_slot(booked, landed, &mut differences);
    differences
}

/// Checks the ledger's own rows against each other.
fn compare_readings(booked: &LedgerTransaction, differences: &mut Vec<Difference>) {
    let signature = booked.signature;
    let expected = match booked.state {
        MintTransactionState::Finalized => ReadingState::Finalized,
        _ => ReadingState::Minted,
    };
    for reading in &booked.readings {
        let reading_id = reading.id;
        if let Err(reason) = &reading.content {
            differences.push(Difference::UnreadableReading {
                reading_id,
                signature,
                reason: reason.clone(),
            });
        }
        if reading.state != expected.as_str() {
            differences.push(Difference::WrongState {
                reading_id,
                signature,
                state: reading.state.clone(),
                transaction_state: booked.state,
            });
        }
        if !reading.live {
            differences.push(Difference::Released {
                reading_id,
                signature,
            });
        }
    }
    if Total::from(booked.base_units) != booked.worth() {
        differences.push(Difference::WrongSum {
            signature,
            number: booked.number,
            base_units_stored: booked.base_units,
            base_units_readings: booked.worth(),
        });
    }
}

/// Sums that one token account is owed and has received.
#[derive(Default)]
struct Account {
    wallet: Option<Pubkey>,
    readings: Vec<Uuid>,
    owed: Total,
    received: Total,
}

/// Compares wallet by wallet: several readings of one wallet are one payment.
fn compare_amounts(
    booked: &LedgerTransaction,
    landed: &ChainMint,
    mint: &Pubkey,
    differences: &mut Vec<Difference>,
) {
    let mut wallets: BTreeMap<Pubkey, Account> = BTreeMap::new();
    for reading in &booked.readings {
        if let Ok(content) = &reading.content {
            let account = wallets.entry(content.wallet.pubkey()).or_default();
            account.readings.push(reading.id);
            account.owed += content.base_units.into();
        }
    }
    let mut accounts: BTreeMap<Pubkey, Account> = BTreeMap::new();
    for reading in &booked.readings {
        if let Ok(content) = &reading.content
            && let Some(mut account) = wallets.remove(&content.wallet.pubkey())
        {
            account.wallet = Some(content.wallet.pubkey());
            accounts.insert(content.wallet.token_account(mint), account);
        }
    }
    for (token_account, base_units) in &landed.payments {
        accounts.entry(*token_account).or_default().received += (*base_units).into();
    }
    for (token_account, account) in accounts {
        let owner = landed
            .owners
            .iter()
            .find(|(owned, _)| *owned == token_account)
            .map(|(_, owner)| *owner);
        if let (Some(wallet), Some(owner)) = (account.wallet, owner)
            && wallet != owner
            && account.received > Total::default()
        {
            differences.push(Difference::WrongOwner {
                signature: booked.signature,
                token_account,
                wallet,
                owner,
                readings: account.readings.clone(),
            });
        }
        if account.owed != account.received {
            differences.push(Difference::WrongAmount {
                signature: booked.signature,
                token_account,
                wallet: account.wallet,
                readings: account.readings,
                base_units_ledger: account.owed,
                base_units_chain: account.received,
            });
        }
    }
}

/// The memo was signed with the transaction, so it identifies the readings that were meant, regardless of the ledger's rows.
fn compare_memo(booked: &LedgerTransaction, landed: &ChainMint, differences: &mut Vec<Difference>) {
    let memo = landed
        .memo
        .filter(|memo| MintNumber::try_from(booked.number) == Ok(memo.number()));
    let Some(memo) = memo else {
        differences.push(Difference::WrongMemo {
            signature: booked.signature,
            number: booked.number,
            memo: landed.raw_memo.clone(),
        });
        return;
    };
    let mut leaves: Vec<(Uuid, Hash32)> = booked
        .readings
        .iter()
        .filter_map(|reading| {
            let content = reading.content.as_ref().ok()?;
            Some((reading.id, content.leaf_hash))
        })
        .collect();
    let recomputed = root_of(&mut leaves);
    // The stored root must agree as well: receipts are made from it.
    let stored_differs = booked.merkle_root != memo.root();
    if recomputed != memo.root() || stored_differs {
        let root_ledger = if recomputed == memo.root() {
            hex(&booked.merkle_root)
        } else {
            hex(&recomputed)
        };
        differences.push(Difference::WrongRoot {
            signature: booked.signature,
            number: booked.number,
            readings: booked.readings.iter().map(|reading| reading.id).collect(),
            root_ledger,
            root_chain: hex(&memo.root()),
        });
    }
}

/// A confirmed transaction may land in another slot after a fork; the ledger stores the slot again at finality.
fn compare_slot(booked: &LedgerTransaction, landed: &ChainMint, differences: &mut Vec<Difference>) {
    if booked.state == MintTransactionState::Finalized
        && let Some(slot) = booked.slot
        && slot != landed.slot
    {
        differences.push(Difference::WrongSlot {
            signature: booked.signature,
            number: booked.number,
            slot_ledger: slot,
            slot_chain: landed.slot,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::ledger_transactions::{LedgerReading, ReadingContent};
    use crate::audit::unreadable::{ReadingPart, UnreadableReading};
    use crate::domain::{BaseUnits, Memo, TxSignature, Wallet};

    struct Case {
        mint: Pubkey,
        booked: LedgerTransaction,
        landed: ChainMint,
    }

    /// Three readings of two wallets, paid correctly.
    fn paid() -> Case {
        let mint = Pubkey::new_unique();
        let wallets = [1, 2].map(|byte| Wallet::from_stored([byte; 32]));
        let reading = |id: u8, wallet: Wallet, base_units: u64| LedgerReading {
            id: Uuid::from_u128(id.into()),
            state: "finalized".to_owned(),
            live: true,
            content: Ok(ReadingContent {
                wallet,
                base_units: BaseUnits::new(base_units),
                leaf_hash: [id; 32],
            }),
        };
        let readings = vec![
            reading(1, wallets[0], 100),
            reading(2, wallets[1], 20),
            reading(3, wallets[0], 3),
        ];
        let mut leaves = [1_u8, 2, 3].map(|id| (Uuid::from_u128(id.into()), [id; 32]));
        let root = root_of(&mut leaves);
        let memo = Memo::new(MintNumber::try_from(7_u64).unwrap(), root);
        let signature = TxSignature::from_bytes([9; 64]);
        Case {
            mint,
            booked: LedgerTransaction {
                number: 7,
                signature,
                state: MintTransactionState::Finalized,
                slot: Some(40),
                base_units: BaseUnits::new(123),
                merkle_root: root.to_vec(),
                readings,
            },
            landed: ChainMint {
                signature,
                slot: 40,
                block_time: None,
                failed: false,
                memo: Some(memo),
                raw_memo: Some(memo.encode()),
                payments: vec![
                    (wallets[0].token_account(&mint), BaseUnits::new(103)),
                    (wallets[1].token_account(&mint), BaseUnits::new(20)),
                ],
                owners: wallets
                    .map(|wallet| (wallet.token_account(&mint), wallet.pubkey()))
                    .to_vec(),
                fee_lamports: 5_000,
            },
        }
    }

    fn content(case: &mut Case, index: usize) -> &mut ReadingContent {
        case.booked.readings[index].content.as_mut().unwrap()
    }

    /// Kinds of the differences, in the order in which they are found.
    fn kinds_after(change: impl FnOnce(&mut Case)) -> Vec<String> {
        let mut case = paid();
        change(&mut case);
        compare(&case.booked, &case.landed, &case.mint)
            .iter()
            .map(|difference| {
                let json = serde_json::to_value(difference).unwrap();
                json["kind"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    #[test]
    fn a_correct_payment_is_not_a_difference() {
        assert_eq!(kinds_after(|_| {}), [""; 0]);
        // One payment or several to one account: the sum counts.
        let split = |case: &mut Case| {
            let (account, _) = case.landed.payments[0];
            case.landed.payments[0].1 = BaseUnits::new(100);
            case.landed.payments.push((account, BaseUnits::new(3)));
        };
        assert_eq!(kinds_after(split), [""; 0]);
        let confirmed = |case: &mut Case| {
            case.booked.state = MintTransactionState::Confirmed;
            for reading in &mut case.booked.readings {
                reading.state = "minted".to_owned();
            }
        };
        assert_eq!(kinds_after(confirmed), [""; 0]);
    }

    #[test]
    fn every_change_is_reported() {
        type Change = fn(&mut Case);
        let cases: [(Change, &[&str]); 18] = [
            (
                |case| case.landed.owners[1].1 = Pubkey::from([9; 32]),
                &["wrong_owner"],
            ),
            (
                // The amount goes into the leaf too; the leaf is not recomputed in this test.
                |case| content(case, 1).base_units = BaseUnits::new(21),
                &["wrong_sum", "wrong_amount"],
            ),
            (|case| content(case, 1).leaf_hash = [8; 32], &["wrong_root"]),
            (
                |case| content(case, 1).wallet = Wallet::from_stored([3; 32]),
                &["wrong_amount", "wrong_amount"],
            ),
            (
                |case| drop(case.booked.readings.remove(1)),
                &["wrong_sum", "wrong_amount", "wrong_root"],
            ),
            (
                |case| case.booked.readings.clear(),
                &["wrong_sum", "wrong_amount", "wrong_amount", "wrong_root"],
            ),
            (
                |case| {
                    case.booked.readings[0].content =
                        Err(UnreadableReading::Missing(ReadingPart::Salt))
                },
                &[
                    "unreadable_reading",
                    "wrong_sum",
                    "wrong_amount",
                    "wrong_root",
                ],
            ),
            (
                |case| case.booked.base_units = BaseUnits::new(124),
                &["wrong_sum"],
            ),
            (|case| case.booked.merkle_root[0] ^= 1, &["wrong_root"]),
            (|case| case.booked.merkle_root.truncate(31), &["wrong_root"]),
            (|case| case.booked.number = 8, &["wrong_memo"]),
            (|case| case.booked.number = -7, &["wrong_memo"]),
            (|case| case.booked.number = 7 + (1 << 48), &["wrong_memo"]),
            (|case| case.booked.slot = Some(41), &["wrong_slot"]),
            (|case| case.landed.memo = None, &["wrong_memo"]),
            (
                |case| case.booked.readings[2].state = "submitted".to_owned(),
                &["wrong_state"],
            ),
            (
                |case| case.booked.readings[2].state = "paid".to_owned(),
                &["wrong_state"],
            ),
            (|case| case.booked.readings[2].live = false, &["released"]),
        ];
        for (index, (change, expected)) in cases.into_iter().enumerate() {
            assert_eq!(kinds_after(change), expected, "case {index}");
        }
    }

    #[test]
    fn a_transaction_that_failed_paid_nothing() {
        let failed = |case: &mut Case| {
            case.landed.failed = true;
            case.landed.payments.clear();
        };
        assert_eq!(kinds_after(failed), ["failed_on_chain"]);
    }

    #[test]
    fn a_wrong_amount_names_the_wallet_its_readings_and_both_sums() {
        let mut case = paid();
        content(&mut case, 0).base_units = BaseUnits::new(101);
        case.booked.base_units = BaseUnits::new(124);
        let differences = compare(&case.booked, &case.landed, &case.mint);
        let wallet = Wallet::from_stored([1; 32]);
        assert_eq!(
            differences,
            [Difference::WrongAmount {
                signature: case.booked.signature,
                token_account: wallet.token_account(&case.mint),
                wallet: Some(wallet.pubkey()),
                readings: vec![Uuid::from_u128(1), Uuid::from_u128(3)],
                base_units_ledger: Total::new(104),
                base_units_chain: Total::new(103),
            }]
        );
    }
}
