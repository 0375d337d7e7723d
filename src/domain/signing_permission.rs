//! Whether mint transactions may be signed; why the ledger breaker is open, and why nothing may be signed.

use std::fmt;

use thiserror::Error;

/// State of the ledger breaker: new mint transactions are signed only while it is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerBreakerState {
    Closed,
    Open { reason: OpenReason },
}

impl LedgerBreakerState {
    pub fn is_closed(&self) -> bool {
        matches!(self, LedgerBreakerState::Closed)
    }
}

/// Why the ledger breaker is open, with the sentence that was stored when it opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenReason {
    /// The database is another one than before, or its server was restarted.
    IdentityChanged { sentence: String },
    /// A landed mint that the ledger lacks or holds as dead.
    Mismatch { sentence: String },
}

impl OpenReason {
    /// `change`: how this database differs from the one that the ledger knew.
    pub fn identity_changed(change: &str) -> OpenReason {
        OpenReason::IdentityChanged {
            sentence: format!(
                "{change}: nothing is signed until all that was sent before has landed or expired, and is known"
            ),
        }
    }

    /// `newest`: the signature of the newest of the unresolved mints.
    pub fn mismatch(unresolved: i64, newest: &str) -> OpenReason {
        OpenReason::Mismatch {
            sentence: format!(
                "LedgerMismatch: landed mints of our authority that the ledger lacks or holds as dead: {unresolved}, the newest \
                 {newest}; nothing is signed until an admin has dealt with each"
            ),
        }
    }
}

impl fmt::Display for OpenReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenReason::IdentityChanged { sentence } | OpenReason::Mismatch { sentence } => {
                formatter.write_str(sentence)
            }
        }
    }
}

/// Why nothing may be signed now.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SigningRefused {
    #[error("the ledger breaker is open: {0}")]
    BreakerOpen(OpenReason),
    /// The caller ends its transaction and opens the breaker.
    #[error("the database is not the one that the ledger knows")]
    IdentityChanged,
    /// A new database in the place of one that was lost does not know what was paid, and would pay again what meters report
    /// again.
    #[error(
        "the authority's history was not walked yet, so what was paid before this database is not known: {0}"
    )]
    HistoryNotScanned(NotScannedReason),
    /// The scan that each start asks for is under way: status shows how far it is.
    #[error(
        "the authority's history was not read since this process started: what landed meanwhile is compared with the ledger first"
    )]
    ScanSinceStart,
    #[error("the ledger is not bound to any chain")]
    Unbound,
}

/// Why the authority's history was never scanned to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotScannedReason {
    FirstScanRunning,
    /// The error of the last scan, as it was stored.
    LastScanFailed {
        error: String,
    },
}

impl fmt::Display for NotScannedReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotScannedReason::FirstScanRunning => {
                formatter.write_str("the first walk is under way")
            }
            NotScannedReason::LastScanFailed { error } => formatter.write_str(error),
        }
    }
}
