//! The report of a play: its submissions, payments and cost, and whether the audit holds.

use std::io;
use std::path::{Path, PathBuf};

use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::Number;
use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;
use thiserror::Error;

use super::atomic_file::{self, Readers};
use super::public_url::public_url;
use super::replay::{Day, LatencyMs, Outcome};
use super::running::Running;
use crate::audit::{self, AuditError, AuditReport, Difference, ForeignMint, Outstanding, Total};
use crate::chain::{ChainError, Endpoints};
use crate::config::Config;
use crate::domain::TransactionFormat;
use crate::ledger::{self, LedgerError};

/// The document of `--report FILE`. Base units are strings because they exceed 2^53.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of this program.
    pub version: &'static str,
    /// Of this program's source; "unknown" when it was not built from a repository.
    pub commit: &'static str,
    pub api_url: String,
    /// On other hosts than this one without what may be an access key.
    pub rpc_url: String,
    /// Of the event feed.
    pub ws_url: String,
    pub mint_address: String,
    /// `YYYY-MM-DD`, or `fleet`.
    pub day: String,
    /// Tokens per kWh, exact.
    pub ratio: Number,
    /// Of the play: submissions that were answered.
    pub readings_submitted: u64,
    /// Of the play: accepted now, or by an earlier run of the same data directory.
    pub readings_accepted: u64,
    /// Of the play: confirmed on chain, finalized ones included.
    pub readings_minted: u64,
    /// Of the play.
    pub readings_finalized: u64,
    /// Sum of the play's minted readings.
    pub base_units_minted: String,
    /// The mint's supply at the end, as the chain reports it (`getTokenSupply`).
    pub token_supply: String,
    #[serde(flatten)]
    pub ledger: LedgerFigures,
    pub submit_to_minted_ms: LatencyMs,
    /// Of the whole ledger: format of the newest transaction that landed, `legacy` or `v1`; null before the first.
    pub transaction_format: Option<&'static str>,
    pub audit: AuditSummary,
}

/// The result of `gridtokenx audit`; its whole document is `gridtokenx audit --json`.
#[derive(Clone, Debug, Serialize)]
pub struct AuditSummary {
    pub ok: bool,
    #[serde(serialize_with = "audit::with_sentences")]
    pub differences: Vec<Difference>,
    pub outstanding: Outstanding,
    pub burned: Total,
    pub foreign: Vec<ForeignMint>,
}

impl From<AuditReport> for AuditSummary {
    fn from(report: AuditReport) -> AuditSummary {
        AuditSummary {
            ok: report.ok,
            differences: report.differences,
            outstanding: report.outstanding,
            burned: report.burned,
            foreign: report.foreign,
        }
    }
}

/// The report could not be made.
#[derive(Debug, Error)]
pub enum ReportError {
    #[error("the report {} cannot be written: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("the token's supply cannot be queried: {0}")]
    Supply(#[from] ChainError),
    #[error("the costs cannot be added up: {0}")]
    Costs(#[from] LedgerError),
    #[error("the audit did not finish: {0}")]
    Audit(#[from] AuditError),
}

/// Figures of the whole ledger.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LedgerFigures {
    /// Mint transactions that landed.
    pub transactions: u64,
    /// Readings that those transactions paid, by their number.
    pub readings_per_transaction: f64,
    /// Fees of those transactions and rent of the token accounts that they created, by the readings.
    pub lamports_per_reading: f64,
}

/// The system that was played on.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub running: &'a Running,
    pub config: &'a Config,
    pub pool: &'a PgPool,
    pub endpoints: &'a Endpoints,
    pub mint: Pubkey,
}

impl Report {
    /// Combines the results of the play, the audit, the ledger and the chain.
    pub async fn make(
        subject: Subject<'_>,
        day: Day,
        outcome: &Outcome,
    ) -> Result<Report, ReportError> {
        let Subject {
            running, config, ..
        } = subject;
        let audit = audit::audit(subject.pool, subject.endpoints).await?;
        audit::record(subject.pool, &audit)
            .await
            .map_err(AuditError::from)?;
        let costs = ledger::costs(subject.pool).await?;
        let counts = outcome.counts;
        Ok(Report {
            version: env!("CARGO_PKG_VERSION"),
            commit: env!("GRIDTOKENX_COMMIT"),
            api_url: running.api_url.clone(),
            rpc_url: public_url(&running.rpc_url),
            ws_url: running.ws_url.clone(),
            mint_address: running.mint_address.clone(),
            day: day.to_string(),
            ratio: number(config.tokenization.kwh_to_token_ratio),
            readings_submitted: counts.submitted,
            readings_accepted: counts.accepted,
            readings_minted: counts.minted,
            readings_finalized: counts.finalized,
            base_units_minted: outcome.base_units_minted.to_string(),
            token_supply: token_supply(subject).await?,
            ledger: LedgerFigures {
                transactions: costs.transactions,
                readings_per_transaction: per(costs.readings, costs.transactions),
                lamports_per_reading: per(costs.lamports, costs.readings),
            },
            submit_to_minted_ms: outcome.latency_ms,
            transaction_format: costs.newest_format.map(TransactionFormat::as_str),
            audit: AuditSummary::from(audit),
        })
    }

