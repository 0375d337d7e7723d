//! The number of metric series stays small, however many clients report and however much.

use std::collections::BTreeSet;

use chrono::{DurationRound, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::metrics::value_in;
use crate::support::{Grid, insert_backlog};

/// Thousands; a deployment has more, and no more series.
const METERS: usize = 2_000;
const READINGS_PER_REQUEST: usize = 500;

/// Everything of a line but its value.
fn series(metrics: &str) -> BTreeSet<String> {
    metrics
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, _)| series.to_owned())
        .collect()
}

/// Exist from the first call of a method or an endpoint on.
fn is_by_endpoint(series: &str) -> bool {
    series.contains("endpoint=\"rpc-1\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_meters_add_no_series() {
    let grid = Grid::without_service(&[]).await;
    let server = grid.spawn(&[]).await;
    let user = server.user("prosumer");
    let before = series(&user.get_text("/metrics").await);
    let serials = insert_backlog(&grid.pool, METERS, 1).await;
    let now = Utc::now().duration_trunc(TimeDelta::minutes(15)).unwrap();
    let reported_at = now.to_rfc3339_opts(SecondsFormat::Secs, true);
    for (number, chunk) in serials.chunks(READINGS_PER_REQUEST).enumerate() {
        let readings: Vec<Value> = chunk
            .iter()
            .map(|serial| {
                json!({"meter_id": serial, "kwh_amount": "0.01", "reading_timestamp": reported_at})
            })
            .collect();
        let body = json!({ "readings": readings });
        user.post("/api/meters/submit-readings", &body).await.ok();
        // Unknown paths and unknown users do not become labels either.
        let stranger = server.user(&format!("stranger-{number}"));
        stranger.get(&format!("/api/{}", serials[number])).await;
        // Under load: minting is under way.
        user.get_text("/metrics").await;
    }
    grid.until("hundreds are minted", async || grid.landed().await >= 300)
        .await;

    let text = user.get_text("/metrics").await;
    let after = series(&text);
    let added: Vec<&String> = after
        .difference(&before)
        .filter(|series| !is_by_endpoint(series))
        .collect();
    assert!(added.is_empty(), "{added:#?}");
    // Methods, outcomes and buckets of the one endpoint: bounded as well.
    assert!(after.len() < 1_000, "{} series", after.len());
    for serial in &serials {
        assert!(
            !text.contains(serial.as_str()),
            "{serial} is in the metrics"
        );
    }
    for word in ["stranger", "prosumer", "127.0.0.1"] {
        assert!(!text.contains(word), "{word} is in the metrics");
    }
    for (name, at_least) in [
        ("gridtokenx_meter_readings_processed_total", METERS as f64),
        ("gridtokenx_token_account_creations_total", 200.0),
        ("gridtokenx_mint_transaction_size_bytes_count", 20.0),
        ("gridtokenx_mint_transaction_readings_sum", 300.0),
        (
            "gridtokenx_reading_stage_duration_seconds_count{stage=\"picked\"}",
            300.0,
        ),
        ("gridtokenx_database_connections{state=\"limit\"}", 5.0),
        ("gridtokenx_process_cpu_milliseconds_total", 1.0),
        ("gridtokenx_runtime_busy_milliseconds_total", 1.0),
    ] {
        let value = value_in(&text, name);
        assert!(value >= at_least, "{name} {value}");
    }
    grid.audit_holds().await;
}
