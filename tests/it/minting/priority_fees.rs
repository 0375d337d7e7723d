//! A priority fee is offered as configured, costs what the ledger records, and is never raised once a transaction is signed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use gridtokenx::domain::signed_bytes;
use serde_json::{Value, json};
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_request::RpcRequest;
use solana_sdk::message::VersionedMessage;
use solana_sdk::signature::Signature;
use solana_sdk::transaction::VersionedTransaction;

use crate::support::metrics::value;
use crate::support::proxy::drop_send;
use crate::support::world::world;
use crate::support::{CallAction, Grid, Proxy};

/// Micro-lamports: half a lamport for a compute unit.
const PRICE: u64 = 500_000;

struct Minted {
    signature: Signature,
    transaction: VersionedTransaction,
    fee: u64,
    priority_fee: u64,
}

impl Minted {
    /// The request and the offer of the signed bytes: the compute limit, and the priority fee in lamports if there is one.
    fn offer(&self) -> (u32, Option<u64>) {
        if let VersionedMessage::V1(message) = &self.transaction.message {
            let loaded = message.config.loaded_accounts_data_size_limit.unwrap();
            assert!(
                loaded > 100_000,
                "{loaded}: without a limit nothing may be loaded"
            );
            let limit = message.config.compute_unit_limit.unwrap();
            return (limit, message.config.priority_fee);
        }
        let mut limit = None;
        let mut price: Option<u64> = None;
        for instruction in self.transaction.message.instructions() {
            let keys = self.transaction.message.static_account_keys();
            if keys[usize::from(instruction.program_id_index)]
                != solana_compute_budget_interface::ID
            {
                continue;
            }
            let (tag, number) = instruction.data.split_first().unwrap();
            match tag {
                2 => limit = Some(u32::from_le_bytes(number.try_into().unwrap())),
                3 => price = Some(u64::from_le_bytes(number.try_into().unwrap())),
                other => panic!("tag {other}"),
            }
        }
        let limit = limit.unwrap();
        (limit, price.map(|price| fee_at(price, limit)))
    }

    /// As the chain reports it: fee in lamports, compute units consumed.
    async fn on_chain(&self, grid: &Grid) -> (u64, u64) {
        let parameters = json!([
            self.signature.to_string(),
            { "encoding": "json", "commitment": "finalized", "maxSupportedTransactionVersion": 1 }
        ]);
        let found: Value = RpcClient::new(grid.rpc_url.clone())
            .send(RpcRequest::GetTransaction, parameters)
            .await
            .unwrap();
        let meta = &found["meta"];
        assert_eq!(meta["err"], Value::Null);
        let number = |name: &str| meta[name].as_u64().unwrap();
        (number("fee"), number("computeUnitsConsumed"))
    }
}

/// The priority fee of a transaction that requests this many compute units at this price, lamports.
fn fee_at(micro_lamports: u64, limit: u32) -> u64 {
    (u64::from(limit) * micro_lamports).div_ceil(1_000_000)
}

