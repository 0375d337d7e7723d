//! Readings are paid in the newest format that the endpoint takes, at the promised cost, and a refusal of the format loses nothing.

use gridtokenx::chain::read_or_create_keypair;
use gridtokenx::domain::{TransactionFormat, signed_bytes};
use serde_json::{Value, json};
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_request::RpcRequest;
use solana_sdk::transaction::VersionedTransaction;

use crate::support::localnet::TempDir;
use crate::support::proxy::carried_transaction;
use crate::support::world::world;
use crate::support::{CallAction, Grid, Proxy, insert_backlog};

const FORMAT: &str = "BLOCKCHAIN_TRANSACTION_FORMAT";
const TRIGGER: &str = "/api/admin/tokenization/trigger-batch";
const LAMPORTS_PER_SIGNATURE: u64 = 5_000;

/// A mint transaction as the ledger holds it.
struct Booked {
    transaction: VersionedTransaction,
    format: TransactionFormat,
    bytes: usize,
    state: String,
    fee: u64,
    creations: i32,
    readings: u64,
}

impl Booked {
    fn signatures(&self) -> u64 {
        self.transaction.signatures.len() as u64
    }
}

/// Every mint transaction of the ledger, in order.
async fn booked(grid: &Grid) -> Vec<Booked> {
    let rows: Vec<(Vec<u8>, String, i64, i32, i64)> = sqlx::query_as(
        "SELECT wire, state, fee_lamports, account_creations,
                (SELECT count(*) FROM mint_transaction_readings WHERE transaction = number)
         FROM mint_transactions ORDER BY number",
    )
    .fetch_all(&grid.pool)
    .await
    .unwrap();
    rows.into_iter()
        .map(|(wire, state, fee, creations, readings)| Booked {
            transaction: signed_bytes::decode(&wire).unwrap(),
            format: signed_bytes::format_of(&wire),
            bytes: wire.len(),
            state,
            fee: fee as u64,
            creations,
            readings: readings as u64,
        })
        .collect()
}

async fn formats(grid: &Grid) -> Vec<TransactionFormat> {
    booked(grid)
        .await
        .iter()
        .map(|booked| booked.format)
        .collect()
}

/// The transaction as the chain shows it.
async fn on_chain(grid: &Grid, booked: &Booked) -> Value {
    let parameters = json!([
        booked.transaction.signatures[0].to_string(),
        { "encoding": "base64", "commitment": "confirmed", "maxSupportedTransactionVersion": 1 }
    ]);
    let found: Value = RpcClient::new(grid.rpc_url.clone())
        .send(RpcRequest::GetTransaction, parameters)
        .await
        .unwrap();
    assert_eq!(found["meta"]["err"], Value::Null, "{found}");
    found
}

async fn attempts(grid: &Grid) -> i64 {
    sqlx::query_scalar("SELECT sum(attempts)::BIGINT FROM readings")
        .fetch_one(&grid.pool)
        .await
        .unwrap()
}

async fn chain_status(grid: &Grid) -> Value {
    let status = grid.admin().get("/api/admin/tokenization/status").await;
    status.ok()["chain"].clone()
}

/// A second key pays the fees.
struct SecondKey(TempDir);

impl SecondKey {
    fn new() -> SecondKey {
        let dir = TempDir::new("fee-payer");
        read_or_create_keypair(&dir.path().join("key.json")).unwrap();
        SecondKey(dir)
    }

    fn path(&self) -> String {
        self.0.path().join("key.json").display().to_string()
    }
}

