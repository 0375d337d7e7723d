//! Verifies the chain, from the first entry to the head.

use std::fmt;

use sqlx::PgPool;

use super::entry::{BEFORE_THE_FIRST, LogEntry, LogNumber};
use super::log_table;
use crate::domain::Hash32;

/// Entries read at once: memory does not grow with the log.
const ENTRIES_PER_STEP: u16 = 500;

/// The result of [`verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainCheck {
    /// Entries that fit, counted from the first one.
    pub entries: u64,
    /// Hash of the last entry that fits. Kept outside this database, it reveals a chain that was rewritten as a whole.
    pub last_hash: Hash32,
    /// `None`: the whole chain fits.
    pub broken: Option<BrokenEntry>,
}

/// The first entry that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenEntry {
    pub number: LogNumber,
    pub reason: BrokenEntryReason,
}

/// The fault of an entry; completes a sentence that begins with "entry 7".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenEntryReason {
    /// Entries after it exist.
    Missing,
    /// The head counts more entries than there are.
    MissingBeforeHead {
        last_number: LogNumber,
    },
    WrongPreviousHash,
    WrongHash,
    /// Without the head the number of the last entry is unknown.
    HeadMissing,
    /// The head counts fewer entries than there are.
    BeyondHead,
    /// The head has another hash.
    NotTheLastWritten,
}

impl fmt::Display for BrokenEntryReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BrokenEntryReason::Missing => {
                formatter.write_str("is missing, but later entries exist")
            }
            BrokenEntryReason::MissingBeforeHead { last_number } => {
                write!(formatter, "is missing: {last_number} were written")
            }
            BrokenEntryReason::WrongPreviousHash => {
                formatter.write_str("does not name the hash of the one before it")
            }
            BrokenEntryReason::WrongHash => {
                formatter.write_str("was changed: its hash does not match its content")
            }
            BrokenEntryReason::HeadMissing => {
                formatter.write_str("cannot be verified: the head of the log is missing")
            }
            BrokenEntryReason::BeyondHead => formatter.write_str("was not written by the service"),
            BrokenEntryReason::NotTheLastWritten => {
                formatter.write_str("is not the one that was written last")
            }
        }
    }
}

/// Walks the chain from the first entry to the head. Entries that are appended meanwhile are not checked.
pub async fn verify(pool: &PgPool) -> sqlx::Result<ChainCheck> {
    // One statement, so that head and newest entry belong to one snapshot.
    let (newest, last_number, last_hash): (LogNumber, Option<LogNumber>, Option<Hash32>) =
        sqlx::query_as(
            "SELECT newest.number, head.last_number, head.last_hash
             FROM (SELECT COALESCE(max(number), 0) AS number FROM admin_log) AS newest
             LEFT JOIN admin_log_head AS head ON TRUE",
        )
        .fetch_one(pool)
        .await?;
    let head = last_number.zip(last_hash);
    let until = newest.max(last_number.unwrap_or_default());
    let mut walk = ChainWalk::default();
    while walk.last < until && walk.broken.is_none() {
        let mut entries = log_table::read(pool, walk.last, ENTRIES_PER_STEP).await?;
        entries.retain(|entry| entry.number <= until);
        if entries.is_empty() {
            break;
        }
        entries.iter().for_each(|entry| walk.check(entry));
    }
    Ok(walk.finish(head))
}

/// The chain as far as it was walked and fits.
#[derive(Debug)]
struct ChainWalk {
    last: LogNumber,
    last_hash: Hash32,
    broken: Option<BrokenEntry>,
}

impl Default for ChainWalk {
    fn default() -> ChainWalk {
        ChainWalk {
            last: LogNumber::default(),
            last_hash: BEFORE_THE_FIRST,
            broken: None,
        }
    }
}

impl ChainWalk {
    fn check(&mut self, entry: &LogEntry) {
        if self.broken.is_some() {
            return;
        }
        let expected = self.last.next();
        if entry.number != expected {
            self.break_at(expected, BrokenEntryReason::Missing);
        } else if entry.previous_hash != self.last_hash {
            self.break_at(expected, BrokenEntryReason::WrongPreviousHash);
        } else if entry.hash != entry.computed_hash() {
            self.break_at(expected, BrokenEntryReason::WrongHash);
        } else {
            self.last = entry.number;
            self.last_hash = entry.hash;
        }
    }

