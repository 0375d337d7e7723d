//! The audit names every manual change of the ledger's tables.

use serde_json::Value;
use sqlx::AssertSqlSafe;

use crate::support::{Grid, Meter};

/// Two wallets with four finalized readings in at least two transactions, one reading that was never minted, and a copy of
/// every table to go back to.
async fn settled() -> (Grid, Vec<Meter>) {
    let mut grid = Grid::start().await;
    let meters = vec![grid.meter().await, grid.meter().await];
    for (round, kwh) in ["1", "2"].into_iter().enumerate() {
        for meter in &meters {
            meter.report(kwh).await;
        }
        grid.until_count("finalized", 2 * (round as i64 + 1)).await;
    }
    sqlx::query("UPDATE settings SET auto_mint_enabled = FALSE")
        .execute(&grid.pool)
        .await
        .unwrap();
    grid.stop().await;
    grid.serve().await;
    let unminted = meters[0].next_submission("4");
    grid.user("prosumer")
        .post("/api/meters/submit-reading", &unminted)
        .await
        .ok();
    grid.stop().await;
    for table in TABLES {
        run(
            &grid,
            &format!("CREATE TABLE {table}_before AS TABLE {table}"),
        )
        .await;
    }
    grid.audit_holds().await;
    (grid, meters)
}

/// In the order in which rows can be inserted.
const TABLES: [&str; 4] = [
    "meters",
    "readings",
    "mint_transactions",
    "mint_transaction_readings",
];

async fn restore(grid: &Grid) {
    let mut statements = "SET session_replication_role = replica;".to_owned();
    for table in TABLES.iter().rev() {
        statements += &format!("DELETE FROM {table};");
    }
    for table in TABLES {
        statements +=
            &format!("INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM {table}_before;");
    }
    statements += "SET session_replication_role = DEFAULT";
    run(grid, &statements).await;
}

async fn run(grid: &Grid, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(&grid.pool)
        .await
        .unwrap_or_else(|error| panic!("{error} in {statements}"));
}

fn kinds(report: &Value) -> Vec<String> {
    let differences = report["differences"].as_array().unwrap();
    differences
        .iter()
        .map(|difference| difference["kind"].as_str().unwrap().to_owned())
        .collect()
}

