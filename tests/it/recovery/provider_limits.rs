//! Providers limit queries, and nodes answer strangely: the service sends smaller queries or queries elsewhere, takes no strange
//! answer for "absent" or for an endpoint that is gone, and names endpoint, method and limit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::chain_breaker::{chain_of, no_attempt_is_used, until_closed, until_open};
use crate::support::world::world;
use crate::support::{CallAction, Grid, Proxy, eventually};

async fn served_through(proxy: &Proxy) -> Grid {
    let mut grid = Grid::on_chain(&proxy.url, &[]).await;
    grid.serve().await;
    grid
}

/// The length of the list that a call requests.
fn requested(parameters: &Value) -> usize {
    parameters[0].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_are_refused_are_halved_and_the_size_is_remembered() {
    const ACCOUNTS: usize = 5;
    let proxy = Proxy::start(world().rpc_url()).await;
    let grid = served_through(&proxy).await;
    proxy.on_call(|method, parameters| match method {
        "getMultipleAccounts" if requested(parameters) > ACCOUNTS => CallAction::Status(413),
        "getSignatureStatuses" if requested(parameters) > 1 => {
            CallAction::Error(-32_602, "Too many inputs provided; max 1")
        }
        _ => CallAction::Forward,
    });
    let mut meters = Vec::new();
    for index in 0..12 {
        meters.push(grid.user(&format!("prosumer {index}")).meter().await);
    }
    for meter in &meters {
        meter.report("1").await;
    }
    grid.until_count("finalized", 12).await;
    // A list of one batch: the wallets of twelve owners.
    for meter in &meters {
        meter.report("1").await;
    }
    grid.until_count("finalized", 24).await;
    let chain = chain_of(&grid.admin()).await;
    let endpoint = &chain["endpoints"][0];
    assert_eq!(endpoint["healthy"], true, "{chain}");
    let limits = endpoint["limits"].as_array().unwrap();
    let limit_of = |method: &str| limits.iter().find(|limit| limit["method"] == method);
    let statuses = limit_of("getSignatureStatuses").unwrap_or_else(|| panic!("{chain}"));
    assert_eq!(statuses["items_max"], 1, "{chain}");
    if let Some(accounts) = limit_of("getMultipleAccounts") {
        assert!(
            accounts["answer"].as_str().unwrap().contains("413"),
            "{accounts}"
        );
        let items_max = accounts["items_max"].as_u64();
        assert!(items_max.is_none_or(|max| max <= 5), "{accounts}");
    }
    no_attempt_is_used(&grid).await;
    proxy.forward_everything();
    grid.audit_holds().await;
}

/// Spoils the first of several statuses while this is set.
static SPOILS_FIRST: AtomicBool = AtomicBool::new(false);

fn spoil_first(mut result: Value) -> Value {
    let statuses = result["value"].as_array_mut();
    if let Some([first, _, ..]) = statuses.map(Vec::as_mut_slice)
        && SPOILS_FIRST.load(Ordering::SeqCst)
    {
        // Below confirmed: an error that is not final proves nothing, and the transaction has landed.
        *first = json!({
            "slot": 1, "confirmations": 0, "confirmationStatus": "processed",
            "err": { "InstructionError": [1, "ErrorOf2028"] },
            "status": { "Err": { "InstructionError": [1, "ErrorOf2028"] } },
        });
    }
    result
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_cannot_be_named_holds_up_no_other() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let mut grid = Grid::on_chain(&proxy.url, &[("BLOCKCHAIN_MAX_BATCH_SIZE", "1")]).await;
    grid.serve().await;
    proxy.on_call(|method, _| match method {
        "getSignatureStatuses" => CallAction::Edit(spoil_first),
        _ => CallAction::Forward,
    });
    let meter = grid.meter().await;
    meter.report("1").await;
    grid.until_count("finalized", 1).await;
    SPOILS_FIRST.store(true, Ordering::SeqCst);
    for _ in 0..4 {
        meter.report("1").await;
    }
    // All but the one whose status is spoilt, as long as there are several.
    grid.until("the others are final", async || {
        grid.count("finalized").await >= 4
    })
    .await;
    SPOILS_FIRST.store(false, Ordering::SeqCst);
    grid.until_count("finalized", 5).await;
    no_attempt_is_used(&grid).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulation_error_that_cannot_be_named_is_blamed_on_its_reading_and_kept() {
    let proxy = Proxy::start(world().rpc_url()).await;
    let settings = [("TOKENIZATION_MAX_RETRY_ATTEMPTS", "0")];
    let mut grid = Grid::on_chain(&proxy.url, &settings).await;
    grid.serve().await;
    proxy.on_call(|method, _| match method {
        "simulateTransaction" => CallAction::Answer(json!({
            "context": { "slot": 1 },
            "value": { "err": { "InstructionError": [0, { "BorshIoError": "Unknown" }] }, "logs": [], "unitsConsumed": 7 },
        })),
        _ => CallAction::Forward,
    });
    let meter = grid.meter().await;
    for _ in 0..2 {
        meter.report("1").await;
    }
    grid.until_count("failed", 2).await;
    let errors: Vec<String> = sqlx::query_scalar("SELECT last_error FROM readings")
        .fetch_all(&grid.pool)
        .await
        .unwrap();
    assert!(
        errors.iter().all(|error| error.contains("BorshIoError")),
        "{errors:?}"
    );
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_every_batch_fails_the_pauses_grow_and_status_and_readiness_agree() {
    const WATCHED_FOR: Duration = Duration::from_secs(12);
    let proxy = Proxy::start(world().rpc_url()).await;
    let grid = served_through(&proxy).await;
    let (admin, meter) = (grid.admin(), grid.meter().await);
    proxy.on_call(|method, _| match method {
        "getLatestBlockhash" => CallAction::Answer(Value::Null),
        _ => CallAction::Forward,
    });
    for _ in 0..5 {
        meter.report("1").await;
    }
    let chain = until_open(&admin, "failing").await;
    let reason = chain["reason"].as_str().unwrap();
    for part in ["rpc-1", "getLatestBlockhash", "null"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(
        chain["endpoints"][0]["healthy"], true,
        "a strange answer is not an outage"
    );
    let (began, before) = (Instant::now(), proxy.received("getLatestBlockhash"));
    let (mut samples, mut agreeing) = (0, 0);
    while began.elapsed() < WATCHED_FOR {
        let open = chain_of(&admin).await["state"] == "open";
        let ready = admin.get("/health/ready").await;
        let degraded = ready.body["checks"]["chain"]["status"] == "degraded";
        samples += 1;
        agreeing += u32::from(open == degraded);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Between the two questions the breaker may change.
    assert!(agreeing * 10 >= samples * 8, "{agreeing} of {samples}");
    // Pauses of 1, 2, 4 and 8 s: a few tries of at most five batches each. Without them there would be two tries a second.
    let tries = proxy.received("getLatestBlockhash") - before;
    assert!(tries <= 30, "{tries} calls in {WATCHED_FOR:?}");
    proxy.forward_everything();
    until_closed(&admin).await;
    grid.until_count("finalized", 5).await;
    no_attempt_is_used(&grid).await;
    grid.audit_holds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_endpoint_can_do_is_probed_and_shown() {
    let (whole, pruned) = (
        Proxy::start(world().rpc_url()).await,
        Proxy::start(world().rpc_url()).await,
    );
    pruned.on_call(|method, _| match method {
        "getBlock" | "getBlocks" => CallAction::Error(-32_601, "Method not found"),
        _ => CallAction::Forward,
    });
    let urls = format!("{}#whole,{}#pruned", whole.url, pruned.url);
    let mut grid = Grid::on_chain(&urls, &[]).await;
    grid.serve().await;
    let admin = grid.admin();
    let chain = eventually("both are probed", async || {
        let chain = chain_of(&admin).await;
        let probed =
            |index: usize| !chain["endpoints"][index]["capabilities"]["probed_at"].is_null();
        (probed(0) && probed(1)).then_some(chain)
    })
    .await;
    let [whole, pruned] = [0, 1].map(|index| chain["endpoints"][index]["capabilities"].clone());
    assert_eq!(whole["blocks"], "yes", "{chain}");
    assert_eq!(whole["history"], "yes", "{chain}");
    // A chain that has just begun does not reach back far enough yet.
    assert!(whole["proves_deaths"].is_boolean(), "{chain}");
    assert_eq!(pruned["blocks"], "no", "{chain}");
    assert_eq!(pruned["proves_deaths"], false, "{chain}");
    let reason = pruned["reason"].as_str().unwrap();
    assert!(
        reason.contains("getBlocks") && reason.contains("pruned"),
        "{reason}"
    );
    let metrics = admin.get_text("/metrics").await;
    let line = r#"gridtokenx_rpc_endpoint_proves_deaths{endpoint="pruned"} 0"#;
    assert!(metrics.contains(line), "{line}");
}
