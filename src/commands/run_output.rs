//! Prints the output of `gridtokenx run`.

use std::io::{self, Write};

use rust_decimal::Decimal;

use super::public_url::public_url;
use super::replay::{METER_OWNER, Outcome};
use super::report::Report;
use super::running::Running;

/// Keeps serving when standard output is closed.
fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Prints the addresses of the running system.
pub fn print_addresses(running: &Running) {
    print(&format!(
        "\
GridTokenX is running.
  Console   {api}/
  API docs  {api}/docs
  Chain     {rpc} (mint {mint})
  Try       curl -s -H \"Authorization: Bearer $(make -s token ROLE=user SUB={METER_OWNER})\" '{api}/api/readings?limit=3'
  Events    make -s listen
  Stop      Ctrl-C
",
        api = running.api_url,
        rpc = public_url(&running.rpc_url),
        mint = running.mint_address,
    ));
}

/// Prints the report in words.
pub fn print_report(report: &Report, outcome: &Outcome, decimals: u8) {
    print(&report_text(report, outcome, decimals));
}

pub fn print_serving() {
    print("Serving until Ctrl-C.");
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
            "Transactions  {} ({}), {:.1} readings and {:.0} lamports a reading (fees and new token accounts)",
            report.ledger.transactions,
            report.transaction_format.unwrap_or("none"),
            report.ledger.readings_per_transaction,
            report.ledger.lamports_per_reading
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
}
