//! Reads values of `GET /metrics`.

use super::Api;

/// One value of `GET /metrics`; `series` is a name with its labels as the exporter writes them.
pub async fn value(api: &Api, series: &str) -> f64 {
    value_in(&api.get_text("/metrics").await, series)
}

/// The same of a text that was read before.
pub fn value_in(text: &str, series: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {text}"))
        .parse()
        .unwrap()
}
