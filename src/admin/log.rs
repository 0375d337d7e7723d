//! The admin log: who did what, when, and that nobody changed it since.
//!
//! Invariant: an action and its entry commit together or not at all, so [`record`] works in the transaction of the action.
//! Entries are numbered without gaps, and each one's hash covers the one before. Kept by one row, the head, which is locked
//! first: appends stand in line behind it. Triggers refuse every change; whoever gets around them, as a superuser can,
//! breaks the chain, and [`verify`] names the first entry that does not fit. Only a whole chain written anew from some entry
//! on, head included, still fits: whoever has noted an earlier hash elsewhere sees that too.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, PgPool};

use super::action::AdminAction;
use super::log_entry::{BEFORE_THE_FIRST, LogEntry, LogNumber};
use crate::domain::Hash32;

/// Entries in one page at most.
pub const ENTRIES_PER_PAGE_MAX: u16 = 1_000;
/// Entries read at once while the chain is verified: memory does not grow with the log.
const ENTRIES_PER_STEP: u16 = 500;

#[derive(FromRow)]
struct Head {
    last_number: LogNumber,
    last_hash: Hash32,
}

/// Appends the action in the caller's transaction, which ends soon: until then no other action can be logged.
pub async fn record(
    connection: &mut PgConnection,
    actor: &str,
    action: &AdminAction,
) -> sqlx::Result<LogNumber> {
    let head: Head = sqlx::query_as(
        "SELECT last_number, last_hash
         FROM admin_log_head
         -- One at a time: the next entry chains to ours.
         FOR UPDATE",
    )
    .fetch_one(&mut *connection)
    .await?;
    // The database's clock, read after the lock was won: the same for all processes, and in the order of the numbers.
    let at: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(&mut *connection)
        .await?;
    let mut entry = LogEntry {
        number: head.last_number.next(),
        at,
        actor: actor.to_owned(),
        action: action.name().to_owned(),
        details: action.details(),
        previous_hash: head.last_hash,
        hash: BEFORE_THE_FIRST,
    };
    entry.hash = entry.computed_hash();
    append(connection, &entry).await?;
    Ok(entry.number)
}

async fn append(connection: &mut PgConnection, entry: &LogEntry) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO admin_log (number, at, actor, action, details, previous_hash, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(entry.number)
    .bind(entry.at)
    .bind(&entry.actor)
    .bind(&entry.action)
    .bind(&entry.details)
    .bind(entry.previous_hash)
    .bind(entry.hash)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "UPDATE admin_log_head
         SET last_number = $1, last_hash = $2",
    )
    .bind(entry.number)
    .bind(entry.hash)
    .execute(connection)
    .await?;
    Ok(())
}

/// At most `limit` entries after `after`, in order. `limit` is taken as 1 to [`ENTRIES_PER_PAGE_MAX`].
pub async fn read(pool: &PgPool, after: LogNumber, limit: u16) -> sqlx::Result<Vec<LogEntry>> {
    sqlx::query_as(
        "SELECT number, at, actor, action, details, previous_hash, hash
         FROM admin_log
         WHERE number > $1
         ORDER BY number
         LIMIT $2",
    )
    .bind(after)
    .bind(i64::from(limit.clamp(1, ENTRIES_PER_PAGE_MAX)))
    .fetch_all(pool)
    .await
}

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogVerdict {
    /// Entries that fit, from the first one on.
    pub entries: u64,
    /// Of the last one that fits: whoever notes it elsewhere notices if everything up to it is ever written anew.
    pub last_hash: Hash32,
    /// `None`: the whole chain fits.
    pub broken: Option<BrokenEntry>,
}

/// The first entry that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenEntry {
    pub number: LogNumber,
    pub reason: String,
}

/// Walks the chain from the first entry to the head. What is appended meanwhile is left to the next time.
pub async fn verify(pool: &PgPool) -> sqlx::Result<LogVerdict> {
    // One statement, so that head and newest entry are of one moment.
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
    let mut chain = Chain::default();
    while chain.last < until && chain.broken.is_none() {
        let mut entries = read(pool, chain.last, ENTRIES_PER_STEP).await?;
        entries.retain(|entry| entry.number <= until);
        if entries.is_empty() {
            break;
        }
        entries.iter().for_each(|entry| chain.check(entry));
    }
    Ok(chain.end(head))
}