    /// Whether every accepted reading is finalized and the audit holds. A play without any accepted reading did not succeed.
    pub fn holds(&self) -> bool {
        let was_played = self.readings_accepted > 0 || self.readings_submitted == 0;
        was_played && self.readings_finalized == self.readings_accepted && self.audit.ok
    }

    /// Writes the document whole, by rename.
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        let written = text.and_then(|mut text| {
            text.push(b'\n');
            atomic_file::write(path, &text, Readers::All)
        });
        written.map_err(|source| ReportError::Write {
            path: path.to_owned(),
            source,
        })
    }
}

async fn token_supply(subject: Subject<'_>) -> Result<String, ChainError> {
    let endpoint = subject.endpoints.preferred();
    let supply = endpoint.background().get_token_supply(&subject.mint).await;
    supply
        .map(|supply| supply.amount)
        .map_err(|error| ChainError::from_client(endpoint.name(), &error))
}

/// In the digits of the setting.
fn number(decimal: Decimal) -> Number {
    // A decimal's digits are always a JSON number.
    decimal
        .to_string()
        .parse()
        .unwrap_or_else(|_| Number::from(0))
}

/// With three digits after the point; 0 when `count` is 0.
fn per(amount: u64, count: u64) -> f64 {
    if count == 0 {
        return 0.0;
    }
    // Rounded to three digits, so that what an f64 cannot hold does not show.
    (amount as f64 / count as f64 * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn report() -> Report {
        Report {
            version: "0.1.0",
            commit: "unknown",
            api_url: "http://127.0.0.1:8080".to_owned(),
            rpc_url: "http://127.0.0.1:8899".to_owned(),
            ws_url: "ws://127.0.0.1:8080/ws".to_owned(),
            mint_address: "So11111111111111111111111111111111111111112".to_owned(),
            day: Day::Fleet.to_string(),
            ratio: number(Decimal::new(10, 1)),
            readings_submitted: 8_380,
            readings_accepted: 8_380,
            readings_minted: 8_380,
            readings_finalized: 8_380,
            base_units_minted: "1296404000000".to_owned(),
            token_supply: "1296404000000".to_owned(),
            ledger: LedgerFigures {
                transactions: 480,
                readings_per_transaction: per(8_380, 480),
                lamports_per_reading: per(0, 0),
            },
            submit_to_minted_ms: LatencyMs {
                p50: Some(450),
                p99: None,
            },
            transaction_format: Some("v1"),
            audit: AuditSummary {
                ok: true,
                differences: vec![],
                outstanding: Outstanding {
                    readings: 0,
                    base_units: Total::ZERO,
                },
                burned: Total::ZERO,
                foreign: vec![],
            },
        }
    }

    #[test]
    fn the_document_has_the_agreed_members() {
        assert_eq!(
            serde_json::to_string(&report()).unwrap(),
            concat!(
                r#"{"version":"0.1.0","commit":"unknown","api_url":"http://127.0.0.1:8080","#,
                r#""rpc_url":"http://127.0.0.1:8899","ws_url":"ws://127.0.0.1:8080/ws","#,
                r#""mint_address":"So11111111111111111111111111111111111111112","day":"fleet","ratio":1.0,"#,
                r#""readings_submitted":8380,"readings_accepted":8380,"readings_minted":8380,"#,
                r#""readings_finalized":8380,"base_units_minted":"1296404000000","token_supply":"1296404000000","#,
                r#""transactions":480,"readings_per_transaction":17.458,"lamports_per_reading":0.0,"#,
                r#""submit_to_minted_ms":{"p50":450,"p99":null},"transaction_format":"v1","#,
                r#""audit":{"ok":true,"differences":[],"outstanding":{"readings":0,"base_units":"0"},"burned":"0","foreign":[]}}"#,
            )
        );
    }

    #[test]
    fn a_report_holds_when_everything_accepted_is_final_and_audited() {
        assert!(report().holds());
        for broken in [
            Report {
                readings_finalized: 8_379,
                ..report()
            },
            Report {
                audit: AuditSummary {
                    ok: false,
                    ..report().audit
                },
                ..report()
            },
            Report {
                readings_accepted: 0,
                readings_finalized: 0,
                ..report()
            },
        ] {
            assert!(!broken.holds(), "{broken:?}");
        }
    }

    #[test]
    fn it_is_written_by_rename() {
        let folder = std::env::temp_dir().join(format!("report-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("report.json");

        report().write(&path).unwrap();

        let read: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read, serde_json::to_value(report()).unwrap());
        let refused = report()
            .write(&folder.join("nowhere/report.json"))
            .unwrap_err();
        assert!(matches!(refused, ReportError::Write { .. }), "{refused}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
