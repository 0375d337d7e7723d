//! Verifies the chain of the admin log, as part of the audit.

use serde::Serialize;
use sqlx::PgPool;

use super::difference::Difference;
use crate::admin_log;
use crate::domain::hex;

/// Whether the entries of the admin log are unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AdminLogReport {
    /// Every entry fits, from the first to the head.
    pub ok: bool,
    /// Entries that fit, counted from the first one.
    pub entries: u64,
    /// Hash of the last entry that fits, hexadecimal. Kept elsewhere, it reveals a log that was rewritten as a whole.
    pub last_hash: String,
}

/// Walks the chain; the first entry that does not fit is a difference.
pub(super) async fn check(pool: &PgPool) -> sqlx::Result<(AdminLogReport, Option<Difference>)> {
    let check = admin_log::verify(pool).await?;
    let report = AdminLogReport {
        ok: check.broken.is_none(),
        entries: check.entries,
        last_hash: hex(&check.last_hash),
    };
    let difference = check.broken.map(|broken| Difference::AdminLogBroken {
        number: broken.number,
        reason: broken.reason,
    });
    Ok((report, difference))
}
