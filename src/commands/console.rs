//! What `gridtokenx run` says to the person in front of it.

use std::io::{self, Write};

use rust_decimal::Decimal;

use super::play::{Outcome, PLAYER};
use super::report::Report;
use super::running::Running;

/// A reader that went away is no reason to stop serving.
fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Where everything is, once it runs.
pub fn say_where(running: &Running) {
    say(&format!(
        "\
GridTokenX is running.
  Console   {api}/
  API docs  {api}/docs
  Chain     {rpc} (mint {mint})
  Try       curl -s -H \"Authorization: Bearer $(make -s token ROLE=user SUB={PLAYER})\" '{api}/api/readings?limit=3'
  Events    make -s listen
  Stop      Ctrl-C
",
        api = running.api_url,
        rpc = shown_url(&running.rpc_url),
        mint = running.mint_address,
    ));
}

/// The report for people.
pub fn say_report(report: &Report, outcome: &Outcome, decimals: u8) {
    say(&report_text(report, outcome, decimals));
}

pub fn say_serving() {
    say("Serving until Ctrl-C.");
}

fn report_text(report: &Report, outcome: &Outcome, decimals: u8) -> String {
    let counts = outcome.counts;
    let tokens = tokens_of(outcome.base_units_minted, decimals);
    let mut lines = vec![
        format!(
            "Readings      {} submitted, {} accepted ({} reported by an earlier run), {} finalized",
            counts.submitted, counts.accepted, counts.duplicates, counts.finalized
        ),
        format!(
            "Tokens        {tokens} minted for them; the supply is {} base units",
            report.token_supply
        ),
        format!(
            "Transactions  {}, {:.1} readings and {:.0} lamports a reading (fees and new token accounts)",
            report.transactions, report.readings_per_transaction, report.lamports_per_reading
        ),
    ];
    if let (Some(p50), Some(p99)) = (outcome.latency_ms.p50, outcome.latency_ms.p99) {
        lines.push(format!("Minted after  {p50} ms (p50), {p99} ms (p99)"));
    }
    for refusal in &outcome.refusals {
        lines.push(format!("Refused       {refusal}"));
    }
    if counts.failed > 0 {
        lines.push(format!(
            "Failed        {} readings; GET /api/readings?state=failed lists them",
            counts.failed
        ));
    }
    lines.push(match (report.audit.ok, report.audit.differences.len()) {
        (true, _) => "Audit         ledger and chain agree".to_owned(),
        (false, differences) => {
            format!("Audit         {differences} differences; see make -s audit")
        }
    });
    lines.join("\n")
}

/// Whole tokens, exact.
fn tokens_of(base_units: Decimal, decimals: u8) -> String {
    let mut tokens = base_units;
    // At most 28 digits: a supply has 20.
    match tokens.set_scale(decimals.into()) {
        Ok(()) => format!("{} tokens", tokens.normalize()),
        Err(_) => format!("{base_units} base units"),
    }
}

/// A URL without what may be an access key: on other hosts than this one only scheme, host and port are shown.
pub fn shown_url(urls: &str) -> String {
    let shown = |url: &str| match reqwest::Url::parse(url) {
        Ok(parsed) if matches!(parsed.host_str(), Some("127.0.0.1" | "localhost" | "[::1]")) => {
            url.to_owned()
        }
        Ok(parsed) => parsed.origin().ascii_serialization(),
        Err(_) => "…".to_owned(),
    };
    urls.split(',')
        .map(|url| shown(url.trim()))
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_shown_exactly() {
        assert_eq!(
            tokens_of(Decimal::from(1_296_404_000_000u64), 9),
            "1296.404 tokens"
        );
        assert_eq!(
            tokens_of(Decimal::from(u64::MAX), 0),
            "18446744073709551615 tokens"
        );
    }

    #[test]
    fn an_access_key_is_not_shown() {
        assert_eq!(shown_url("http://127.0.0.1:8899"), "http://127.0.0.1:8899");
        assert_eq!(
            shown_url("https://rpc.example/secret?key=secret, https://u:secret@two.example:8443"),
            "https://rpc.example,https://two.example:8443"
        );
    }
}
