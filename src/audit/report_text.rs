//! The report as text.

use std::fmt;

use super::report::{AuditReport, ComparedScope};
use crate::domain::rfc3339_secs;

impl fmt::Display for AuditReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finished = rfc3339_secs(self.finished_at);
        writeln!(
            formatter,
            "Audit of the mint {} at slot {}, {finished}",
            self.mint_address, self.slot
        )?;
        if self.scope == ComparedScope::Incremental {
            writeln!(
                formatter,
                "Compared in this run: what is new since the last checkpoint, and a random sample of the old"
            )?;
        }
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
        let found = self.differences_found();
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
    use crate::audit::difference::Difference;
    use crate::audit::report::tests::report;
    use crate::domain::TxSignature;
    use uuid::Uuid;

    #[test]
    fn the_text_ends_with_the_verdict() {
        assert!(
            report(Vec::new())
                .to_string()
                .ends_with("Ledger and chain agree.\n")
        );
        let text = report(vec![Difference::Released {
            reading_id: Uuid::nil(),
            signature: TxSignature::from_bytes([0; 64]),
        }])
        .to_string();
        assert!(text.contains("\n1 difference:\n  - reading "), "{text}");
    }
}
