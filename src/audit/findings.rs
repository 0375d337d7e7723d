//! The differences that an audit has found so far.

use super::difference::Difference;

/// Differences that are listed; further ones are counted only.
const LISTED_MAX: usize = 1_000;

/// Keeps a bounded number of differences: a ledger in which every row is wrong must not fill the memory.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub listed: Vec<Difference>,
    /// Differences that were found and are not listed.
    pub beyond: u64,
}

impl Findings {
    pub fn add(&mut self, differences: impl IntoIterator<Item = Difference>) {
        for difference in differences {
            if self.listed.len() < LISTED_MAX {
                self.listed.push(difference);
            } else {
                self.beyond += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TxSignature;
    use uuid::Uuid;

    #[test]
    fn differences_that_are_not_listed_are_counted() {
        let mut findings = Findings::default();
        let released = |number| Difference::Released {
            reading_id: Uuid::from_u128(number),
            signature: TxSignature::from_bytes([0; 64]),
        };
        findings.add((0..LISTED_MAX as u128 + 7).map(released));
        assert_eq!((findings.listed.len(), findings.beyond), (LISTED_MAX, 7));
    }
}
