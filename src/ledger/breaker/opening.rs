//! Opens the ledger breaker, and notifies admins in the same transaction: once, however many processes noticed the cause.

use sqlx::{PgConnection, PgPool};

use super::identity::DatabaseIdentity;
use super::ledger_row::{LedgerRow, StoredBreaker};
use crate::db::{self, BigInt};
use crate::domain::OpenReason;
use crate::outbox::{self, Event, EventFields, EventType, Topic};

/// Compares the database with the one that the ledger knows. Another one opens the breaker and becomes the known one: a second
/// fail-over opens it again. Needs no chain. Returns whether it opened the breaker.
pub async fn open_if_identity_changed(pool: &PgPool) -> sqlx::Result<bool> {
    let mut transaction = db::begin(pool).await?;
    // Compared without the lock first: this runs every few seconds and must not block the transactions that record.
    let unlocked = LedgerRow::read(&mut *transaction).await?;
    let found = DatabaseIdentity::read(&mut transaction).await?;
    if unlocked.identity == found {
        return Ok(false);
    }
    let row = LedgerRow::lock(&mut transaction).await?;
    if row.identity == found {
        return Ok(false);
    }
    let reason = OpenReason::identity_changed(&found.change_since(&row.identity));
    sqlx::query(
        "UPDATE ledger
         SET breaker = $1, breaker_reason = $2, breaker_opened_at = now(), breaker_closes_after_height = NULL,
             system_identifier = $3, timeline = $4, incarnation = $5, server_start = $6",
    )
    .bind(StoredBreaker::Identity.as_str())
    .bind(reason.to_string())
    .bind(found.system_identifier)
    .bind(found.timeline)
    .bind(found.incarnation)
    .bind(found.server_start)
    .execute(&mut *transaction)
    .await?;
    notify_admins(&mut transaction, &reason, None).await?;
    transaction.commit().await?;
    tracing::error!(%reason, "ledger breaker opened");
    Ok(true)
}

/// Opens the breaker when an unknown mint is unresolved and the breaker does not name that cause.
pub(super) async fn open_for_unresolved(
    pool: &PgPool,
    last_possible_height: u64,
) -> sqlx::Result<()> {
    let unresolved: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM foreign_mints WHERE booked_reason IS NULL)")
            .fetch_one(pool)
            .await?;
    if !unresolved {
        return Ok(());
    }
    let mut transaction = db::begin(pool).await?;
    let row = LedgerRow::lock(&mut transaction).await?;
    open_for_mismatch(&mut transaction, &row, 0, last_possible_height).await?;
    transaction.commit().await?;
    Ok(())
}

/// Notifies admins when it opens, and again for each batch of `new` unknown mints while it is open. The height that a changed
/// database set stays in force.
pub(super) async fn open_for_mismatch(
    transaction: &mut PgConnection,
    row: &LedgerRow,
    new: u64,
    last_possible_height: u64,
) -> sqlx::Result<()> {
    let (unresolved, newest): (i64, Option<String>) = sqlx::query_as(
        "SELECT count(*), (array_agg(signature ORDER BY slot DESC))[1]
         FROM foreign_mints
         WHERE booked_reason IS NULL",
    )
    .fetch_one(&mut *transaction)
    .await?;
    let Some(newest) = newest else {
        return Ok(());
    };
    if row.snapshot.breaker == StoredBreaker::Mismatch && new == 0 {
        return Ok(());
    }
    let reason = OpenReason::mismatch(unresolved, &newest);
    sqlx::query(
        "UPDATE ledger
         SET breaker = $1, breaker_reason = $2,
             breaker_opened_at = CASE WHEN breaker = 'closed' THEN now() ELSE breaker_opened_at END,
             breaker_closes_after_height = CASE WHEN breaker = 'identity'
                                                THEN COALESCE(breaker_closes_after_height, $3)
                                                ELSE breaker_closes_after_height END",
    )
    .bind(StoredBreaker::Mismatch.as_str())
    .bind(reason.to_string())
    .bind(BigInt::from(last_possible_height))
    .execute(&mut *transaction)
    .await?;
    notify_admins(transaction, &reason, Some(newest)).await?;
    tracing::error!(%reason, "ledger breaker opened");
    Ok(())
}

async fn notify_admins(
    transaction: &mut PgConnection,
    reason: &OpenReason,
    signature: Option<String>,
) -> sqlx::Result<()> {
    let fields = EventFields {
        error_reason: Some(format!("the ledger breaker is open: {reason}")),
        transaction_signature: signature,
        ..EventFields::default()
    };
    let event = Event::new(EventType::AdminNotification, &fields);
    outbox::publish(transaction, &[event]).await?;
    outbox::notify(transaction, Topic::Outbox).await
}
