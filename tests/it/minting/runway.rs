//! Minting stops before the fee payer's balance runs out, only as far as necessary, and continues after a top-up.

use std::time::Duration;

use serde_json::Value;
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_sdk::pubkey::Pubkey;

use crate::support::authority::Authority;
use crate::support::chain_breaker::{
    are_minted_without_an_attempt, no_attempt_is_used, until_open,
};
use crate::support::consensus::Consensus;
use crate::support::metrics::value;
use crate::support::{Api, Grid, Meter, eventually};

/// Rent of an account without data on the local chain: what the fee payer itself must keep.
const MINIMUM: u64 = 650_240;
const RENT: u64 = 1_488_440;
const FEE: u64 = 5_000;

struct Payer {
    rpc: RpcClient,
    authority: Authority,
}

impl Payer {
    async fn of(grid: &Grid) -> Payer {
        Payer {
            rpc: RpcClient::new_with_commitment(
                grid.rpc_url.clone(),
                Consensus::current().newest_commitment(),
            ),
            authority: Authority::of(grid).await,
        }
    }

    async fn balance(&self) -> u64 {
        let address = self.authority.payer();
        self.rpc.get_balance(&address).await.unwrap()
    }

    /// Transfers everything away except this much.
    async fn leave(&self, lamports: u64) {
        let gift = self.balance().await - FEE - lamports;
        let transfer = solana_system_interface::instruction::transfer(
            &self.authority.payer(),
            &Pubkey::new_unique(),
            gift,
        );
        self.authority.send(transfer, &[]).await;
        assert_eq!(self.balance().await, lamports);
    }

    async fn top_up(&self, lamports: u64) {
        let before = self.balance().await;
        let address = self.authority.payer();
        self.rpc.request_airdrop(&address, lamports).await.unwrap();
        eventually("the airdrop arrives", async || {
            (self.balance().await > before).then_some(())
        })
        .await;
    }
}

async fn runway(admin: &Api) -> Value {
    let status = admin.get("/api/admin/tokenization/status").await.ok();
    status["runway"].clone()
}

/// A service that has paid one reading of each of these meters, and the payer.
async fn with_known_wallets(meters: usize) -> (Grid, Vec<Meter>, Payer) {
    let grid = Grid::start_with(&[("MINT_LINGER_MS", "200")]).await;
    let mut known = Vec::new();
    for _ in 0..meters {
        let meter = grid.meter().await;
        meter.report("1").await;
        known.push(meter);
    }
    grid.until_count("finalized", meters as i64).await;
    let payer = Payer::of(&grid).await;
    (grid, known, payer)
}

