//! A priority fee is offered as configured, costs what the ledger records, and is never raised once a transaction is signed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_request::RpcRequest;
use solana_sdk::signature::Signature;
use solana_sdk::transaction::Transaction;

use crate::support::metrics::value;
use crate::support::proxy::drop_send;
use crate::support::world::world;
use crate::support::{CallAction, Grid, Proxy};

/// Micro-lamports: half a lamport for a compute unit.
const PRICE: u64 = 500_000;

struct Minted {
    signature: Signature,
    transaction: Transaction,
    fee: u64,
    priority_fee: u64,
}

impl Minted {
    /// What the signed bytes request: the compute limit, and the price if there is one.
    fn compute_budget(&self) -> (u32, Option<u64>) {
        let message = &self.transaction.message;
        let mut limit = None;
        let mut price = None;
        for instruction in &message.instructions {
            let program = message.account_keys[usize::from(instruction.program_id_index)];
            if program != solana_compute_budget_interface::ID {
                continue;
            }
            let (tag, number) = instruction.data.split_first().unwrap();
            match tag {
                2 => limit = Some(u32::from_le_bytes(number.try_into().unwrap())),
                3 => price = Some(u64::from_le_bytes(number.try_into().unwrap())),
                other => panic!("tag {other}"),
            }
        }
        (limit.unwrap(), price)
    }

    /// As the chain reports it: fee in lamports, compute units consumed.
    async fn on_chain(&self, grid: &Grid) -> (u64, u64) {
        let parameters = json!([
            self.signature.to_string(),
            { "encoding": "json", "commitment": "finalized", "maxSupportedTransactionVersion": 0 }
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
            let transaction: Transaction = bincode::deserialize(&signed_bytes).unwrap();
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
    let grid = Grid::without_service(&[
        ("BLOCKCHAIN_PRIORITY_FEE", "fixed:500000"),
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
        let (limit, price) = one.compute_budget();
        assert_eq!(price, Some(PRICE));
        assert_eq!(one.priority_fee, u64::from(limit).div_ceil(2));
        let (fee, consumed) = one.on_chain(&grid).await;
        assert_eq!(fee, one.fee, "the ledger's fee is the chain's");
        assert_eq!(fee, 5_000 + one.priority_fee);
        assert!(consumed <= u64::from(limit), "{consumed} of {limit}");
        priority_fees += one.priority_fee;
    }
    // The accounts are there: what was simulated and a margin, not what was planned (31,000 for one payment).
    let (limit, _) = all.last().unwrap().compute_budget();
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
    let (limit, price) = all[0].compute_budget();
    assert_eq!((price, all[0].fee, all[0].priority_fee), (None, 5_000, 0));
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
    assert_eq!(first.compute_budget().1, None);
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
    let (limit, price) = last.compute_budget();
    assert_eq!(price, Some(micro_lamports));
    let (fee, _) = last.on_chain(grid).await;
    let priority_fee = (u64::from(limit) * micro_lamports).div_ceil(1_000_000);
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
    assert_eq!(minted(&grid).await[0].compute_budget().1, None);
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
    let prices: Vec<_> = minted(&grid)
        .await
        .iter()
        .map(|minted| minted.compute_budget().1)
        .collect();
    assert_eq!(prices, [Some(1_000), Some(900_000)], "each signed once");
    grid.audit_holds().await;
    grid.stop().await;
}
