//! The ledger's one row, as far as the breaker and the history scan read it.

use chrono::{DateTime, Utc};
use solana_sdk::hash::Hash;
use sqlx::{FromRow, PgConnection, PgExecutor};
use thiserror::Error;

use super::identity::DatabaseIdentity;
use crate::db::BigInt;
use crate::domain::{LedgerBreakerState, OpenReason};
use crate::ledger::error::LedgerError;

/// The breaker at one moment: whether it is the same later, and at which finalized height a scan may close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct BreakerSnapshot {
    #[sqlx(try_from = "String")]
    pub breaker: StoredBreaker,
    pub breaker_opened_at: Option<DateTime<Utc>>,
    pub breaker_closes_after_height: Option<BigInt>,
}

/// The row, as stored.
#[derive(Clone, Debug, FromRow)]
pub struct LedgerRow {
    #[sqlx(flatten)]
    pub snapshot: BreakerSnapshot,
    pub breaker_reason: Option<String>,
    pub watermark_slot: BigInt,
    pub genesis_hash: String,
    #[sqlx(flatten)]
    pub(super) identity: DatabaseIdentity,
}

/// The column `breaker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredBreaker {
    Closed,
    /// Open: the database is another one than before, or its server was restarted.
    Identity,
    /// Open: a landed mint that the ledger lacks or holds as dead.
    Mismatch,
}

impl StoredBreaker {
    pub fn as_str(self) -> &'static str {
        match self {
            StoredBreaker::Closed => "closed",
            StoredBreaker::Identity => "identity",
            StoredBreaker::Mismatch => "mismatch",
        }
    }

    /// `reason`: the column `breaker_reason`, which is set while the breaker is open.
    pub fn state(self, reason: Option<String>) -> LedgerBreakerState {
        let sentence = reason.unwrap_or_else(|| self.as_str().to_owned());
        let reason = match self {
            StoredBreaker::Closed => return LedgerBreakerState::Closed,
            StoredBreaker::Identity => OpenReason::IdentityChanged { sentence },
            StoredBreaker::Mismatch => OpenReason::Mismatch { sentence },
        };
        LedgerBreakerState::Open { reason }
    }
}

#[derive(Debug, PartialEq, Eq, Error)]
#[error("{0} is not a state of the ledger breaker")]
pub struct UnknownBreaker(String);

impl TryFrom<String> for StoredBreaker {
    type Error = UnknownBreaker;

    fn try_from(text: String) -> Result<StoredBreaker, UnknownBreaker> {
        [
            StoredBreaker::Closed,
            StoredBreaker::Identity,
            StoredBreaker::Mismatch,
        ]
        .into_iter()
        .find(|breaker| breaker.as_str() == text)
        .ok_or(UnknownBreaker(text))
    }
}

impl LedgerRow {
    pub async fn read<'c>(executor: impl PgExecutor<'c>) -> sqlx::Result<LedgerRow> {
        sqlx::query_as(
            "SELECT breaker, breaker_reason, breaker_opened_at, breaker_closes_after_height, watermark_slot,
                    genesis_hash, system_identifier, timeline, incarnation, server_start
             FROM ledger",
        )
        .fetch_one(executor)
        .await
    }

    /// Waits for the transactions that read the breaker closed, and keeps others from reading it until this one ends.
    ///
    /// It locks the table, whose locks are granted in the order of the requests. A row lock alone waits as long as the
    /// transactions that share the row overlap (10 to 20 s at 20 concurrent records of 50 ms each), and signing continues
    /// meanwhile.
    pub(super) async fn lock(transaction: &mut PgConnection) -> sqlx::Result<LedgerRow> {
        sqlx::query("LOCK TABLE ledger IN EXCLUSIVE MODE")
            .execute(&mut *transaction)
            .await?;
        sqlx::query_as(
            "SELECT breaker, breaker_reason, breaker_opened_at, breaker_closes_after_height, watermark_slot,
                    genesis_hash, system_identifier, timeline, incarnation, server_start
             FROM ledger
             FOR UPDATE",
        )
        .fetch_one(transaction)
        .await
    }

    /// Of the chain that the ledger is bound to.
    pub fn genesis(&self) -> Result<Hash, LedgerError> {
        self.genesis_hash
            .parse()
            .map_err(|_| LedgerError::Unreadable {
                what: "a genesis hash",
                value: self.genesis_hash.clone(),
            })
    }

    pub(super) fn state(self) -> LedgerBreakerState {
        self.snapshot.breaker.state(self.breaker_reason)
    }
}

impl BreakerSnapshot {
    /// Whether a scan that begins now, at this finalized height, may close the breaker if it finds nothing.
    pub(super) fn may_close_at(&self, finalized_height: u64) -> bool {
        let has_passed = |height: BigInt| finalized_height > height.get();
        match (self.breaker, self.breaker_closes_after_height) {
            (StoredBreaker::Closed, _) => false,
            // The height is not set yet: no endpoint has answered since.
            (StoredBreaker::Identity, None) => false,
            (StoredBreaker::Identity | StoredBreaker::Mismatch, Some(height)) => has_passed(height),
            (StoredBreaker::Mismatch, None) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_closes_only_what_it_has_the_right_to_close() {
        use StoredBreaker::{Closed, Identity, Mismatch};
        let cases = [
            (Closed, None, 1_000, false),
            (Closed, Some(10_u64), 1_000, false),
            (Identity, None, 1_000, false),
            (Identity, Some(150), 149, false),
            (Identity, Some(150), 150, false),
            (Identity, Some(150), 151, true),
            (Mismatch, None, 0, true),
            (Mismatch, Some(150), 150, false),
            (Mismatch, Some(150), 151, true),
        ];
        for (breaker, closes_after_height, finalized_height, expected) in cases {
            let snapshot = BreakerSnapshot {
                breaker,
                breaker_opened_at: None,
                breaker_closes_after_height: closes_after_height.map(BigInt::from),
            };
            assert_eq!(
                snapshot.may_close_at(finalized_height),
                expected,
                "{breaker:?} until {closes_after_height:?}, finalized {finalized_height}"
            );
        }
    }

    #[test]
    fn every_stored_state_is_read_back() {
        for breaker in [
            StoredBreaker::Closed,
            StoredBreaker::Identity,
            StoredBreaker::Mismatch,
        ] {
            let stored = breaker.as_str().to_owned();
            assert_eq!(StoredBreaker::try_from(stored), Ok(breaker));
        }
        assert!(StoredBreaker::try_from("ajar".to_owned()).is_err());
    }
}