/// Waits until the service has seen that the balance is at most this.
async fn until_seen(grid: &Grid, lamports: u64) {
    grid.until("the balance is seen", async || {
        let balance = runway(&grid.admin()).await["balance_lamports"].as_u64();
        balance.is_some_and(|balance| balance <= lamports)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_fee_payer_stops_minting_and_a_top_up_starts_it_again() {
    let (grid, known, payer) = with_known_wallets(1).await;
    let admin = grid.admin();
    // One lamport short of a fee.
    payer.leave(MINIMUM + FEE - 1).await;
    for _ in 0..5 {
        known[0].report("1").await;
    }
    let open = until_open(&admin, "fee_payer_empty").await;
    let reason = open["reason"].as_str().unwrap();
    assert!(reason.contains("top it up"), "{reason}");
    assert_eq!(grid.count("pending").await, 5);
    // Although nothing is spent any more.
    assert_eq!(runway(&admin).await["hours"], 0.0);
    assert_eq!(
        payer.balance().await,
        MINIMUM + FEE - 1,
        "nothing was spent"
    );
    payer.top_up(1_000_000_000).await;
    let funded = std::time::Instant::now();
    grid.until("all are on their way", async || {
        grid.count("pending").await == 0
    })
    .await;
    let took = funded.elapsed();
    assert!(took < Duration::from_secs(15), "it took {took:?} to go on");
    are_minted_without_an_attempt(&grid, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn known_wallets_are_paid_while_new_ones_wait_for_the_rent() {
    let (grid, known, payer) = with_known_wallets(2).await;
    let new = [grid.meter().await, grid.meter().await];
    // Fees for many transactions, and not quite the rent of one account.
    payer.leave(MINIMUM + RENT - 1).await;
    until_seen(&grid, MINIMUM + RENT).await;
    let mut waiting = Vec::new();
    for meter in &new {
        waiting.push(meter.report("1").await);
    }
    for meter in &known {
        for _ in 0..3 {
            meter.report("1").await;
        }
    }
    grid.until_count("finalized", 8).await;
    assert_eq!(grid.count("pending").await, 2);
    for (meter, reading) in new.iter().zip(&waiting) {
        let view = meter
            .api
            .get(&format!("/api/readings/{reading}"))
            .await
            .ok();
        let why = view["last_error"].as_str().unwrap_or_default();
        assert!(why.contains("lamports of rent"), "{view}");
        assert_eq!(view["attempts"], 0);
    }
    assert_eq!(runway(&grid.admin()).await["new_wallets_wait"], true);
    let admin = grid.admin();
    let triggered = admin
        .post(
            "/api/admin/tokenization/trigger-batch",
            &serde_json::json!({}),
        )
        .await
        .ok();
    assert_eq!(triggered["success"], true, "waiting is not failing");
    assert_eq!(triggered["processed_readings"], 2, "{triggered}");
    assert_eq!(triggered["waiting_mints"], 2, "{triggered}");
    assert_eq!(triggered["failed_mints"], 0, "{triggered}");
    for result in triggered["results"].as_array().unwrap() {
        assert_eq!(result["waiting"], true);
        let why = result["error"].as_str().unwrap();
        assert!(why.contains("lamports of rent"), "{why}");
    }
    assert!(payer.balance().await >= MINIMUM);
    payer.top_up(1_000_000_000).await;
    let funded = std::time::Instant::now();
    grid.until("all are on their way", async || {
        grid.count("pending").await == 0
    })
    .await;
    let took = funded.elapsed();
    assert!(took < Duration::from_secs(20), "it took {took:?} to go on");
    grid.until_count("finalized", 10).await;
    assert_eq!(runway(&grid.admin()).await["new_wallets_wait"], false);
    let view = new[0]
        .api
        .get(&format!("/api/readings/{}", waiting[0]))
        .await;
    assert_eq!(view.ok()["last_error"], Value::Null, "it waits no more");
    no_attempt_is_used(&grid).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_new_accounts_are_made_as_can_be_paid_and_the_minimum_stays() {
    let (grid, _known, payer) = with_known_wallets(1).await;
    let mut meters = Vec::new();
    for _ in 0..12 {
        meters.push(grid.meter().await);
    }
    // Three accounts, the fees around them, and those that are kept for wallets that have an account.
    payer.leave(MINIMUM + 3 * RENT + 100 * FEE).await;
    until_seen(&grid, MINIMUM + 4 * RENT).await;
    let reports = meters.iter().map(|meter| meter.report("1"));
    futures_util::future::join_all(reports).await;
    grid.until_count("finalized", 4).await;
    grid.until("the others wait for the rent", async || {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM readings WHERE state = 'pending' AND last_error LIKE '%rent%'",
        )
        .fetch_one(&grid.pool)
        .await
        .unwrap();
        waiting == 9
    })
    .await;
    assert!(payer.balance().await >= MINIMUM);
    let refused: i64 =
        sqlx::query_scalar("SELECT count(*) FROM mint_transactions WHERE state <> 'finalized'")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    assert_eq!(refused, 0, "nothing was signed that could not be paid");
    payer.top_up(1_000_000_000).await;
    are_minted_without_an_attempt(&grid, 13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_forecast_follows_what_was_spent() {
    let (grid, known, payer) = with_known_wallets(2).await;
    for meter in &known {
        for _ in 0..5 {
            meter.report("1").await;
        }
    }
    grid.until_count("finalized", 12).await;
    let spent: i64 = sqlx::query_scalar(
        "SELECT sum(fee_lamports + account_creations * token_account_rent_lamports)::BIGINT FROM mint_transactions",
    )
    .fetch_one(&grid.pool)
    .await
    .unwrap();
    let balance = payer.balance().await;
    let runway = eventually("nothing is in flight", async || {
        let runway = runway(&grid.admin()).await;
        (runway["reserved_lamports"] == 0 && runway["balance_lamports"] == balance)
            .then_some(runway)
    })
    .await;
    assert_eq!(runway["minimum_lamports"], MINIMUM);
    assert_eq!(
        runway["lamports_per_reading"],
        spent.unsigned_abs().div_ceil(12)
    );
    // Twelve readings within the first ten minutes.
    let rate = runway["readings_per_hour"].as_f64().unwrap();
    assert!((rate - 72.0).abs() < 0.1, "{runway}");
    let hours = runway["hours"].as_f64().unwrap();
    let expected = (balance - MINIMUM) as f64 / (spent as f64 * 6.0);
    assert!(
        (hours / expected - 1.0).abs() < 0.01,
        "{runway}, {expected}"
    );
    // Services of other tests in this process write the same gauge.
    grid.until("the runway's gauge shows it", async || {
        value(&grid.admin(), "gridtokenx_fee_payer_runway_seconds").await > 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_with_little_money_pay_nothing_twice_and_keep_the_minimum() {
    let (mut grid, known, payer) = with_known_wallets(3).await;
    grid.stop().await;
    payer.leave(MINIMUM + 2 * RENT + 10 * FEE).await;
    let first = grid.spawn(&[]).await;
    let second = grid.spawn(&[]).await;
    // On a local chain a starting service tops up a low balance: transfer it away again.
    payer.leave(MINIMUM + 2 * RENT + 10 * FEE).await;
    let mut reported = 3;
    for server in [&first, &second] {
        let api = server.user("prosumer");
        for _ in 0..4 {
            api.meter().await.report("1").await;
            reported += 1;
        }
    }
    for meter in known {
        let meter = meter.at(&first.user("prosumer"));
        for _ in 0..3 {
            meter.report("1").await;
            reported += 1;
        }
    }
    grid.until("what can be paid is paid", async || {
        grid.count("finalized").await >= 12
    })
    .await;
    assert!(payer.balance().await >= MINIMUM);
    payer.top_up(1_000_000_000).await;
    let audit = are_minted_without_an_attempt(&grid, reported).await;
    assert_eq!(audit["base_units_chain"], format!("{reported}000000000"));
}
