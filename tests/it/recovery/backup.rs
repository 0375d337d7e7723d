//! A backup that is restored into another cluster: what it lacks is found on chain, and nothing is paid a second time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use chrono::{DateTime, Utc};
use gridtokenx::domain::MeterSerial;
use gridtokenx::embedded::{PostgresCluster, PostgresOptions};
use serde_json::{Value, json};
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signature;
use spl_associated_token_account_interface::address::get_associated_token_address;
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::audit::{audit_with, refused};
use crate::support::authority::Authority;
use crate::support::ledger::{breaker, until_breaker};
use crate::support::localnet::TempDir;
use crate::support::readings::count;
use crate::support::stored_events::events;
use crate::support::world::world;
use crate::support::{Api, Grid, Meter, backup, eventually};

const SUBMIT: &str = "/api/meters/submit-reading";
const TRIGGER: &str = "/api/admin/tokenization/trigger-batch";
const TOGGLE: &str = "/api/admin/tokenization/toggle-auto-mint";
const PERCENTAGE: &str = "/api/admin/tokenization/auto-mint-percentage";

/// Half of the meters are rolled out; what the others report is held.
const ROLL_OUT: (&str, &str) = ("TOKENIZATION_AUTO_MINT_PERCENTAGE", "50");
const ROLLED_OUT: Range<u8> = 0..50;
const HELD: Range<u8> = 50..100;
/// A transaction that pays readings of before and of after the backup can be adopted by neither database.
const ONE_A_TRANSACTION: (&str, &str) = ("BLOCKCHAIN_MAX_BATCH_SIZE", "1");

/// Pause between two reports of a held meter, and of one that is not held: longer for the second, because each mint that the
/// backup lacks takes its own command.
const PACE: Duration = Duration::from_millis(200);
const PACE_OF_MINTS: Duration = Duration::from_millis(700);
const BASE_UNITS_OF_A_READING: usize = 1_000_000_000;

/// A new meter in this range of roll-out buckets.
async fn meter_in(user: &Api, buckets: Range<u8>) -> Meter {
    loop {
        let meter = user.meter().await;
        let serial = MeterSerial::parse(&meter.serial).unwrap();
        if buckets.contains(&serial.rollout_bucket()) {
            return meter;
        }
    }
}

/// Meters that report until they are stopped.
struct Load {
    stop: CancellationToken,
    reporting: JoinSet<(Meter, Vec<Value>)>,
}

impl Load {
    fn of(meters: impl IntoIterator<Item = Meter>, pace: Duration) -> Load {
        let stop = CancellationToken::new();
        let mut reporting = JoinSet::new();
        for meter in meters {
            reporting.spawn(report_until(stop.clone(), meter, pace));
        }
        Load { stop, reporting }
    }

    /// The meters, and what each has reported.
    async fn stop(self) -> Vec<(Meter, Vec<Value>)> {
        self.stop.cancel();
        self.reporting.join_all().await
    }
}

async fn report_until(
    stop: CancellationToken,
    meter: Meter,
    pace: Duration,
) -> (Meter, Vec<Value>) {
    let mut pace = tokio::time::interval(pace);
    let mut submissions = Vec::new();
    while stop.run_until_cancelled(pace.tick()).await.is_some() {
        let submission = meter.next_submission("1");
        meter.api.post(SUBMIT, &submission).await.ok();
        submissions.push(submission);
    }
    (meter, submissions)
}

/// The dump in its own cluster, and a grid on it with the keys, which are kept beside a backup.
async fn restore(original: &mut Grid, dump: &Path) -> (PostgresCluster, Grid) {
    let cluster = PostgresCluster::start(PostgresOptions::ephemeral())
        .await
        .unwrap();
    let database_url = cluster.create_database("restored").await.unwrap();
    backup::restore(&cluster, &database_url, dump).await;
    let mut restored = Grid::on(&database_url, &original.rpc_url, &[]).await;
    std::mem::swap(&mut restored.data_dir, &mut original.data_dir);
    (cluster, restored)
}

