//! The history scan on the status page.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::rfc3339_micros;
use crate::ledger::{HistoryScanView, UnreadableTransaction};

/// How far the history of the mint authority is known.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HistoryScan {
    /// Everything up to this slot was read and is known.
    watermark_slot: u64,
    /// Since the last whole scan began; before the first, since the ledger was set up.
    age_secs: f64,
    /// When the last whole scan began; null before the first.
    known_as_of: Option<String>,
    /// When it finished.
    last_success_at: Option<String>,
    /// The scan under way; null between two.
    under_way: Option<ScanUnderWay>,
    /// Failures in a row. An endpoint's limit is a pause and counts as none.
    failures: i32,
    last_error_at: Option<String>,
    /// Why the scan last stopped before its end; null once one is finished.
    last_error: Option<String>,
    /// Transactions that no endpoint shows in a form that this program can read. They hold the watermark down.
    unreadable_count: u64,
    /// The oldest of them.
    unreadable: Vec<Unreadable>,
}

/// It survives limits, restarts and a change of process.
#[derive(Debug, Serialize, ToSchema)]
struct ScanUnderWay {
    began_at: String,
    head_slot: Option<u64>,
    /// It has read down to this slot; null at its begin.
    cursor_slot: Option<u64>,
    /// Transactions so far.
    listed: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct Unreadable {
    signature: String,
    slot: u64,
    problem: String,
    reads: i32,
    next_read_at: String,
}

impl HistoryScan {
    pub fn of(view: &HistoryScanView, unreadable: &[UnreadableTransaction]) -> HistoryScan {
        HistoryScan {
            watermark_slot: view.watermark_slot.get(),
            age_secs: view.age_secs,
            known_as_of: view.known_as_of.map(rfc3339_micros),
            last_success_at: view.finished_at.map(rfc3339_micros),
            under_way: view.began_at.map(|began_at| ScanUnderWay {
                began_at: rfc3339_micros(began_at),
                head_slot: view.head_slot.map(u64::from),
                cursor_slot: view.cursor_slot.map(u64::from),
                listed: view.listed.get(),
            }),
            failures: view.failures,
            last_error_at: view.failed_at.map(rfc3339_micros),
            last_error: view.error.clone(),
            unreadable_count: view.unreadable.get(),
            unreadable: unreadable.iter().map(Unreadable::from).collect(),
        }
    }
}

impl From<&UnreadableTransaction> for Unreadable {
    fn from(transaction: &UnreadableTransaction) -> Unreadable {
        Unreadable {
            signature: transaction.signature.to_string(),
            slot: transaction.slot.get(),
            problem: transaction.problem.clone(),
            reads: transaction.reads,
            next_read_at: rfc3339_micros(transaction.next_read_at),
        }
    }
}
