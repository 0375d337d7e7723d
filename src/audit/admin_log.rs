//! The chain of the admin log, as a part of the audit.

use serde::Serialize;
use sqlx::PgPool;

use super::difference::Difference;
use crate::admin;

/// Whether the admin log is what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AdminLogReport {
    /// Every entry fits, from the first to the head.
    pub ok: bool,
    /// Entries that fit, from the first one on.
    pub entries: u64,
    /// Of the last of those, hexadecimal: kept elsewhere, it shows whether everything was ever written anew.
    pub last_hash: String,
}

/// Walks the chain; the first entry that does not fit is a difference.
pub(super) async fn examine(pool: &PgPool) -> sqlx::Result<(AdminLogReport, Option<Difference>)> {
    let verdict = admin::log::verify(pool).await?;
    let report = AdminLogReport {
        ok: verdict.broken.is_none(),
        entries: verdict.entries,
        last_hash: admin::hex(&verdict.last_hash),
    };
    let difference = verdict.broken.map(|broken| Difference::AdminLogBroken {
        number: broken.number,
        reason: broken.reason,
    });
    Ok((report, difference))
}
