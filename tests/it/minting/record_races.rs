//! Several workers record the same readings at the same time: one succeeds, the others have to load them again.

use std::time::Duration;

use gridtokenx::chain::RecentBlockhash;
use gridtokenx::config::Config;
use gridtokenx::domain::{BaseUnits, TxSignature, Wallet};
use gridtokenx::ledger::{
    AfterRefusal, NewMintTransaction, PackedReading, Payee, RecordError, Refusal, RefusalReason,
    RetrySchedule, record, refuse_pending, reserve_numbers,
};
use serde_json::{Value, json};
use solana_sdk::hash::Hash;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::transaction::TransactionError;
use uuid::Uuid;

use crate::support::Grid;
use crate::support::ledger::until_history_scanned;

const LIMIT: Duration = Duration::from_secs(30);

async fn transaction_of(grid: &Grid, readings: &[Uuid]) -> NewMintTransaction {
    let number = reserve_numbers(&grid.pool, 1).await.unwrap()[0];
    let mut signature = [0; 64];
    signature[..8].copy_from_slice(&number.get().to_be_bytes());
    NewMintTransaction {
        number,
        signature: TxSignature::from_bytes(signature),
        signed_bytes: vec![1],
        merkle_root: [0; 32],
        base_units: BaseUnits::new(1),
        blockhash: RecentBlockhash {
            hash: Hash::default(),
            slot: 1,
            last_valid_block_height: 151,
        },
        endpoint: "rpc-1".to_owned(),
        account_creations: 0,
        fee_lamports: 5_000,
        priority_fee_lamports: 0,
        token_account_rent_lamports: 1_488_440,
        readings: readings
            .iter()
            .map(|id| PackedReading {
                id: *id,
                revision: 0,
            })
            .collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_records_of_the_same_readings_in_any_order_do_not_deadlock() {
    const ROUNDS: usize = 3;
    const READINGS: usize = 60;
    let mut grid = Grid::start_with(&[("TOKENIZATION_AUTO_MINT_ENABLED", "false")]).await;
    let meter = grid.meter().await;
    let submissions: Vec<Value> = (0..ROUNDS * READINGS)
        .map(|_| meter.next_submission("0.1"))
        .collect();
    let readings = json!({ "readings": submissions });
    let api = &meter.api;
    api.post("/api/meters/submit-readings", &readings)
        .await
        .ok();
    until_history_scanned(&grid).await;
    grid.stop().await;
    // Slow enough that all of them overlap.
    sqlx::raw_sql(
        "CREATE FUNCTION dawdle() RETURNS TRIGGER LANGUAGE plpgsql
         AS $$ BEGIN PERFORM pg_sleep(0.002); RETURN NEW; END $$;
         CREATE TRIGGER dawdle BEFORE INSERT ON mint_transaction_readings
         FOR EACH ROW EXECUTE FUNCTION dawdle()",
    )
    .execute(&grid.pool)
    .await
    .unwrap();
    let all: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM readings ORDER BY id")
        .fetch_all(&grid.pool)
        .await
        .unwrap();
    for readings in all.chunks(READINGS) {
        let mut rivals = tokio::task::JoinSet::new();
        for rival in 0..8 {
            let mut readings = readings.to_vec();
            readings.rotate_left(rival * 7);
            if rival % 2 == 1 {
                readings.reverse();
            }
            let (pool, new) = (grid.pool.clone(), transaction_of(&grid, &readings).await);
            rivals.spawn(async move { record(&pool, LIMIT, &new).await });
        }
        let mut recorded = 0;
        while let Some(outcome) = rivals.join_next().await {
            match outcome.unwrap() {
                Ok(()) => recorded += 1,
                Err(RecordError::Stale) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(recorded, 1);
    }
    assert_eq!(grid.count("submitted").await, all.len() as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_what_a_reading_was_before_changes_nothing() {
    let mut grid = Grid::start_with(&[("TOKENIZATION_AUTO_MINT_ENABLED", "false")]).await;
    let meter = grid.meter().await;
    let reading: Uuid = meter.report("0.1").await.parse().unwrap();
    grid.stop().await;
    let config = Config::from_flags(["--tokenization-max-retry-attempts=3"]).unwrap();
    let schedule = RetrySchedule::new(config.tokenization);
    let permanent = RefusalReason::AboveTransactionLimit {
        base_units: BaseUnits::new(2),
        limit: BaseUnits::new(1),
    };
    let temporary = RefusalReason::Simulation {
        payee: Payee::of(Wallet::from_stored([1; 32]), &Pubkey::new_unique()),
        error: TransactionError::AccountNotFound.into(),
    };
    let refusal = |reason: &RefusalReason| Refusal {
        reading,
        reason: reason.clone(),
    };
    // An admin gives it another wallet while a batch checks the old one's account.
    sqlx::query("UPDATE readings SET revision = revision + 1")
        .execute(&grid.pool)
        .await
        .unwrap();
    for reason in [&permanent, &temporary] {
        let after = refuse_pending(&grid.pool, &schedule, &refusal(reason), 0)
            .await
            .unwrap();
        assert_eq!(after, AfterRefusal::Superseded);
    }
    assert_eq!(attempts(&grid).await, 0);
    assert_eq!(grid.count("pending").await, 1);

    // Two batches that both found it refused use one attempt.
    let refused = refusal(&temporary);
    let (one, other) = tokio::join!(
        refuse_pending(&grid.pool, &schedule, &refused, 1),
        refuse_pending(&grid.pool, &schedule, &refused, 1),
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_ne!(
        one == AfterRefusal::Superseded,
        other == AfterRefusal::Superseded
    );
    assert_eq!(attempts(&grid).await, 1);
}

async fn attempts(grid: &Grid) -> i32 {
    sqlx::query_scalar("SELECT attempts FROM readings")
        .fetch_one(&grid.pool)
        .await
        .unwrap()
}