/// First payments, which create the accounts, and second ones.
async fn readings_are_paid(
    settings: &[(&'static str, &str)],
    format: TransactionFormat,
    keys: u64,
) {
    let mut grid = Grid::start_with(settings).await;
    let meters = [grid.meter().await, grid.meter().await, grid.meter().await];
    for round in 1..=2 {
        for meter in &meters {
            meter.report("1.5").await;
        }
        grid.until_count("finalized", 3 * round).await;
    }
    let all = booked(&grid).await;
    assert_eq!(all.iter().map(|booked| booked.creations).sum::<i32>(), 3);
    assert_eq!(all.last().unwrap().creations, 0);
    for booked in &all {
        assert_eq!((booked.format, booked.signatures()), (format, keys));
        let shown = on_chain(&grid, booked).await;
        let version = match format {
            TransactionFormat::Legacy => json!("legacy"),
            TransactionFormat::V1 => json!(1),
        };
        assert_eq!(shown["version"], version);
        assert_eq!(
            shown["meta"]["fee"], booked.fee,
            "the ledger's fee is the chain's"
        );
    }
    assert_eq!(attempts(&grid).await, 0);
    grid.audit_holds().await;
    grid.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v1_pays_with_one_key() {
    readings_are_paid(&[(FORMAT, "v1")], TransactionFormat::V1, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v1_pays_with_a_separate_fee_payer_and_a_priority_fee() {
    let second = SecondKey::new();
    let settings = [
        (FORMAT, "auto"),
        ("SOLANA_FEE_PAYER_PATH", &second.path()),
        ("BLOCKCHAIN_PRIORITY_FEE", "fixed:500000"),
    ];
    readings_are_paid(&settings, TransactionFormat::V1, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_pays_with_a_separate_fee_payer_and_a_priority_fee() {
    let second = SecondKey::new();
    let settings = [
        (FORMAT, "legacy"),
        ("SOLANA_FEE_PAYER_PATH", &second.path()),
        ("BLOCKCHAIN_PRIORITY_FEE", "fixed:500000"),
    ];
    readings_are_paid(&settings, TransactionFormat::Legacy, 2).await;
}

/// A backlog of wallets with accounts, in batches that are large enough: what a reading costs at most.
async fn a_full_transaction_costs(second_key: Option<&SecondKey>, wallets: usize, most: u64) {
    let path = second_key.map(SecondKey::path);
    let mut settings = vec![
        ("TOKENIZATION_AUTO_MINT_ENABLED", "false"),
        ("TOKENIZATION_BATCH_SIZE", "200"),
        ("BLOCKCHAIN_MAX_BATCH_SIZE", "200"),
        ("MINT_LINGER_MS", "1000"),
    ];
    settings.extend(path.as_deref().map(|path| ("SOLANA_FEE_PAYER_PATH", path)));
    let mut grid = Grid::start_with(&settings).await;
    insert_backlog(&grid.pool, wallets, 1).await;
    let trigger = async || grid.admin().post(TRIGGER, &json!({})).await.ok();
    let first = trigger().await;
    assert_eq!(first["successful_mints"], wallets, "{first:#}");
    // An hour later, for the same wallets.
    grid.execute(
        "INSERT INTO readings (id, meter, interval_start, interval_end, kwh, base_units, wallet, salt)
         SELECT gen_random_uuid(), meter, interval_start - INTERVAL '1 hour',
                interval_end - INTERVAL '1 hour', kwh, base_units, wallet,
                decode(md5(id::TEXT || 'second'), 'hex')
         FROM readings",
    )
    .await;
    let second = trigger().await;
    assert_eq!(second["successful_mints"], wallets, "{second:#}");

    let last = booked(&grid).await.pop().unwrap();
    assert_eq!(last.readings, wallets as u64, "all in one transaction");
    assert_eq!(last.format, TransactionFormat::V1);
    assert_eq!(last.fee, last.signatures() * LAMPORTS_PER_SIGNATURE);
    assert!(last.fee <= most * last.readings, "{} lamports", last.fee);
    assert!(last.bytes <= 4_096);
    let message = &last.transaction.message;
    assert_eq!(
        message.static_account_keys().len(),
        64,
        "no other wallet fits"
    );
    assert_eq!(on_chain(&grid, &last).await["meta"]["fee"], last.fee);
    grid.until_count("finalized", 2 * wallets as i64).await;
    grid.audit_holds().await;
    grid.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_wallets_share_the_fee_of_one_key() {
    a_full_transaction_costs(None, 60, 90).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_nine_wallets_share_the_fees_of_two_keys() {
    a_full_transaction_costs(Some(&SecondKey::new()), 59, 175).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_refuses_v1_gets_legacy_transactions() {
    let proxy = Proxy::start(world().rpc_url()).await;
    proxy.on_call(|_, _| CallAction::RefuseV1);
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let chain = chain_status(&grid).await;
    assert_eq!(chain["transaction_format"], "legacy", "{chain}");
    assert_eq!(chain["endpoints"][0]["takes_v1"], false);
    grid.meter().await.report("1").await;
    grid.until_count("finalized", 1).await;
    assert_eq!(formats(&grid).await, [TransactionFormat::Legacy]);
    grid.audit_holds().await;
    grid.stop().await;
}

/// The endpoint took v1, and from one moment on it does not: the batch that finds out is paid all the same, and without an attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_is_refused_from_now_on_loses_nothing() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let chain = chain_status(&grid).await;
    assert_eq!(chain["transaction_format"], "v1", "{chain}");
    assert_eq!(chain["endpoints"][0]["takes_v1"], true);
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_landed(1).await;

    proxy.on_call(|_, _| CallAction::RefuseV1);
    meter.report("2").await;
    grid.until_landed(2).await;
    let expected = [TransactionFormat::V1, TransactionFormat::Legacy];
    assert_eq!(formats(&grid).await, expected);
    assert_eq!(attempts(&grid).await, 0);
    assert_eq!(chain_status(&grid).await["transaction_format"], "legacy");
    grid.until_count("finalized", 2).await;
    grid.audit_holds().await;
    grid.stop().await;
}

/// The simulation passes and the send is refused, when the record exists already: it stays, and its reading is signed anew as legacy
/// only once the first transaction is proven dead. Other readings do not wait for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_transaction_whose_format_is_refused_is_signed_anew_only_on_proof() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let (first, second) = (grid.meter().await, grid.meter().await);
    proxy.on_call(|method, _| match method {
        "sendTransaction" => CallAction::RefuseV1,
        _ => CallAction::Forward,
    });
    first.report("1").await;
    grid.until("the refusal is noted", async || {
        chain_status(&grid).await["transaction_format"] == "legacy"
    })
    .await;
    assert_eq!(grid.count("submitted").await, 1);
    second.report("2").await;
    grid.until_landed(1).await;
    assert_eq!(grid.count("submitted").await, 1, "unknown is not dead");
    let expected = [TransactionFormat::V1, TransactionFormat::Legacy];
    assert_eq!(formats(&grid).await, expected);

    grid.until_count("finalized", 2).await;
    let all = booked(&grid).await;
    let states: Vec<(&str, TransactionFormat)> = all
        .iter()
        .map(|booked| (booked.state.as_str(), booked.format))
        .collect();
    assert_eq!(
        states,
        [
            ("dead", TransactionFormat::V1),
            ("finalized", TransactionFormat::Legacy),
            ("finalized", TransactionFormat::Legacy),
        ]
    );
    assert_eq!(attempts(&grid).await, 0);
    grid.audit_holds().await;
    grid.stop().await;
}

/// The operator has chosen the format: no other is built.
#[tokio::test(flavor = "multi_thread")]
async fn a_chosen_format_waits_for_an_endpoint_that_takes_it() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[(FORMAT, "v1")]).await;
    grid.serve().await;
    proxy.on_call(|_, _| CallAction::RefuseV1);
    let meter = grid.meter().await;
    meter.report("1").await;
    let before = proxy.received("simulateTransaction");
    grid.until("it was tried", async || {
        proxy.received("simulateTransaction") > before
    })
    .await;
    assert_eq!(grid.count("pending").await, 1);
    proxy.forward_everything();
    grid.until_count("finalized", 1).await;
    assert_eq!(formats(&grid).await, [TransactionFormat::V1]);
    assert_eq!(attempts(&grid).await, 0);
    grid.audit_holds().await;
    grid.stop().await;
}

/// No question is asked of an endpoint for nothing: once at the start, whatever is minted.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_asked_once_whether_it_takes_v1() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let questions = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&questions);
    proxy.on_call(move |method, parameters| {
        if method == "simulateTransaction" {
            let transaction = carried_transaction(parameters);
            // A mint transaction pays at least one reading beside its memo.
            if transaction.message.instructions().len() == 1 {
                counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        CallAction::Forward
    });
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    for minted in 1..=3 {
        meter.report("1").await;
        grid.until_landed(minted).await;
    }
    assert_eq!(questions.load(std::sync::atomic::Ordering::SeqCst), 1);
    grid.stop().await;
}