/// The chain as far as it was walked and fits.
#[derive(Debug)]
struct Chain {
    last: LogNumber,
    last_hash: Hash32,
    broken: Option<BrokenEntry>,
}

impl Default for Chain {
    fn default() -> Chain {
        Chain {
            last: LogNumber::default(),
            last_hash: BEFORE_THE_FIRST,
            broken: None,
        }
    }
}

impl Chain {
    fn check(&mut self, entry: &LogEntry) {
        if self.broken.is_some() {
            return;
        }
        let expected = self.last.next();
        if entry.number != expected {
            self.break_at(expected, "is missing: later ones are there");
        } else if entry.previous_hash != self.last_hash {
            self.break_at(expected, "does not name the hash of the one before it");
        } else if entry.hash != entry.computed_hash() {
            self.break_at(
                expected,
                "was changed: its hash does not belong to what it says",
            );
        } else {
            self.last = entry.number;
            self.last_hash = entry.hash;
        }
    }

    fn break_at(&mut self, number: LogNumber, reason: &str) {
        self.broken = Some(BrokenEntry {
            number,
            reason: reason.to_owned(),
        });
    }

    fn end(mut self, head: Option<(LogNumber, Hash32)>) -> LogVerdict {
        if self.broken.is_none() {
            match head {
                None => self.break_at(
                    self.last.next(),
                    "cannot be told: the head of the log is missing",
                ),
                Some((last_number, _)) if last_number > self.last => {
                    let reason = format!("is missing: {last_number} were written");
                    self.break_at(self.last.next(), &reason);
                }
                Some((last_number, _)) if last_number < self.last => {
                    self.break_at(last_number.next(), "was not written by the service");
                }
                Some((_, last_hash)) if last_hash != self.last_hash => {
                    self.break_at(self.last, "is not the one that was written last");
                }
                Some(_) => {}
            }
        }
        LogVerdict {
            entries: self.last.get() as u64,
            last_hash: self.last_hash,
            broken: self.broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn verdict(entries: &[LogEntry], head: Option<(LogNumber, Hash32)>) -> LogVerdict {
        let mut chain = Chain::default();
        entries.iter().for_each(|entry| chain.check(entry));
        chain.end(head)
    }

    fn head_of(entries: &[LogEntry]) -> Option<(LogNumber, Hash32)> {
        entries.last().map(|last| (last.number, last.hash))
    }

    fn broken(verdict: &LogVerdict) -> (i64, &str) {
        let broken = verdict.broken.as_ref().unwrap();
        (broken.number.get(), &broken.reason)
    }

    #[test]
    fn a_whole_chain_fits() {
        let entries = chain(5);
        let whole = verdict(&entries, head_of(&entries));
        assert_eq!((whole.entries, whole.broken), (5, None));
        let nothing = verdict(&[], Some((LogNumber::default(), BEFORE_THE_FIRST)));
        assert_eq!((nothing.entries, nothing.broken), (0, None));
    }

    #[test]
    fn whatever_is_done_to_it_the_first_broken_entry_is_named() {
        let entries = chain(5);
        let head = head_of(&entries);

        let mut changed = entries.clone();
        changed[2].actor = "somebody else".to_owned();
        assert!(
            broken(&verdict(&changed, head))
                .1
                .starts_with("was changed")
        );
        assert_eq!(broken(&verdict(&changed, head)).0, 3);
        changed[2].hash = changed[2].computed_hash();
        assert_eq!(broken(&verdict(&changed, head)).0, 4);

        let mut holed = entries.clone();
        holed.remove(1);
        assert_eq!(broken(&verdict(&holed, head)).0, 2);

        assert_eq!(
            broken(&verdict(&entries[..4], head)),
            (5, "is missing: 5 were written")
        );
        assert_eq!(broken(&verdict(&[], head)).0, 1);
        assert_eq!(broken(&verdict(&entries, head_of(&entries[..3]))).0, 4);
        assert_eq!(broken(&verdict(&entries, None)).0, 6);
        let other = head.map(|(number, _)| (number, [7; 32]));
        assert_eq!(broken(&verdict(&entries, other)).0, 5);
    }
}
