//! An entry of the admin log, and its hash: pure.
//!
//! The hash is SHA-256 over these bytes, one after another (`docs/admin-log.md`, with a vector):
//!
//! | bytes | what |
//! |---|---|
//! | 22 | `gridtokenx admin log 1` in ASCII: no other hash of this product has this prefix |
//! | 32 | the hash of the previous entry; 32 zero bytes for the first |
//! | 8 | number, unsigned, big-endian |
//! | 8 | moment, microseconds since 1970-01-01T00:00:00Z, signed, big-endian |
//! | 4 + n | actor: length in bytes, unsigned, big-endian, then UTF-8 |
//! | 4 + n | action, the same way |
//! | 4 + n | details, the same way: the JSON text as it is stored |

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::domain::Hash32;

const DOMAIN: &[u8; 22] = b"gridtokenx admin log 1";

/// The previous hash of the first entry.
pub const BEFORE_THE_FIRST: Hash32 = [0; 32];

/// Number of an entry: 1, 2, 3 … without gaps. 0 is the position before the first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, sqlx::Type)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct LogNumber(i64);

impl LogNumber {
    /// `None` for a negative number.
    pub fn new(number: i64) -> Option<LogNumber> {
        (number >= 0).then_some(LogNumber(number))
    }

    pub fn get(self) -> i64 {
        self.0
    }

    pub fn next(self) -> LogNumber {
        LogNumber(self.0.saturating_add(1))
    }
}

impl fmt::Display for LogNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// One action of an admin, as stored.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct LogEntry {
    pub number: LogNumber,
    /// With microseconds.
    pub at: DateTime<Utc>,
    /// Subject of the admin's token; `operator NAME` for an action of the command line.
    pub actor: String,
    pub action: String,
    /// JSON object, as text.
    pub details: String,
    pub previous_hash: Hash32,
    pub hash: Hash32,
}

impl LogEntry {
    /// The hash over all other fields of the entry.
    pub fn computed_hash(&self) -> Hash32 {
        let mut hasher = Sha256::new();
        hasher.update(DOMAIN);
        hasher.update(self.previous_hash);
        hasher.update(self.number.0.to_be_bytes());
        hasher.update(self.at.timestamp_micros().to_be_bytes());
        for text in [&self.actor, &self.action, &self.details] {
            // The texts come from a request of at most a mebibyte, so 32 bits hold every length.
            hasher.update((text.len() as u32).to_be_bytes());
            hasher.update(text);
        }
        hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::hex;

    fn entry() -> LogEntry {
        LogEntry {
            number: LogNumber(1),
            at: "2026-11-25T04:00:00.000001Z".parse().unwrap(),
            actor: "operator-ö".to_owned(),
            action: "toggle_auto_mint".to_owned(),
            details: r#"{"enabled":false}"#.to_owned(),
            previous_hash: BEFORE_THE_FIRST,
            hash: [0; 32],
        }
    }

    #[test]
    fn the_hash_matches_the_documented_vector() {
        let mut entry = entry();
        entry.actor = "operator".to_owned();
        let hash = hex(&entry.computed_hash());
        assert_eq!(
            hash,
            "40f3ca146fc5943ef8ca0ba4af48038c309cad5312e23a57c4f208aa94c1b987"
        );
        assert!(include_str!("../../docs/admin-log.md").contains(&hash));
    }

    #[test]
    fn the_hash_covers_every_field() {
        let hash = entry().computed_hash();
        let changed: [fn(&mut LogEntry); 7] = [
            |entry| entry.number = LogNumber(2),
            |entry| entry.at += chrono::TimeDelta::microseconds(1),
            |entry| entry.actor.push('x'),
            |entry| entry.action.push('x'),
            |entry| entry.details.push(' '),
            |entry| entry.previous_hash[31] = 1,
            // The same characters, divided differently between the texts.
            |entry| {
                let last = entry.actor.pop().unwrap();
                entry.action.insert(0, last);
            },
        ];
        for change in changed {
            let mut other = entry();
            change(&mut other);
            assert_ne!(other.computed_hash(), hash, "{other:?}");
        }
        let mut same = entry();
        same.hash = [9; 32];
        assert_eq!(same.computed_hash(), hash, "the stored hash is not hashed");
    }
}
