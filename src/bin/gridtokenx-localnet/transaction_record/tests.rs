use super::*;
use solana_sdk::instruction::Instruction;
use solana_sdk::message::{Message, VersionedMessage, v1};
use solana_sdk::signature::Signature;

fn balance(account_index: u8, mint: Pubkey, amount: u64) -> TransactionTokenBalance {
    TransactionTokenBalance {
        account_index,
        mint: mint.to_string(),
        ui_token_amount: token_amount_to_ui_amount_v3(
            amount,
            &SplTokenAdditionalDataV2::with_decimals(9),
        ),
        owner: Pubkey::new_from_array([7; 32]).to_string(),
        program_id: spl_token_interface::ID.to_string(),
    }
}

fn transaction(keys: Vec<Pubkey>, meta: TransactionStatusMeta) -> TransactionWithStatusMeta {
    TransactionWithStatusMeta {
        slot: 31,
        transaction: VersionedTransaction {
            signatures: vec![Signature::from([3; 64])],
            message: VersionedMessage::Legacy(Message {
                account_keys: keys,
                ..Message::default()
            }),
        },
        meta,
    }
}

#[test]
fn a_transaction_is_decoded_as_it_was_encoded() {
    let payer = Pubkey::new_from_array([1; 32]);
    let mint = Pubkey::new_from_array([2; 32]);
    let program = spl_token_interface::ID;
    let original = transaction(
        vec![payer, mint, program],
        TransactionStatusMeta {
            status: Ok(()),
            fee: 5_000,
            pre_balances: vec![10_000, 1, 1],
            post_balances: vec![5_000, 1, 1],
            log_messages: Some(vec![
                format!("Program {program} invoke [1]"),
                "Program log: Memo (len 5): \"g1abc\"".to_owned(),
                format!("Program {program} consumed 119 of 199881 compute units"),
                format!("Program {program} success"),
            ]),
            // Account 1 is created, 2 grows, 3 is closed.
            pre_token_balances: Some(vec![balance(2, mint, 5), balance(3, mint, 9)]),
            post_token_balances: Some(vec![balance(1, mint, 7), balance(2, mint, u64::MAX)]),
            compute_units_consumed: Some(119),
            ..TransactionStatusMeta::default()
        },
    );
    let bytes = encode(&original).unwrap();
    let back = decode(&bytes).unwrap();
    assert_eq!(back.slot, original.slot);
    assert_eq!(back.transaction, original.transaction);
    assert_eq!(
        back.meta,
        TransactionStatusMeta {
            rewards: Some(Vec::new()),
            ..original.meta
        }
    );
}

/// A transaction of version 1 with a memo, and a record of it.
fn version_1() -> TransactionWithStatusMeta {
    let memo = Instruction::new_with_bytes(spl_memo_interface::v3::ID, b"g1abc", Vec::new());
    let message = v1::Message::try_compile_with_config(
        &Pubkey::new_from_array([1; 32]),
        &[memo],
        solana_sdk::hash::Hash::new_from_array([4; 32]),
        v1::TransactionConfig::empty()
            .with_compute_unit_limit(7_000)
            .with_priority_fee(u64::from(u32::MAX) + 1),
    )
    .unwrap();
    let mut transaction = transaction(Vec::new(), TransactionStatusMeta::default());
    transaction.transaction.message = VersionedMessage::V1(message);
    transaction
}

#[test]
fn a_transaction_of_version_1_is_stored_as_its_bytes_on_the_wire() {
    let original = version_1();
    let record = encode(&original).unwrap();
    let wire = wincode::serialize(&original.transaction).unwrap();
    assert!(record.windows(wire.len()).any(|part| part == wire));
    assert_eq!(decode(&record).unwrap().transaction, original.transaction);
    let listed = decode_listed(&record).unwrap().transaction;
    assert_eq!(listed.signatures, original.transaction.signatures);
    assert_eq!(
        listed.message.instructions(),
        original.transaction.message.instructions()
    );
}

#[test]
fn records_without_a_version_are_decoded_too() {
    let legacy = transaction(
        vec![Pubkey::new_from_array([1; 32])],
        TransactionStatusMeta::default(),
    );
    for original in [legacy, version_1()] {
        let signed_bytes = bincode::serialize(&original.transaction).unwrap();
        let head = Head {
            slot: 300,
            status: Ok(()),
            loaded_addresses: LoadedAddresses::default(),
            signed_bytes: &signed_bytes,
        };
        let details = Details {
            fee: 5_000,
            pre_balances: Vec::new(),
            post_balances: Vec::new(),
            inner_instructions: None,
            log_lines: None,
            token_balances: None,
            return_data: None,
            compute_units_consumed: None,
            cost_units: None,
        };
        let record = encoding().serialize(&(head, details)).unwrap();
        for back in [decode(&record).unwrap(), decode_listed(&record).unwrap()] {
            assert_eq!(back.slot, 300);
            assert_eq!(back.transaction.signatures, original.transaction.signatures);
            assert_eq!(
                back.transaction.message.instructions(),
                original.transaction.message.instructions()
            );
        }
    }
}

#[test]
fn a_record_of_a_later_version_is_refused() {
    let error = decode(&[VERSION_MARKER, 3, 0]).err().unwrap().to_string();
    assert!(error.contains("version 3"), "{error}");
}

#[test]
fn a_failed_transaction_is_decoded_with_its_error() {
    let original = transaction(
        vec![Pubkey::new_from_array([1; 32])],
        TransactionStatusMeta {
            status: Err(TransactionError::InsufficientFundsForFee),
            ..TransactionStatusMeta::default()
        },
    );
    let bytes = encode(&original).unwrap();
    for back in [decode(&bytes).unwrap(), decode_listed(&bytes).unwrap()] {
        assert_eq!(back.slot, 31);
        assert_eq!(
            back.meta.status,
            Err(TransactionError::InsufficientFundsForFee)
        );
    }
}
