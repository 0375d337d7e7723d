//! The report of a play: what was submitted, what was paid for it, what it cost, and whether the books hold.

use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::Number;

use super::atomic_file::{self, Readers};
use super::play::LatencyMs;

/// The document of `--report FILE`. Base units are strings: they pass 2^53.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of this program.
    pub version: &'static str,
    /// Of this program's source; "unknown" when it was not built from a repository.
    pub commit: &'static str,
    pub api_url: String,
    pub rpc_url: String,
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
    pub readings_finalized: u64,
    /// Sum of the play's minted readings.
    pub base_units_minted: String,
    /// The mint's supply at the end, as the chain tells (`getTokenSupply`).
    pub token_supply: String,
    /// Mint transactions that landed, of the whole ledger.
    pub transactions: u64,
    /// Of the whole ledger: readings that those transactions paid, by their number.
    pub readings_per_transaction: f64,
    /// Of the whole ledger: fees and the rent of the token accounts that were created, by the readings paid.
    pub lamports_per_reading: f64,
    pub submit_to_minted_ms: LatencyMs,
    pub audit: AuditSummary,
}

/// What `gridtokenx audit` found.
#[derive(Clone, Debug, Serialize)]
pub struct AuditSummary {
    pub ok: bool,
    pub differences: Vec<serde_json::Value>,
    pub outstanding: serde_json::Value,
    pub burned: serde_json::Value,
    pub foreign: serde_json::Value,
}

impl Report {
    /// Whether every accepted reading is finalized and the audit holds. A play of which nothing was accepted did not succeed.
    pub fn holds(&self) -> bool {
        let was_played = self.readings_accepted > 0 || self.readings_submitted == 0;
        was_played && self.readings_finalized == self.readings_accepted && self.audit.ok
    }

    /// Writes the document whole, by rename.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        atomic_file::write(path, &text, Readers::Everybody)
    }
}
