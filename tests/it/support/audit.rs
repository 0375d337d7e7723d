//! Runs `gridtokenx audit` with arguments and reads its report.

use std::process::Output;

use serde_json::Value;

use super::Grid;
use super::server::program;

/// `gridtokenx audit --json` and these arguments.
pub async fn audit_with(grid: &Grid, arguments: &[&str]) -> Output {
    program()
        .args(["audit", "--json"])
        .args(arguments)
        .envs(grid.environment())
        .env("USER", "ann")
        .output()
        .await
        .unwrap()
}

/// The one sentence with which it is refused: the audit could not run.
pub async fn refused(grid: &Grid, arguments: &[&str]) -> String {
    let output = audit_with(grid, arguments).await;
    let sentence = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{sentence}");
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
    assert!(output.stdout.is_empty());
    sentence
}

/// The report of the audit that follows, which holds.
pub async fn done(grid: &Grid, arguments: &[&str]) -> Value {
    let output = audit_with(grid, arguments).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{stderr}"));
    assert_eq!(output.status.code(), Some(0), "{stderr} {report:#}");
    assert_eq!(report["ok"], true);
    report
}

/// The one difference of this kind.
pub fn difference<'a>(report: &'a Value, kind: &str) -> &'a Value {
    let differences = report["differences"].as_array().unwrap();
    let mut of_kind = differences
        .iter()
        .filter(|difference| difference["kind"] == kind);
    match (of_kind.next(), of_kind.next()) {
        (Some(one), None) => one,
        _ => panic!("not one {kind} in {report:#}"),
    }
}
