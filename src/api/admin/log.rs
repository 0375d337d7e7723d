//! `GET /api/admin/log`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin_log::{self, LogEntry, LogNumber};
use crate::api::auth::authenticated::AdminOnly;
use crate::api::extract::Query;
use crate::api::page;
use crate::api::problem::Problem;
use crate::api::state::AppState;
use crate::domain::{hex, rfc3339_micros};

/// Entries in one page by default.
const ENTRIES_PER_PAGE_DEFAULT: u16 = 100;
/// Entries in one page at most.
const ENTRIES_PER_PAGE_MAX: u16 = 500;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(log))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// Only entries after this number: `next` of the previous page. 0, the beginning, by default.
    after: Option<String>,
    /// Entries in the page, 1 to 500; 100 by default.
    limit: Option<String>,
}

impl LogQuery {
    fn after(&self) -> Result<LogNumber, Problem> {
        let Some(after) = self.after.as_deref() else {
            return Ok(LogNumber::default());
        };
        after.parse().ok().and_then(LogNumber::new).ok_or_else(|| {
            page::invalid(
                "after",
                "is not an entry number; give 0, or `next` of the previous page",
            )
        })
    }
}

/// One action of an admin.
#[derive(Debug, Serialize, ToSchema)]
struct LogEntryDocument {
    /// 1, 2, 3 … without gaps.
    #[schema(value_type = i64)]
    number: LogNumber,
    at: String,
    /// Subject of the admin's token.
    actor: String,
    action: String,
    /// Details of the action; exactly these bytes are hashed.
    #[schema(value_type = Object)]
    details: Box<RawValue>,
    /// SHA-256, hexadecimal: of the previous entry; zeros for the first.
    previous_hash: String,
    /// SHA-256, hexadecimal: of this entry, as `docs/admin-log.md` describes.
    hash: String,
}

impl TryFrom<LogEntry> for LogEntryDocument {
    type Error = Problem;

    fn try_from(entry: LogEntry) -> Result<LogEntryDocument, Problem> {
        Ok(LogEntryDocument {
            number: entry.number,
            at: rfc3339_micros(entry.at),
            actor: entry.actor,
            action: entry.action,
            details: raw_details(entry.details)?,
            previous_hash: hex(&entry.previous_hash),
            hash: hex(&entry.hash),
        })
    }
}

/// Details that are not JSON were changed outside the service: they are shown as a string, and the audit reports the entry.
fn raw_details(details: String) -> Result<Box<RawValue>, Problem> {
    if serde_json::from_str::<&RawValue>(&details).is_ok() {
        RawValue::from_string(details)
    } else {
        serde_json::value::to_raw_value(&details)
    }
    .map_err(Problem::internal)
}

/// Entries in order.
#[derive(Debug, Serialize, ToSchema)]
struct LogPage {
    entries: Vec<LogEntryDocument>,
    /// `after` of the next page; null at the end.
    #[schema(value_type = Option<i64>)]
    next: Option<LogNumber>,
}

/// The actions of admins, each with its time, chained by hashes.
///
/// `gridtokenx audit` verifies the chain.
#[utoipa::path(
    get,
    path = "/api/admin/log",
    tag = "admin",
    security(("bearer" = [])),
    params(LogQuery),
    responses((status = 200, description = "One page", body = LogPage, example = json!({
        "entries": [{
            "number": 1,
            "at": "2026-11-25T04:00:00.000001Z",
            "actor": "operator",
            "action": "toggle_auto_mint",
            "details": {"enabled": false},
            "previous_hash": "0000000000000000000000000000000000000000000000000000000000000000",
            "hash": "40f3ca146fc5943ef8ca0ba4af48038c309cad5312e23a57c4f208aa94c1b987",
        }],
        "next": null,
    })))
)]
async fn log(
    _: AdminOnly,
    State(pool): State<PgPool>,
    Query(query): Query<LogQuery>,
) -> Result<Json<LogPage>, Problem> {
    let limit = page::limit(
        query.limit.as_deref(),
        ENTRIES_PER_PAGE_DEFAULT,
        ENTRIES_PER_PAGE_MAX,
    )?;
    // One more than the page has, to find out whether there is a next page.
    let mut entries = admin_log::read(&pool, query.after()?, limit + 1).await?;
    let is_last = entries.len() <= usize::from(limit);
    entries.truncate(usize::from(limit));
    let next = entries
        .last()
        .filter(|_| !is_last)
        .map(|entry| entry.number);
    let entries = entries
        .into_iter()
        .map(LogEntryDocument::try_from)
        .collect::<Result<Vec<_>, Problem>>()?;
    Ok(Json(LogPage { entries, next }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_keep_their_bytes_and_invalid_json_is_shown_as_a_string() {
        let shown = |details: &str| raw_details(details.to_owned()).unwrap().get().to_owned();
        assert_eq!(shown(r#"{"percentage":30}"#), r#"{"percentage":30}"#);
        assert_eq!(shown("{broken"), r#""{broken""#);
    }
}