/// Every mint transaction with its one reading, in the order of their numbers.
async fn mints(pool: &PgPool) -> Vec<(Signature, Uuid)> {
    let rows: Vec<(Vec<u8>, Uuid)> = sqlx::query_as(
        "SELECT signature, reading
         FROM mint_transactions
         JOIN mint_transaction_readings ON transaction = number
         ORDER BY number",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let signature = |bytes: Vec<u8>| Signature::try_from(bytes).unwrap();
    rows.into_iter()
        .map(|(bytes, reading)| (signature(bytes), reading))
        .collect()
}

/// Adds the intervals whose payment is final in this database, by wallet.
async fn add_paid(pool: &PgPool, paid: &mut BTreeMap<Vec<u8>, BTreeSet<DateTime<Utc>>>) {
    let rows: Vec<(Vec<u8>, DateTime<Utc>)> =
        sqlx::query_as("SELECT wallet, interval_start FROM readings WHERE state = 'finalized'")
            .fetch_all(pool)
            .await
            .unwrap();
    for (wallet, start) in rows {
        paid.entry(wallet).or_default().insert(start);
    }
}

/// Asserts that each interval was paid once, counted over both databases.
async fn nothing_was_paid_twice(original: &Grid, restored: &Grid, mint: &Pubkey) {
    let mut paid = BTreeMap::new();
    add_paid(&original.pool, &mut paid).await;
    add_paid(&restored.pool, &mut paid).await;
    let rpc =
        RpcClient::new_with_commitment(restored.rpc_url.clone(), CommitmentConfig::finalized());
    for (wallet, intervals) in paid {
        let wallet = Pubkey::try_from(wallet).unwrap();
        let account = get_associated_token_address(&wallet, mint);
        let balance = rpc.get_token_account_balance(&account).await.unwrap();
        let expected = intervals.len() * BASE_UNITS_OF_A_READING;
        assert_eq!(balance.amount, expected.to_string(), "{wallet}");
    }
}

/// The reason of each opening of the ledger breaker.
async fn reported_reasons(grid: &Grid) -> Vec<String> {
    let sent = events(grid, "AdminNotification").await;
    let reasons = sent
        .iter()
        .map(|event| event["error_reason"].as_str().unwrap().to_owned());
    reasons
        .filter(|reason| reason.starts_with("the ledger breaker is open"))
        .collect()
}

fn unknown_mints(report: &Value) -> HashSet<String> {
    let differences = report["differences"].as_array().unwrap().iter();
    differences
        .filter(|difference| difference["kind"] == "unknown_mint")
        .map(|difference| difference["signature"].as_str().unwrap().to_owned())
        .collect()
}

/// The report of the command; only after the last mint does the audit that follows hold.
fn stderr_of(output: Output) -> String {
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{stderr}");
    stderr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_taken_under_load_that_is_older_than_the_chain_pays_nothing_twice() {
    let mut original = Grid::start_with(&[ROLL_OUT, ONE_A_TRANSACTION]).await;
    let user = original.user("prosumer");
    let early = meter_in(&user, HELD).await;
    let first = early.next_submission("1");
    user.post(SUBMIT, &first).await.ok();
    early.report("1").await;
    early.report("1").await;

    let minted = Load::of([meter_in(&user, ROLLED_OUT).await], PACE_OF_MINTS);
    let held = Load::of(
        [
            meter_in(&user, HELD).await,
            meter_in(&user, HELD).await,
            meter_in(&user, HELD).await,
        ],
        PACE,
    );
    original
        .until("some are final", async || {
            original.count("finalized").await >= 2
        })
        .await;
    let accepted = "SELECT count(*) FROM readings";
    let folder = TempDir::new("backup");
    let dump = folder.path().join("dump");
    // A dump can take less time than the pause between two reports: then it is repeated.
    eventually("a reading is accepted during the dump", async || {
        let before = count(&original.pool, accepted).await;
        backup::dump(&world().cluster, &original.database_url, &dump).await;
        let after = count(&original.pool, accepted).await;
        (before < after).then_some(())
    })
    .await;

    // Readings that are pending in the backup are paid, and so are readings that the backup lacks.
    let dumped_at: DateTime<Utc> = sqlx::query_scalar("SELECT now()")
        .fetch_one(&original.pool)
        .await
        .unwrap();
    let triggered = json!({ "meter_id": early.serial });
    let triggered = original.admin().post(TRIGGER, &triggered).await.ok();
    assert_eq!(triggered["successful_mints"], 3, "{triggered}");
    original
        .until("some that were accepted later are final", async || {
            let later: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM readings WHERE state = 'finalized' AND accepted_at > $1",
            )
            .bind(dumped_at)
            .fetch_one(&original.pool)
            .await
            .unwrap();
            later >= 2
        })
        .await;
    let minted = minted.stop().await;
    let mut held = held.stop().await;
    let held_count: i64 = held
        .iter()
        .map(|(_, submissions)| submissions.len() as i64)
        .sum();
    original
        .until("all that is not held is final", async || {
            let finalized = original.count("finalized").await;
            finalized + held_count == count(&original.pool, accepted).await
        })
        .await;
    assert!(original.stop().await);

    let (cluster, mut restored) = restore(&mut original, &dump).await;
    let known: HashSet<Signature> = mints(&restored.pool)
        .await
        .into_iter()
        .map(|(signature, _)| signature)
        .collect();
    let readings: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM readings")
        .fetch_all(&restored.pool)
        .await
        .unwrap();
    let (adoptable, foreign): (Vec<_>, Vec<_>) = mints(&original.pool)
        .await
        .into_iter()
        .filter(|(signature, _)| !known.contains(signature))
        .partition(|(_, reading)| readings.contains(reading));
    assert!(adoptable.len() >= 3 && foreign.len() >= 2);
    let lacking: HashSet<String> = adoptable
        .iter()
        .chain(&foreign)
        .map(|(signature, _)| signature.to_string())
        .collect();

    // Readings are accepted, those of the backup are recognised as duplicates, and nothing is signed.
    restored.serve().await;
    let authority = Authority::of(&restored).await;
    let supply = authority.supply().await;
    let user = restored.user("prosumer");
    assert_eq!(user.post(SUBMIT, &first).await.ok()["duplicate"], true);
    let (_, submissions) = held.pop().unwrap();
    let again = json!({ "readings": submissions });
    let again = user.post("/api/meters/submit-readings", &again).await.ok();
    assert_eq!(again["rejected"], 0, "{again}");
    for status in ["accepted", "duplicates"] {
        assert!(again[status].as_u64().unwrap() > 0, "{again}");
    }
    let (meter, _) = minted.into_iter().next().unwrap();
    let meter = meter.at(&user);
    meter.report("1").await;
    until_breaker(&restored, "mismatch").await;
    let reasons = reported_reasons(&restored).await;
    assert_eq!(reasons.len(), 2, "{reasons:#?}");
    assert!(reasons[0].contains("the database was restored"));
    assert!(reasons[1].contains("LedgerMismatch"));
    restored
        .until("the minter has requested a signature and was refused", async || {
            let refused = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'MintReading' AND status = 'Failed'";
            count(&restored.pool, refused).await > 0
        })
        .await;
    let report = restored.audit().await;
    assert_eq!(report["ok"], false);
    assert_eq!(unknown_mints(&report), lacking, "{report:#}");
    assert_eq!(mints(&restored.pool).await.len(), known.len());
    assert_eq!(authority.supply().await, supply);

    // As docs/operations.md says.
    let admin = restored.admin();
    admin.post(TOGGLE, &json!({ "enabled": false })).await.ok();
    for (signature, _) in &adoptable {
        let adopted = audit_with(&restored, &["--adopt", &signature.to_string()]).await;
        let adopted = stderr_of(adopted);
        assert!(adopted.contains("it paid 1 readings"), "{adopted}");
    }
    let lost = foreign[0].0.to_string();
    let sentence = refused(&restored, &["--adopt", &lost]).await;
    assert!(sentence.contains("no pending readings"), "{sentence}");
    for (signature, _) in &foreign {
        assert_eq!(breaker(&restored).await.0, "mismatch");
        let signature = signature.to_string();
        let booked = [
            "--foreign",
            &signature,
            "its reading is lost with the backup",
        ];
        stderr_of(audit_with(&restored, &booked).await);
    }
    // By now no transaction that was signed before can still land.
    until_breaker(&restored, "closed").await;
    assert_eq!(authority.supply().await, supply);
    let report = restored.audit_holds().await;
    let listed = report["foreign"].as_array().unwrap().len();
    assert_eq!(listed, foreign.len());

    admin.post(TOGGLE, &json!({ "enabled": true })).await.ok();
    admin
        .post(PERCENTAGE, &json!({ "percentage": 100 }))
        .await
        .ok();
    meter.report("1").await;
    restored
        .until("all readings are final", async || {
            let waiting = "SELECT count(*) FROM readings WHERE state <> 'finalized'";
            count(&restored.pool, waiting).await == 0
        })
        .await;
    restored.audit_holds().await;
    nothing_was_paid_twice(&original, &restored, &authority.mint).await;
    assert!(restored.stop().await);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_backup_that_lacks_nothing_minting_resumes_automatically() {
    let mut original = Grid::start().await;
    let meter = original.meter().await;
    for _ in 0..5 {
        meter.report("1").await;
    }
    original.until_count("finalized", 5).await;
    let folder = TempDir::new("backup");
    let dump = folder.path().join("dump");
    backup::dump(&world().cluster, &original.database_url, &dump).await;
    assert!(original.stop().await);

    let (cluster, mut restored) = restore(&mut original, &dump).await;
    restored.serve().await;
    meter.at(&restored.user("prosumer")).report("1").await;
    restored.until_count("finalized", 6).await;
    let reasons = reported_reasons(&restored).await;
    assert_eq!(reasons.len(), 1, "{reasons:#?}");
    assert!(reasons[0].contains("the database was restored"));
    assert_eq!(breaker(&restored).await, ("closed".to_owned(), None));
    let report = restored.audit_holds().await;
    assert_eq!(report["foreign"], json!([]));
    let authority = Authority::of(&restored).await;
    nothing_was_paid_twice(&original, &restored, &authority.mint).await;
    assert!(restored.stop().await);
    cluster.stop().await;
}
