//! Tickets: each opens one stream, for web pages, which cannot set a header.
//!
//! Invariant: a ticket opens at most one stream, on any process, within [`LIFETIME`], as the caller that it was issued to,
//! and the stream ends when that caller's token does. Kept by a row, which redeeming deletes. A ticket is the only secret that may
//! appear in a URL, since it is worthless by the time that a log with the URL is read.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use thiserror::Error;

use crate::db;
use crate::meters::{Caller, Role};

/// From issuing to redeeming: a page opens its stream at once.
pub const LIFETIME: Duration = Duration::from_secs(30);
/// Unused tickets of one subject: more tabs than a user opens in half a minute.
pub const UNUSED_MAX: i64 = 20;
/// Random bytes of a ticket: enough that none can be guessed.
const TICKET_BYTES: usize = 32;
/// Expired rows deleted with each new ticket: more than one, so that they cannot accumulate.
const PRUNED_MAX: i64 = 100;

/// A new ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Needs no escaping in a URL.
    pub ticket: String,
    pub expires_at: DateTime<Utc>,
}

/// No ticket is issued.
#[derive(Debug, Error)]
pub enum TicketError {
    #[error("{UNUSED_MAX} tickets of this subject are unused; use them, or wait {} s", LIFETIME.as_secs())]
    TooMany,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Issues a ticket to this caller, whose token ends at `token_expires_at`.
pub async fn issue(
    pool: &PgPool,
    caller: &Caller,
    token_expires_at: DateTime<Utc>,
) -> Result<Ticket, TicketError> {
    let ticket = URL_SAFE_NO_PAD.encode(rand::random::<[u8; TICKET_BYTES]>());
    let mut transaction = db::begin(pool).await?;
    // One request of a subject counts at a time, otherwise several could pass the limit. Subjects with the same hash wait too.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('feed_tickets'), hashtext($1))")
        .bind(&caller.subject)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "DELETE FROM feed_tickets
         WHERE hash IN (
             SELECT hash
             FROM feed_tickets
             WHERE expires_at < now()
             LIMIT $1
             -- Two requests that prune at the same time take different rows.
             FOR UPDATE SKIP LOCKED
         )",
    )
    .bind(PRUNED_MAX)
    .execute(&mut *transaction)
    .await?;
    let expires_at: Option<DateTime<Utc>> = sqlx::query_scalar(
        "INSERT INTO feed_tickets (hash, subject, role, token_expires_at, expires_at)
         SELECT $1, $2, $3, $4, now() + $5 * INTERVAL '1 second'
         WHERE (SELECT count(*) FROM feed_tickets WHERE subject = $2 AND expires_at >= now()) < $6
         RETURNING expires_at",
    )
    .bind(hash(&ticket))
    .bind(&caller.subject)
    .bind(caller.role.as_str())
    .bind(token_expires_at)
    .bind(LIFETIME.as_secs_f64())
    .bind(UNUSED_MAX)
    .fetch_optional(&mut *transaction)
    .await?;
    transaction.commit().await?;
    expires_at
        .map(|expires_at| Ticket { ticket, expires_at })
        .ok_or(TicketError::TooMany)
}

/// Redeems a ticket: returns its caller, and when that caller's token ends. `None` if it was redeemed, is too old, or is invalid.
pub async fn redeem(pool: &PgPool, ticket: &str) -> sqlx::Result<Option<(Caller, DateTime<Utc>)>> {
    let found: Option<(String, String, DateTime<Utc>)> = sqlx::query_as(
        "DELETE FROM feed_tickets
         WHERE hash = $1 AND expires_at >= now()
         RETURNING subject, role, token_expires_at",
    )
    .bind(hash(ticket))
    .fetch_optional(pool)
    .await?;
    Ok(found.map(|(subject, role, token_expires_at)| {
        // A name that this version does not know gets the fewest permissions.
        let role = Role::parse(&role).unwrap_or(Role::User);
        (Caller { subject, role }, token_expires_at)
    }))
}

fn hash(ticket: &str) -> Vec<u8> {
    Sha256::digest(ticket.as_bytes()).to_vec()
}
