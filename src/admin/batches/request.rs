//! An admin's request for a batch, or for a dry run of one.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder};
use thiserror::Error;
use uuid::Uuid;

use super::batch::BatchFilter;
use super::unminted::{ClaimSource, Cursor, UnmintedQuery};
use crate::admin_log::{self, AdminAction};
use crate::db;
use crate::domain::{BaseUnits, MeterSerial, SerialError, TimestampError, Wallet, parse_timestamp};
use crate::meters;
use crate::outbox::{self, Topic, TriggerBatch};

/// Longest `sub` of a token, characters.
const USER_CHARACTERS_MAX: usize = 128;

/// The request is refused.
#[derive(Debug, Error)]
pub enum BatchRequestError {
    #[error("meter_id {0}")]
    Serial(#[from] SerialError),
    #[error("meter {} is not known; check the meter_id", serial.as_str())]
    UnknownMeter { serial: MeterSerial },
    #[error("user_id has {0} characters; a subject has 1 to {USER_CHARACTERS_MAX}")]
    User(usize),
    #[error("before {0}")]
    Before(#[from] TimestampError),
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// A selection of readings, as the admin names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchRequest {
    pub meter_id: Option<String>,
    pub user_id: Option<String>,
    pub before: Option<String>,
    pub include_failed: bool,
}

/// The selection, resolved to rows of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchTarget {
    request: BatchRequest,
    filter: BatchFilter,
}

impl BatchRequest {
    /// Validates the request and looks up the meter that it names.
    pub async fn resolve(self, pool: &PgPool) -> Result<BatchTarget, BatchRequestError> {
        let serial = self
            .meter_id
            .as_deref()
            .map(MeterSerial::parse)
            .transpose()?;
        let ending_before = self.before.as_deref().map(parse_timestamp).transpose()?;
        if let Some(user) = &self.user_id {
            let characters = user.chars().count();
            if !(1..=USER_CHARACTERS_MAX).contains(&characters) {
                return Err(BatchRequestError::User(characters));
            }
        }
        let meter = match serial {
            None => None,
            Some(serial) => match meters::find_by_serial(pool, &serial).await? {
                Some(meter) => Some(meter.id),
                None => return Err(BatchRequestError::UnknownMeter { serial }),
            },
        };
        Ok(BatchTarget {
            filter: BatchFilter {
                meter,
                owner: self.user_id.clone(),
                ending_before,
                include_failed: self.include_failed,
            },
            request: self,
        })
    }
}

impl BatchTarget {
    pub fn filter(&self) -> &BatchFilter {
        &self.filter
    }

    /// As the admin log stores it: the request, and nothing else.
    fn filters(&self) -> Value {
        let mut filters = json!({ "include_failed": self.request.include_failed });
        for (name, value) in [
            ("meter_id", &self.request.meter_id),
            ("user_id", &self.request.user_id),
            ("before", &self.request.before),
        ] {
            if let Some(value) = value {
                filters[name] = json!(value);
            }
        }
        filters
    }

    /// Stores the batch, its entry in the admin log and its job in one transaction. Returns the batch's id.
    pub async fn request(&self, pool: &PgPool, admin: &str) -> sqlx::Result<Uuid> {
        let batch = Uuid::now_v7();
        let mut transaction = db::begin(pool).await?;
        sqlx::query(
            "INSERT INTO batches (id, kind, requested_by, meter, owner, ending_before, include_failed)
             VALUES ($1, 'trigger', $2, $3, $4, $5, $6)",
        )
        .bind(batch)
        .bind(admin)
        .bind(self.filter.meter)
        .bind(&self.filter.owner)
        .bind(self.filter.ending_before)
        .bind(self.filter.include_failed)
        .execute(&mut *transaction)
        .await?;
        outbox::enqueue(&mut transaction, &[TriggerBatch::slice(batch, 0)]).await?;
        outbox::notify(&mut transaction, Topic::OutboxAndJobs).await?;
        // Last, because no other action can be logged until the commit.
        let action = AdminAction::TriggerBatch {
            batch_id: batch,
            filters: self.filters(),
        };
        admin_log::append(&mut transaction, admin, &action).await?;
        transaction.commit().await?;
        Ok(batch)
    }
}

/// An unminted reading with the facts that its payment depends on.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct UnmintedReading {
    pub id: Uuid,
    pub wallet: Wallet,
    pub base_units: BaseUnits,
    pub pack_alone: bool,
    /// The wallet was paid at finality before, so its token account existed.
    pub account_was_there: bool,
}

#[derive(FromRow)]
struct Row {
    next_attempt_at: DateTime<Utc>,
    #[sqlx(flatten)]
    reading: UnmintedReading,
}

/// At most `page` readings that a batch with this filter would claim, in its order, and where to continue. Changes nothing.
pub async fn preview(
    pool: &PgPool,
    filter: &BatchFilter,
    source: ClaimSource,
    accepted_until: DateTime<Utc>,
    after: Cursor,
    page: u16,
) -> sqlx::Result<(Vec<UnmintedReading>, Option<Cursor>)> {
    let mut query: QueryBuilder<Postgres> = QueryBuilder::new("");
    let unminted = UnmintedQuery {
        source,
        filter,
        accepted_until,
        after,
        rows_max: page,
    };
    unminted.push(
        &mut query,
        "SELECT id, next_attempt_at, wallet, base_units, pack_alone,
                EXISTS (
                    SELECT FROM token_accounts AS account WHERE account.wallet = readings.wallet
                ) AS account_was_there ",
    );
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await?;
    let next = rows
        .last()
        .filter(|_| rows.len() >= usize::from(page))
        .map(|last| Cursor::at(last.next_attempt_at, last.reading.id));
    let readings = rows.into_iter().map(|row| row.reading).collect();
    Ok((readings, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_contains_exactly_the_request() {
        let target = BatchTarget {
            request: BatchRequest {
                user_id: Some("anna".to_owned()),
                ..BatchRequest::default()
            },
            filter: BatchFilter::default(),
        };
        assert_eq!(
            target.filters(),
            json!({ "include_failed": false, "user_id": "anna" })
        );
    }
}
