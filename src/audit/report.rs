//! What an audit says at its end, to people and to programs.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};

use super::admin_log::AdminLogReport;
use super::difference::Difference;
use crate::domain::BaseUnits;

/// A sum of base units. What was ever minted may pass the 64 bits that a supply has, since tokens may be burned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Total(u128);

impl Total {
    pub const ZERO: Total = Total(0);

    pub fn new(base_units: u128) -> Total {
        Total(base_units)
    }

    /// Zero where `other` is larger.
    pub fn less(self, other: Total) -> Total {
        Total(self.0.saturating_sub(other.0))
    }
}

impl From<BaseUnits> for Total {
    fn from(base_units: BaseUnits) -> Total {
        Total(u128::from(base_units.get()))
    }
}

/// 2^64 amounts of 2^64 each would be needed to pass 128 bits.
impl Add for Total {
    type Output = Total;

    fn add(self, other: Total) -> Total {
        Total(self.0 + other.0)
    }
}

impl AddAssign for Total {
    fn add_assign(&mut self, other: Total) {
        *self = *self + other;
    }
}

impl Sum for Total {
    fn sum<I: Iterator<Item = Total>>(totals: I) -> Total {
        totals.fold(Total::ZERO, Total::add)
    }
}

impl fmt::Display for Total {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// As a string, like all base units.
impl Serialize for Total {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The document of `gridtokenx audit --json`.
#[derive(Clone, Debug, Serialize)]
pub struct AuditReport {
    /// No differences.
    pub ok: bool,
    pub mint_address: String,
    /// Readings of landed mint transactions, finalized ones included.
    pub readings_minted: u64,
    pub readings_finalized: u64,
    /// Mint transactions that the ledger calls landed.
    pub transactions: u64,
    /// What the readings of those transactions are worth.
    pub base_units_ledger: Total,
    /// What those transactions, and the mints that the ledger lacks, paid on chain.
    pub base_units_chain: Total,
    /// At `slot`.
    pub token_supply: BaseUnits,
    pub outstanding: Outstanding,
    /// Minted by our authority, but in nobody's account any more.
    pub burned: Total,
    /// Landed mints without readings that an admin has booked.
    pub foreign: Vec<ForeignMint>,
    pub admin_log: AdminLogReport,
    #[serde(serialize_with = "with_sentences")]
    pub differences: Vec<Difference>,
    /// Differences that were found and are not listed.
    pub differences_beyond: u64,
    #[serde(serialize_with = "rfc3339")]
    pub finished_at: DateTime<Utc>,
    /// Supply and history are compared as of this slot.
    pub slot: u64,
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
    pub signature: String,
    pub slot: u64,
    pub base_units: Total,
    pub memo: Option<String>,
    pub booked_reason: String,
}

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

fn rfc3339<S: Serializer>(moment: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&moment.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// For people.
impl fmt::Display for AuditReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finished = self.finished_at.to_rfc3339_opts(SecondsFormat::Secs, true);
        writeln!(
            formatter,
            "Audit of the mint {} at slot {}, {finished}",
            self.mint_address, self.slot
        )?;
        writeln!(formatter)?;
        writeln!(
            formatter,
            "  readings minted      {}, of which finalized {}",
            self.readings_minted, self.readings_finalized
        )?;
        writeln!(formatter, "  mint transactions    {}", self.transactions)?;
        writeln!(
            formatter,
            "  ledger               {} base units",
            self.base_units_ledger
        )?;
        writeln!(
            formatter,
            "  chain                {} base units",
            self.base_units_chain
        )?;
        writeln!(
            formatter,
            "  token supply         {} base units, burned {}",
            self.token_supply, self.burned
        )?;
        writeln!(
            formatter,
            "  outstanding          {} readings, {} base units",
            self.outstanding.readings, self.outstanding.base_units
        )?;
        for foreign in &self.foreign {
            writeln!(
                formatter,
                "  foreign              {} base units by {} in slot {}: {}",
                foreign.base_units, foreign.signature, foreign.slot, foreign.booked_reason
            )?;
        }
        writeln!(
            formatter,
            "  admin log            {} entries, the last hash {}",
            self.admin_log.entries, self.admin_log.last_hash
        )?;
        writeln!(formatter)?;
        if self.ok {
            return writeln!(formatter, "Ledger and chain agree.");
        }
        let found = self.differences.len() as u64 + self.differences_beyond;
        writeln!(
            formatter,
            "{found} difference{}:",
            if found == 1 { "" } else { "s" }
        )?;
        for difference in &self.differences {
            writeln!(formatter, "  - {difference}")?;
        }
        if self.differences_beyond > 0 {
            writeln!(formatter, "  and {} more", self.differences_beyond)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use solana_sdk::signature::Signature;
    use uuid::Uuid;

    fn report(differences: Vec<Difference>) -> AuditReport {
        AuditReport {
            ok: differences.is_empty(),
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
    fn the_document_holds_amounts_as_strings_and_a_sentence_per_difference() {
        let released = Difference::Released {
            reading_id: Uuid::nil(),
            signature: Signature::default(),
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

    #[test]
    fn people_read_the_verdict_last() {
        assert!(
            report(Vec::new())
                .to_string()
                .ends_with("Ledger and chain agree.\n")
        );
        let text = report(vec![Difference::Released {
            reading_id: Uuid::nil(),
            signature: Signature::default(),
        }])
        .to_string();
        assert!(text.contains("\n1 difference:\n  - reading "), "{text}");
    }
}