    fn break_at(&mut self, number: LogNumber, reason: BrokenEntryReason) {
        self.broken = Some(BrokenEntry { number, reason });
    }

    fn finish(mut self, head: Option<(LogNumber, Hash32)>) -> ChainCheck {
        if self.broken.is_none() {
            match head {
                None => self.break_at(self.last.next(), BrokenEntryReason::HeadMissing),
                Some((last_number, _)) if last_number > self.last => self.break_at(
                    self.last.next(),
                    BrokenEntryReason::MissingBeforeHead { last_number },
                ),
                Some((last_number, _)) if last_number < self.last => {
                    self.break_at(last_number.next(), BrokenEntryReason::BeyondHead);
                }
                Some((_, last_hash)) if last_hash != self.last_hash => {
                    self.break_at(self.last, BrokenEntryReason::NotTheLastWritten);
                }
                Some(_) => {}
            }
        }
        ChainCheck {
            entries: self.last.get().unsigned_abs(),
            last_hash: self.last_hash,
            broken: self.broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    fn chain(length: i64) -> Vec<LogEntry> {
        let mut previous_hash = BEFORE_THE_FIRST;
        (1..=length)
            .filter_map(LogNumber::new)
            .map(|number| {
                let mut entry = LogEntry {
                    number,
                    at: DateTime::UNIX_EPOCH,
                    actor: "admin".to_owned(),
                    action: "toggle_auto_mint".to_owned(),
                    details: "{}".to_owned(),
                    previous_hash,
                    hash: BEFORE_THE_FIRST,
                };
                entry.hash = entry.computed_hash();
                previous_hash = entry.hash;
                entry
            })
            .collect()
    }

    fn check(entries: &[LogEntry], head: Option<(LogNumber, Hash32)>) -> ChainCheck {
        let mut walk = ChainWalk::default();
        entries.iter().for_each(|entry| walk.check(entry));
        walk.finish(head)
    }

    fn head_of(entries: &[LogEntry]) -> Option<(LogNumber, Hash32)> {
        entries.last().map(|last| (last.number, last.hash))
    }

    fn broken(check: &ChainCheck) -> (i64, String) {
        let broken = check.broken.as_ref().unwrap();
        (broken.number.get(), broken.reason.to_string())
    }

    #[test]
    fn a_whole_chain_fits() {
        let entries = chain(5);
        let whole = check(&entries, head_of(&entries));
        assert_eq!((whole.entries, whole.broken), (5, None));
        let empty = check(&[], Some((LogNumber::default(), BEFORE_THE_FIRST)));
        assert_eq!((empty.entries, empty.broken), (0, None));
    }

    #[test]
    fn every_manipulation_is_detected_at_the_first_broken_entry() {
        let entries = chain(5);
        let head = head_of(&entries);

        let mut changed = entries.clone();
        changed[2].actor = "another actor".to_owned();
        assert!(broken(&check(&changed, head)).1.starts_with("was changed"));
        assert_eq!(broken(&check(&changed, head)).0, 3);
        changed[2].hash = changed[2].computed_hash();
        assert_eq!(broken(&check(&changed, head)).0, 4);

        let mut with_gap = entries.clone();
        with_gap.remove(1);
        assert_eq!(broken(&check(&with_gap, head)).0, 2);

        assert_eq!(
            broken(&check(&entries[..4], head)),
            (5, "is missing: 5 were written".to_owned())
        );
        assert_eq!(broken(&check(&[], head)).0, 1);
        assert_eq!(broken(&check(&entries, head_of(&entries[..3]))).0, 4);
        assert_eq!(broken(&check(&entries, None)).0, 6);
        let other_head = head.map(|(number, _)| (number, [7; 32]));
        assert_eq!(broken(&check(&entries, other_head)).0, 5);
    }
}