/// Each corruption of the tables, and the kinds of difference that the audit reports.
const CORRUPTIONS: &[(&str, &[&str])] = &[
    // The chain's side is right, the ledger's row is not.
    (
        "UPDATE mint_transactions SET signature = sha512('another') WHERE number = (SELECT min(number) FROM mint_transactions)",
        &["not_on_chain", "unknown_mint"],
    ),
    (
        "UPDATE mint_transactions SET merkle_root = sha256('another')",
        &["wrong_root"],
    ),
    (
        "UPDATE mint_transactions SET base_units = base_units - 1",
        &["wrong_sum"],
    ),
    (
        "SET session_replication_role = replica;
         UPDATE mint_transactions SET number = number + 1000;
         UPDATE mint_transaction_readings SET transaction = transaction + 1000;
         SET session_replication_role = DEFAULT",
        &["wrong_memo"],
    ),
    // No number of a mint transaction: beyond 48 bits, or negative.
    (
        "SET session_replication_role = replica;
         UPDATE mint_transactions SET number = number + 281474976710656;
         UPDATE mint_transaction_readings SET transaction = transaction + 281474976710656;
         SET session_replication_role = DEFAULT",
        &["wrong_memo"],
    ),
    (
        "SET session_replication_role = replica;
         UPDATE mint_transactions SET number = -number;
         UPDATE mint_transaction_readings SET transaction = -transaction;
         SET session_replication_role = DEFAULT",
        &["wrong_memo"],
    ),
    (
        "UPDATE mint_transactions SET state = 'dead'",
        &["dead_but_landed", "not_paid"],
    ),
    ("UPDATE mint_transactions SET slot = slot - 1", &["wrong_slot"]),
    ("UPDATE mint_transactions SET slot = -1 - slot", &["wrong_slot"]),
    // What was paid is described differently.
    (
        "UPDATE meters SET serial = 'x' || serial",
        &["wrong_root"],
    ),
    (
        "UPDATE readings SET interval_end = interval_end - INTERVAL '1 second' WHERE state = 'finalized'",
        &["wrong_root"],
    ),
    // Energy moved from one reading of a wallet to another one in another transaction.
    (
        "UPDATE readings SET base_units = 3000000000 - base_units, kwh = 3 - kwh WHERE state = 'finalized'",
        &["wrong_amount", "wrong_root", "wrong_sum"],
    ),
    (
        "UPDATE readings SET wallet = (SELECT wallet FROM meters ORDER BY wallet LIMIT 1) WHERE state = 'finalized'",
        &["wrong_amount", "wrong_root"],
    ),
    // Readings added or removed.
    (
        "SET session_replication_role = replica;
         DELETE FROM mint_transaction_readings WHERE reading = (SELECT id FROM readings WHERE state = 'finalized' LIMIT 1);
         DELETE FROM readings WHERE state = 'finalized' AND id NOT IN (SELECT reading FROM mint_transaction_readings);
         SET session_replication_role = DEFAULT",
        &["wrong_amount", "wrong_root", "wrong_sum", "sums_differ"],
    ),
    (
        "UPDATE readings SET state = 'minted' WHERE state = 'pending'",
        &["not_paid"],
    ),
    (
        "INSERT INTO mint_transaction_readings (transaction, reading)
         SELECT (SELECT max(number) FROM mint_transactions), id FROM readings WHERE state = 'pending'",
        &["wrong_state", "wrong_amount", "wrong_root", "wrong_sum"],
    ),
    (
        "INSERT INTO mint_transaction_readings (transaction, reading, live)
         SELECT mint_transaction.number, link.reading, FALSE
         FROM mint_transactions AS mint_transaction, mint_transaction_readings AS link
         WHERE mint_transaction.number <> link.transaction
         LIMIT 1",
        &["paid_twice", "released", "wrong_root"],
    ),
    ("UPDATE readings SET state = 'failed' WHERE state = 'finalized'", &["wrong_state"]),
    // Landed, but the ledger would pay its readings again.
    (
        "UPDATE mint_transactions SET state = 'recorded';
         UPDATE mint_transaction_readings SET live = FALSE;
         UPDATE readings SET state = 'pending'",
        &["released"],
    ),
    (
        "UPDATE mint_transactions SET state = 'recorded';
         UPDATE readings SET state = 'pending'",
        &["wrong_state"],
    ),
    // It would never be paid.
    (
        "UPDATE readings SET state = 'submitted' WHERE state = 'pending'",
        &["stranded"],
    ),
    (
        "UPDATE readings SET state = 'quarantined' WHERE state = 'pending'",
        &["stranded"],
    ),
    (
        "INSERT INTO mint_transactions
             (number, signature, wire, merkle_root, base_units, blockhash, blockhash_slot, last_valid_block_height,
              endpoint, state, fee_lamports)
         VALUES (999, sha512('never sent'), '', sha256(''), 1, 'h', 1, 151, 'rpc-1', 'dead', 5000);
         INSERT INTO mint_transaction_readings (transaction, reading)
         SELECT 999, id FROM readings WHERE state = 'pending'",
        &["wrong_state"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_manual_change_is_reported() {
    let (grid, _) = settled().await;
    let mut missed = Vec::new();
    for (corruption, expected) in CORRUPTIONS {
        run(&grid, corruption).await;
        let report = grid.audit().await;
        let found = kinds(&report);
        for kind in *expected {
            if !found.iter().any(|found| found == kind) {
                missed.push(format!("{kind} not among {found:?} after {corruption}"));
            }
        }
        for difference in report["differences"].as_array().unwrap() {
            assert!(difference["message"].is_string(), "{difference}");
        }
        restore(&grid).await;
    }
    assert!(missed.is_empty(), "{missed:#?}");
    grid.audit_holds().await;
}
