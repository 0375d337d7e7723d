//! What `GET /metrics` says.

use super::Api;

/// One value of `GET /metrics`; `series` is a name with its labels as the exporter writes them.
pub async fn value(api: &Api, series: &str) -> f64 {
    let text = api.get_text("/metrics").await;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {text}"))
        .parse()
        .unwrap()
}