/// Every mint transaction of the ledger, in order.
async fn minted(grid: &Grid) -> Vec<Minted> {
    let rows: Vec<(Vec<u8>, i64, i64)> = sqlx::query_as(
        "SELECT wire, fee_lamports, priority_fee_lamports FROM mint_transactions ORDER BY number",
    )
    .fetch_all(&grid.pool)
    .await
    .unwrap();
    rows.into_iter()
        .map(|(signed_bytes, fee, priority_fee)| {
            let transaction = signed_bytes::decode(&signed_bytes).unwrap();
            Minted {
                signature: transaction.signatures[0],
                transaction,
                fee: fee as u64,
                priority_fee: priority_fee as u64,
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_price_is_offered_for_what_was_simulated_and_the_ledger_holds_the_chains_fee() {
    a_fixed_price_is_offered_in("legacy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_price_is_offered_as_a_whole_fee_in_v1() {
    a_fixed_price_is_offered_in("v1").await;
}

async fn a_fixed_price_is_offered_in(format: &'static str) {
    let grid = Grid::without_service(&[
        ("BLOCKCHAIN_PRIORITY_FEE", "fixed:500000"),
        ("BLOCKCHAIN_TRANSACTION_FORMAT", format),
        ("MINT_LINGER_MS", "200"),
    ])
    .await;
    // A separate process, so that no other service counts in its metrics.
    let server = grid.spawn(&[]).await;
    let user = server.user("prosumer");
    let meters = [user.meter().await, user.meter().await, user.meter().await];
    for round in 1..=2 {
        for meter in &meters {
            meter.report("1.5").await;
        }
        grid.until_count("finalized", 3 * round).await;
    }
    let all = minted(&grid).await;
    assert!(all.len() >= 2);
    let mut priority_fees = 0;
    for one in &all {
        let (limit, priority_fee) = one.offer();
        assert_eq!(priority_fee, Some(fee_at(PRICE, limit)));
        assert_eq!(priority_fee, Some(one.priority_fee));
        let (fee, consumed) = one.on_chain(&grid).await;
        assert_eq!(fee, one.fee, "the ledger's fee is the chain's");
        assert_eq!(fee, 5_000 + one.priority_fee);
        assert!(consumed <= u64::from(limit), "{consumed} of {limit}");
        priority_fees += one.priority_fee;
    }
    // The accounts are there: what was simulated and a margin, not what was planned (31,000 for one payment).
    let (limit, _) = all.last().unwrap().offer();
    assert!(limit < 10_000, "{limit}");

    let price = value(&user, "gridtokenx_priority_fee_microlamports").await;
    assert_eq!(price, PRICE as f64);
    let paid = async |kind: &str| {
        let series = format!("gridtokenx_fees_paid_lamports_total{{kind=\"{kind}\"}}");
        value(&user, &series).await
    };
    assert_eq!(paid("priority").await, priority_fees as f64);
    assert_eq!(paid("fee").await, 5_000.0 * all.len() as f64);
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_policy_no_price_is_offered() {
    let mut grid = Grid::start().await;
    grid.meter().await.report("1").await;
    grid.until_count("finalized", 1).await;
    let all = minted(&grid).await;
    let (limit, offered) = all[0].offer();
    assert_eq!((offered, all[0].fee, all[0].priority_fee), (None, 5_000, 0));
    let (fee, consumed) = all[0].on_chain(&grid).await;
    assert_eq!(fee, 5_000);
    assert!(consumed <= u64::from(limit), "{consumed} of {limit}");
    grid.audit_holds().await;
    grid.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_percentile_follows_what_the_chain_reports_up_to_the_cap() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let settings = [
        ("BLOCKCHAIN_PRIORITY_FEE", "percentile:75"),
        ("BLOCKCHAIN_PRIORITY_FEE_MAX_MICROLAMPORTS", "40000"),
    ];
    let mut grid = Grid::on_chain(&proxy.url, &settings).await;

    // The real chain's own answer: no transaction has paid a priority fee for our new mint.
    grid.serve().await;
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    assert!(proxy.received("getRecentPrioritizationFees") > 0);
    let first = minted(&grid).await.remove(0);
    assert_eq!(first.offer().1, None);
    grid.stop().await;

    // Market prices; then prices above the cap; then no answer.
    for (reported, expected) in [
        (CallAction::Answer(slots(&[100, 200, 30_000, 900])), 900),
        (CallAction::Answer(slots(&[50_000, 60_000])), 40_000),
    ] {
        let reported = Mutex::new(reported);
        proxy.on_call(move |method, parameters| match method {
            "getRecentPrioritizationFees" => {
                let accounts = parameters[0].as_array().unwrap();
                assert_eq!(
                    accounts.len(),
                    2,
                    "the mint and the fee payer: {accounts:?}"
                );
                reported.lock().unwrap().clone()
            }
            _ => CallAction::Forward,
        });
        grid.serve().await;
        report_and_see_price(&grid, expected).await;
        grid.stop().await;
    }
    grid.audit_holds().await;
}

fn slots(prices: &[u64]) -> Value {
    let slots = prices.iter().enumerate();
    slots
        .map(|(slot, price)| json!({ "slot": slot, "prioritizationFee": price }))
        .collect()
}

async fn report_and_see_price(grid: &Grid, micro_lamports: u64) {
    let finalized = grid.count("finalized").await;
    grid.meter().await.report("1").await;
    grid.until_count("finalized", finalized + 1).await;
    let last = minted(grid).await.pop().unwrap();
    let (limit, offered) = last.offer();
    let priority_fee = fee_at(micro_lamports, limit);
    assert_eq!(offered, Some(priority_fee));
    let (fee, _) = last.on_chain(grid).await;
    assert_eq!(fee, 5_000 + priority_fee);
    assert_eq!((last.fee, last.priority_fee), (fee, priority_fee));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_reports_no_prices_stops_no_minting() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid =
        Grid::on_chain(&proxy.url, &[("BLOCKCHAIN_PRIORITY_FEE", "percentile:50")]).await;
    proxy.on_call(|method, _| match method {
        "getRecentPrioritizationFees" => CallAction::Error(-32601, "Method not found"),
        _ => CallAction::Forward,
    });
    grid.serve().await;
    grid.meter().await.report("1").await;
    grid.until_count("finalized", 1).await;
    assert_eq!(minted(&grid).await[0].offer().1, None);
    grid.audit_holds().await;
    grid.stop().await;
}

/// The market goes up while a transaction is stuck: it is sent again as it was signed.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_stuck_is_sent_again_at_its_old_price() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let settings = [("BLOCKCHAIN_PRIORITY_FEE", "percentile:50")];
    let mut grid = Grid::on_chain(&proxy.url, &settings).await;
    let sent = Arc::new(Mutex::new(Vec::<String>::new()));
    let market = |price: u64, is_lost: bool| {
        let sent = Arc::clone(&sent);
        move |method: &str, parameters: &Value| match method {
            "getRecentPrioritizationFees" => CallAction::Answer(slots(&[price])),
            "sendTransaction" => {
                let signed_bytes = parameters[0].as_str().unwrap().to_owned();
                sent.lock().unwrap().push(signed_bytes);
                if is_lost {
                    drop_send(parameters)
                } else {
                    CallAction::Forward
                }
            }
            _ => CallAction::Forward,
        }
    };
    // The start queries the price and creates the mint.
    proxy.on_call(market(1_000, false));
    grid.serve().await;
    sent.lock().unwrap().clear();
    proxy.on_call(market(1_000, true));
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until("it was sent", async || !sent.lock().unwrap().is_empty())
        .await;
    grid.stop().await;

    // A start queries the price immediately.
    proxy.on_call(market(900_000, false));
    grid.serve().await;
    grid.until_count("finalized", 1).await;
    let sent: HashSet<String> = sent.lock().unwrap().iter().cloned().collect();
    assert_eq!(sent.len(), 1, "the same bytes each time");
    let meter = meter.at(&grid.user("prosumer"));
    meter.report("1").await;
    grid.until_count("finalized", 2).await;
    let all = minted(&grid).await;
    assert_eq!(all.len(), 2, "each signed once");
    for (minted, price) in all.iter().zip([1_000, 900_000]) {
        let (limit, offered) = minted.offer();
        assert_eq!(offered, Some(fee_at(price, limit)));
    }
    grid.audit_holds().await;
    grid.stop().await;
}
