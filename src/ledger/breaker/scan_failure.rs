//! What follows when no endpoint brought the history scan to its end: it is stored, and a scan that none may ever continue begins again.

use sqlx::PgPool;

use super::heights::no_endpoint;
use super::scan_progress::{self, Stop};
use super::signing::note_scan_failure;
use crate::chain::{ChainError, UnusableAnswer};
use crate::ledger::error::LedgerError;
use crate::telemetry::names;

/// A scan that no endpoint continues is given up after so many failures in a row, and begins again at the head: the transaction
/// at its cursor, or its head, may be one that only an endpoint showed which is gone.
const RESTART_AFTER_FAILURES: i32 = 5;

/// Stores why the scan stopped, for status and metrics, and gives it up when no endpoint may ever continue it.
pub(super) async fn note(pool: &PgPool, failures: &[ChainError]) -> Result<(), LedgerError> {
    let loses_cursor = failures.iter().any(loses_cursor);
    let is_behind = |failure: &ChainError| matches!(failure, ChainError::Behind { .. });
    let is_ahead = failures.iter().any(is_behind);
    // A limit of one endpoint does not hide that another one cannot continue.
    let is_pause = failures.iter().any(is_limit) && !loses_cursor && !is_ahead;
    let (stop, label) = if is_pause {
        (Stop::Paused, "paused")
    } else {
        (Stop::Failed, "failed")
    };
    metrics::counter!(names::HISTORY_SCAN_STOPS, "how" => label).increment(1);
    let text = shown(failures.to_vec()).to_string();
    let in_a_row = scan_progress::note_stop(pool, stop, &text).await?;
    note_scan_failure(pool, &text).await?;
    if is_pause || in_a_row < RESTART_AFTER_FAILURES {
        return Ok(());
    }
    if loses_cursor {
        scan_progress::restart(pool).await?;
    } else if is_ahead {
        scan_progress::restart_below(pool).await?;
    } else {
        scan_progress::restart_without_page(pool).await?;
    }
    Ok(())
}

/// The failure of several that is reported: a limit is the better news, because it ends by itself.
pub(super) fn shown(failures: Vec<ChainError>) -> ChainError {
    let mut shown = no_endpoint();
    for failure in failures {
        if !is_limit(&shown) {
            shown = failure;
        }
    }
    shown
}

fn is_limit(failure: &ChainError) -> bool {
    matches!(failure, ChainError::RateLimited { .. })
}

/// The transaction at the cursor is gone, or the endpoint's list cannot be continued from it.
fn loses_cursor(failure: &ChainError) -> bool {
    matches!(
        failure,
        ChainError::Unusable {
            reason: UnusableAnswer::HistoryBreaksOff(_)
                | UnusableAnswer::HistoryOrder { .. }
                | UnusableAnswer::HistoryRepeats(_),
            ..
        }
    )
}
