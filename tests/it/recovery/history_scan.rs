//! The scan of the authority's history: what interrupts it costs nothing, and one bad transaction stops nothing else.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use serde_json::{Value, json};
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::instruction::{AccountMeta, Instruction};
use solana_sdk::signature::{Signature, Signer};

use crate::support::audit::difference;
use crate::support::authority::Authority;
use crate::support::ledger::until_breaker;
use crate::support::world::world;
use crate::support::{CallAction, Grid, Meter, Proxy};

/// Transactions that name the authority and mint nothing, finalized. Returns their signatures.
async fn unrelated(authority: &Authority, meter: &Meter, count: usize) -> Vec<String> {
    let sent = (0..count).map(|number| async move {
        let memo = Instruction {
            program_id: spl_memo_interface::v3::ID,
            accounts: vec![AccountMeta::new_readonly(authority.payer(), true)],
            data: format!("{number} {}", meter.wallet.pubkey()).into_bytes(),
        };
        authority.send(memo, &[]).await.to_string()
    });
    join_all(sent).await
}

async fn history_scan(grid: &Grid) -> Value {
    let status = grid.admin().get("/api/admin/tokenization/status").await;
    status.body["history_scan"].clone()
}

/// Waits until a whole scan that began after this moment is finished.
async fn until_scanned_again(grid: &Grid) {
    // As a process that has just started does.
    let wanted: i64 =
        sqlx::query_scalar("UPDATE history_scan SET wanted = wanted + 1 RETURNING wanted")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
    grid.until("the history is scanned", async || {
        let known: i64 = sqlx::query_scalar("SELECT known FROM history_scan")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
        known >= wanted
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_others_are_read_once_by_all_scans_and_a_few_of_them_again_by_an_audit() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let authority = Authority::of(&grid).await;
    let theirs = unrelated(&authority, &meter, 40).await;
    until_scanned_again(&grid).await;
    grid.until("they are remembered", async || {
        until_scanned_again(&grid).await;
        let remembered: i64 =
            sqlx::query_scalar("SELECT count(*) FROM history_transactions WHERE problem IS NULL")
                .fetch_one(&grid.pool)
                .await
                .unwrap();
        remembered >= 40
    })
    .await;
    let reads = Arc::new(AtomicUsize::new(0));
    let again = reads.clone();
    proxy.on_call(move |method, parameters| {
        if method == "getTransaction"
            && theirs.iter().any(|theirs| parameters[0] == theirs.as_str())
        {
            again.fetch_add(1, Ordering::Relaxed);
        }
        CallAction::Forward
    });
    until_scanned_again(&grid).await;
    assert_eq!(
        reads.load(Ordering::Relaxed),
        0,
        "the scan reads none again"
    );
    grid.audit_holds().await;
    let by_audit = reads.load(Ordering::Relaxed);
    assert!(
        by_audit <= 16,
        "an audit reads a sample of them, not {by_audit}"
    );
    grid.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_cannot_be_read_is_named_and_stops_nothing_else() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let authority = Authority::of(&grid).await;
    grid.stop().await;
    let newer = unrelated(&authority, &meter, 1).await.remove(0);
    let named = newer.clone();
    proxy.on_call(move |method, parameters| {
        if method == "getTransaction" && parameters[0] == named.as_str() {
            return CallAction::Error(-32015, "Transaction version (2) is not supported");
        }
        CallAction::Forward
    });
    let by_hand = authority.mint_by_hand(&meter, 5).await;

    grid.serve().await;
    until_breaker(&grid, "mismatch").await;
    grid.until("it is named", async || {
        let scan = history_scan(&grid).await;
        scan["unreadable"][0]["signature"] == newer.as_str()
            && scan["unreadable"][0]["problem"]
                .as_str()
                .is_some_and(|problem| problem.contains("a newer program is needed"))
    })
    .await;
    let scan = history_scan(&grid).await;
    assert!(scan["watermark_slot"].as_u64() < scan["unreadable"][0]["slot"].as_u64());
    let unknown: String = sqlx::query_scalar("SELECT signature FROM foreign_mints")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    assert_eq!(unknown, by_hand, "the other one is found all the same");

    // A list that omits it makes it no less unreadable.
    let slot = scan["unreadable"][0]["slot"].as_u64();
    let omitted = newer.clone();
    proxy.on_call(move |method, parameters| match method {
        "getTransaction" if parameters[0] == omitted.as_str() => {
            CallAction::Error(-32015, "Transaction version (2) is not supported")
        }
        "getSignaturesForAddress" => CallAction::Edit(without_others),
        _ => CallAction::Forward,
    });
    let reads = scan["unreadable"][0]["reads"].as_u64();
    grid.until("it is read again", async || {
        grid.execute(
            "UPDATE history_transactions SET next_read_at = now() WHERE problem IS NOT NULL",
        )
        .await;
        history_scan(&grid).await["unreadable"][0]["reads"].as_u64() > reads
    })
    .await;
    let scan = history_scan(&grid).await;
    assert_eq!(scan["unreadable"][0]["signature"], newer.as_str());
    assert!(scan["watermark_slot"].as_u64() < slot);

    proxy.forward_everything();
    grid.execute("UPDATE foreign_mints SET booked_reason = 'a test'; UPDATE history_transactions SET next_read_at = now() WHERE problem IS NOT NULL")
        .await;
    until_breaker(&grid, "closed").await;
    assert_eq!(history_scan(&grid).await["unreadable"], json!([]));
    grid.audit_holds().await;
    grid.stop().await;
}

/// Only what has a memo of ours.
fn without_others(mut listed: Value) -> Value {
    if let Some(entries) = listed.as_array_mut() {
        entries.retain(|entry| {
            let memo = entry["memo"].as_str();
            !memo.is_some_and(|memo| memo.contains("] 0 "))
        });
    }
    listed
}

fn nothing(_: Value) -> Value {
    json!([])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_hides_what_the_ledger_has_finalized_does_not_raise_the_watermark() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    // Signing needs one whole scan.
    until_scanned_again(&grid).await;
    proxy.on_call(|method, _| match method {
        "getSignaturesForAddress" => CallAction::Edit(nothing),
        _ => CallAction::Forward,
    });
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    let slot: i64 = sqlx::query_scalar("SELECT slot FROM mint_transactions")
        .fetch_one(&grid.pool)
        .await
        .unwrap();
    grid.until("it is named", async || {
        grid.execute("UPDATE history_scan SET wanted = wanted + 1")
            .await;
        let error = history_scan(&grid).await["last_error"].to_string();
        error.contains("rpc-1") && error.contains("lacks 1 transactions")
    })
    .await;
    let watermark = async || {
        history_scan(&grid).await["watermark_slot"]
            .as_i64()
            .unwrap()
    };
    assert!(watermark().await < slot);

    proxy.forward_everything();
    grid.until("the watermark rises", async || watermark().await >= slot)
        .await;
    grid.audit_holds().await;
    grid.stop().await;
}

/// A reading is finalized far enough below the head that the next scan expects it on the list, and the service has ended.
async fn with_old_payment() -> (Grid, Proxy, Meter) {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    until_scanned_far_above(&grid).await;
    grid.stop().await;
    (grid, proxy, meter)
}

async fn until_scanned_far_above(grid: &Grid) {
    grid.until("the chain is far above the payment", async || {
        let paid: i64 = sqlx::query_scalar("SELECT slot FROM mint_transactions")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
        let rpc = RpcClient::new(world().rpc_url().to_owned());
        let finalized = CommitmentConfig::finalized();
        let head = rpc.get_slot_with_commitment(finalized).await.unwrap();
        head > paid as u64 + 40
    })
    .await;
    // The next scan lists it again.
    grid.execute("UPDATE ledger SET watermark_slot = 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_shows_finalized_transactions_late_is_read_again_and_fails_no_scan() {
    let (mut grid, proxy, meter) = with_old_payment().await;
    let empty_lists = Arc::new(AtomicUsize::new(0));
    proxy.on_call({
        let empty_lists = Arc::clone(&empty_lists);
        move |method, _| {
            if method == "getSignaturesForAddress" && empty_lists.fetch_add(1, Ordering::SeqCst) < 3
            {
                return CallAction::Edit(nothing);
            }
            CallAction::Forward
        }
    });
    grid.serve().await;
    let meter = meter.at(&grid.user("prosumer"));
    meter.report("2").await;
    grid.until_count("finalized", 2).await;
    let scan = history_scan(&grid).await;
    assert_eq!(scan["failures"], 0, "{scan}");
    assert!(empty_lists.load(Ordering::SeqCst) > 3);
    grid.audit_holds().await;
    grid.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_mint_below_what_a_late_list_lacked_is_found() {
    let (mut grid, proxy, meter) = with_old_payment().await;
    let authority = Authority::of(&grid).await;
    let unknown = authority.mint_by_hand(&meter, 5_000).await;
    let unknown = Signature::from_str(&unknown).unwrap();
    let slot = RpcClient::new(world().rpc_url().to_owned())
        .get_signature_statuses(&[unknown])
        .await
        .unwrap()
        .value[0]
        .as_ref()
        .unwrap()
        .slot;
    // As if the ledger's own payment had landed right above the unknown mint.
    sqlx::query("UPDATE mint_transactions SET slot = $1")
        .bind(slot as i64 + 1)
        .execute(&grid.pool)
        .await
        .unwrap();
    until_scanned_far_above(&grid).await;
    let empty_lists = AtomicUsize::new(0);
    proxy.on_call(move |method, _| {
        if method == "getSignaturesForAddress" && empty_lists.fetch_add(1, Ordering::SeqCst) < 2 {
            return CallAction::Edit(nothing);
        }
        CallAction::Forward
    });
    grid.serve().await;
    until_breaker(&grid, "mismatch").await;
    grid.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_whose_head_is_below_what_is_final_allows_nobody_to_sign() {
    let (mut grid, proxy, meter) = with_old_payment().await;
    proxy.on_call(|method, parameters| match method {
        // The list and what depends on it; probes query what is confirmed.
        "getSlot" if parameters[0]["commitment"] == "finalized" => CallAction::Answer(json!(2)),
        _ => CallAction::Forward,
    });
    grid.serve().await;
    let meter = meter.at(&grid.user("prosumer"));
    meter.report("2").await;
    grid.until("two scans have failed", async || {
        history_scan(&grid).await["failures"].as_u64() >= Some(2)
    })
    .await;
    let error = history_scan(&grid).await["last_error"].to_string();
    assert!(error.contains("finalized slot is 2"), "{error}");
    assert_eq!(grid.count("pending").await, 1, "signing waits");
    proxy.forward_everything();
    grid.until_count("finalized", 2).await;
    grid.audit_holds().await;
    grid.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_in_the_future_does_not_let_a_process_sign_without_a_new_scan() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    grid.stop().await;
    grid.execute(
        "UPDATE history_scan
         SET known_as_of = now() + INTERVAL '1 hour', finished_at = now() + INTERVAL '1 hour'",
    )
    .await;
    proxy.on_call(|method, _| match method {
        "getSignaturesForAddress" => CallAction::Error(-32603, "Internal error"),
        _ => CallAction::Forward,
    });
    grid.serve().await;
    let meter = meter.at(&grid.user("prosumer"));
    meter.report("2").await;
    grid.until("two scans have failed", async || {
        history_scan(&grid).await["failures"].as_u64() >= Some(2)
    })
    .await;
    assert_eq!(grid.count("pending").await, 1, "signing waits");
    proxy.forward_everything();
    grid.until_count("finalized", 2).await;
    grid.audit_holds().await;
    grid.stop().await;
}

/// An endpoint may list as few as it likes.
fn short_page(mut listed: Value) -> Value {
    if let Some(entries) = listed.as_array_mut() {
        entries.truncate(2);
    }
    listed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_a_limit_interrupts_goes_on_where_it_was_in_another_process() {
    let (mut grid, meter) = Grid::with_one_payment().await;
    grid.stop().await;
    let authority = Authority::of(&grid).await;
    let theirs: HashSet<String> = unrelated(&authority, &meter, 6).await.into_iter().collect();
    let by_hand = authority.mint_by_hand(&meter, 5).await;

    let proxy = Proxy::start(world().rpc_url()).await;
    grid.rpc_url = proxy.url.clone();
    let reads = Arc::new(Mutex::new(Vec::new()));
    let (is_limited, read) = (Arc::new(AtomicBool::new(true)), reads.clone());
    let limited = is_limited.clone();
    proxy.on_call(move |method, parameters| match method {
        "getSignaturesForAddress" => {
            let goes_on = parameters[1]["before"].is_string();
            if goes_on && limited.load(Ordering::Relaxed) {
                return CallAction::RetryAfter {
                    status: 429,
                    secs: 1,
                };
            }
            CallAction::Edit(short_page)
        }
        "getTransaction" => {
            let signature = parameters[0].as_str().unwrap().to_owned();
            read.lock().unwrap().push(signature);
            CallAction::Forward
        }
        _ => CallAction::Forward,
    });
    grid.serve().await;
    // What was read before the limit is known: the breaker opens for it.
    until_breaker(&grid, "mismatch").await;
    grid.until("the limit interrupts the scan", async || {
        let scan = history_scan(&grid).await;
        scan["under_way"]["listed"] == 2 && scan["failures"] == 0
    })
    .await;
    grid.stop().await;

    is_limited.store(false, Ordering::Relaxed);
    grid.serve().await;
    grid.execute("UPDATE foreign_mints SET booked_reason = 'a test'")
        .await;
    until_breaker(&grid, "closed").await;
    until_scanned_again(&grid).await;
    let mut read: Vec<String> = reads.lock().unwrap().clone();
    read.retain(|signature| theirs.contains(signature) || *signature == by_hand);
    let once: HashSet<&String> = read.iter().collect();
    assert_eq!(read.len(), once.len(), "none is read twice: {read:?}");
    assert_eq!(once.len(), 7, "each is read: {read:?}");
    grid.audit_holds().await;
    grid.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_starts_and_accepts_readings_while_the_history_cannot_be_scanned() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    grid.stop().await;
    proxy.on_call(|method, _| match method {
        "getSignaturesForAddress" => CallAction::Hang,
        _ => CallAction::Forward,
    });
    grid.serve().await;
    let meter = meter.at(&grid.user("prosumer"));
    meter.report("2").await;
    assert_eq!(grid.count("pending").await, 1, "signing waits");
    proxy.forward_everything();
    grid.stop().await;
    grid.serve().await;
    grid.until_count("finalized", 2).await;
    grid.audit_holds().await;
    grid.stop().await;
}

/// Some endpoints list an entry twice in a row, and the seam of two pages in both.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_lists_entries_twice_counts_each_once() {
    let (mut grid, meter) = Grid::with_one_payment().await;
    grid.stop().await;
    let authority = Authority::of(&grid).await;
    let by_hand = authority.mint_by_hand(&meter, 7).await;
    let proxy = Proxy::start(world().rpc_url()).await;
    proxy.on_call(|method, _| match method {
        "getSignaturesForAddress" => CallAction::Edit(|mut listed| {
            if let Some(entries) = listed.as_array_mut() {
                let twice: Vec<Value> = entries
                    .iter()
                    .flat_map(|entry| [entry.clone(), entry.clone()])
                    .collect();
                *entries = twice;
                // Not side by side.
                if let Some(first) = entries.first().cloned() {
                    entries.push(first);
                }
            }
            listed
        }),
        _ => CallAction::Forward,
    });
    grid.rpc_url = proxy.url.clone();
    let report = grid.audit().await;
    let unknown = difference(&report, "unknown_mint");
    assert_eq!(unknown["signature"], by_hand.as_str());
    assert_eq!(report["base_units_chain"], "1000000007");
    assert_eq!(
        report["differences"].as_array().unwrap().len(),
        1,
        "one foreign mint is one difference: {report:#}"
    );
    grid.serve().await;
    until_breaker(&grid, "mismatch").await;
    grid.stop().await;
}
