//! The report of an audit.

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::admin_log_check::AdminLogReport;
use super::difference::Difference;
use super::total::Total;
use crate::domain::{BaseUnits, TxSignature, serialize_rfc3339_micros};

/// The document of `gridtokenx audit --json`.
#[derive(Clone, Debug, Serialize)]
pub struct AuditReport {
    /// No difference was found.
    pub ok: bool,
    /// The part that was compared in this run; the sums are of everything.
    pub scope: ComparedScope,
    pub mint_address: String,
    /// Readings of landed mint transactions, finalized ones included.
    pub readings_minted: u64,
    pub readings_finalized: u64,
    /// Mint transactions that have landed according to the ledger.
    pub transactions: u64,
    /// The worth of the readings of those transactions.
    pub base_units_ledger: Total,
    /// Paid on chain by those transactions and by the mints that the ledger lacks.
    pub base_units_chain: Total,
    /// At `slot`.
    pub token_supply: BaseUnits,
    pub outstanding: Outstanding,
    /// Minted by our authority, but no longer in any account.
    pub burned: Total,
    /// Landed mints without readings that an admin has booked.
    pub foreign: Vec<ForeignMint>,
    pub admin_log: AdminLogReport,
    #[serde(serialize_with = "with_sentences")]
    pub differences: Vec<Difference>,
    /// Differences that were found and are not listed.
    pub differences_beyond: u64,
    #[serde(serialize_with = "serialize_rfc3339_micros")]
    pub finished_at: DateTime<Utc>,
    /// Supply and history are compared as of this slot.
    pub slot: u64,
}

impl AuditReport {
    /// All differences that were found, listed or not.
    pub fn differences_found(&self) -> u64 {
        u64::try_from(self.differences.len())
            .unwrap_or(u64::MAX)
            .saturating_add(self.differences_beyond)
    }
}

/// The part of the ledger that an audit compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ComparedScope {
    /// Everything.
    Full,
    /// What is new since the last checkpoint, and a random sample of the old.
    Incremental,
}

impl ComparedScope {
    pub fn as_str(self) -> &'static str {
        match self {
            ComparedScope::Full => "full",
            ComparedScope::Incremental => "incremental",
        }
    }
}

/// Accepted readings that are not minted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Outstanding {
    pub readings: u64,
    pub base_units: Total,
}

/// A landed mint of our authority that was booked without a reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForeignMint {
    pub signature: TxSignature,
    pub slot: u64,
    pub base_units: Total,
    pub memo: Option<String>,
    pub booked_reason: String,
}

/// Serializes each difference together with its sentence, as `message`.
pub(crate) fn with_sentences<S: Serializer>(
    differences: &[Difference],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct WithSentence<'a> {
        message: String,
        #[serde(flatten)]
        difference: &'a Difference,
    }
    serializer.collect_seq(differences.iter().map(|difference| WithSentence {
        message: difference.to_string(),
        difference,
    }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::TxSignature;
    use uuid::Uuid;

    /// A report with these differences.
    pub(in crate::audit) fn report(differences: Vec<Difference>) -> AuditReport {
        AuditReport {
            ok: differences.is_empty(),
            scope: ComparedScope::Full,
            mint_address: "So11111111111111111111111111111111111111112".to_owned(),
            readings_minted: 40,
            readings_finalized: 38,
            transactions: 3,
            base_units_ledger: Total::new(125_000_000_000),
            base_units_chain: Total::new(125_000_000_000),
            token_supply: BaseUnits::new(124_999_999_999),
            outstanding: Outstanding {
                readings: 2,
                base_units: Total::new(5),
            },
            burned: Total::new(1),
            foreign: Vec::new(),
            admin_log: AdminLogReport {
                ok: true,
                entries: 3,
                last_hash: "00".repeat(32),
            },
            differences,
            differences_beyond: 0,
            finished_at: "2026-11-25T04:00:00.000001Z".parse().unwrap(),
            slot: 77,
        }
    }

    #[test]
    fn the_document_contains_amounts_as_strings_and_a_sentence_per_difference() {
        let released = Difference::Released {
            reading_id: Uuid::nil(),
            signature: TxSignature::from_bytes([0; 64]),
        };
        let json = serde_json::to_value(report(vec![released.clone()])).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["base_units_chain"], "125000000000");
        assert_eq!(json["token_supply"], "124999999999");
        assert_eq!(json["outstanding"]["base_units"], "5");
        assert_eq!(json["burned"], "1");
        assert_eq!(json["finished_at"], "2026-11-25T04:00:00.000001Z");
        assert_eq!(json["differences"][0]["kind"], "released");
        assert_eq!(json["differences"][0]["message"], released.to_string());
    }
}
