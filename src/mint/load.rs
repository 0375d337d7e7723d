//! Step 1 of the pipeline: loads the readings of a batch as the ledger holds them now, and answers those that are not to be
//! minted.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgPool, Row};
use uuid::Uuid;

use super::answers::Answers;
use super::candidate::Candidate;
use super::context::MintContext;
use super::defer_reason::DeferReason;
use super::request::{MintOutcome, MintPermission, MintRequest};
use crate::domain::{BaseUnits, Interval, Kwh, Leaf, MeterSerial, ReadingState, Wallet};
use crate::telemetry::traces::{self, Span};

/// Whether a reading is to be minted.
#[derive(FromRow)]
struct StoredState {
    state: ReadingState,
    next_attempt_at: DateTime<Utc>,
    is_due: bool,
    is_held: bool,
}

/// The data that paying a reading takes.
#[derive(FromRow)]
struct StoredReading {
    id: Uuid,
    revision: i64,
    wallet: Wallet,
    base_units: BaseUnits,
    pack_alone: bool,
    account_was_there: bool,
    salt: [u8; 16],
    interval_start: DateTime<Utc>,
    interval_end: DateTime<Utc>,
    kwh: Kwh,
    serial: MeterSerial,
    accepted_at: DateTime<Utc>,
}

/// Loads all requested readings in one query.
pub(super) async fn load(
    context: &MintContext,
    requests: &[MintRequest],
    answers: &mut Answers,
) -> Result<Vec<Candidate>, DeferReason> {
    let ids: Vec<Uuid> = requests.iter().map(|request| request.reading).collect();
    let rows = context.in_time(rows(&context.pool, &ids)).await?;
    let mut permissions: HashMap<Uuid, MintPermission> = requests
        .iter()
        .map(|request| (request.reading, request.permission))
        .collect();
    let mut candidates = Vec::with_capacity(rows.len());
    for row in rows {
        let id: Uuid = row.try_get("id")?;
        let Some(permission) = permissions.remove(&id) else {
            continue;
        };
        match candidate(&row, permission) {
            Ok(candidate) => candidates.push(candidate),
            Err(outcome) => answers.give(id, outcome),
        }
    }
    for id in permissions.into_keys() {
        answers.give(id, MintOutcome::Unknown);
    }
    Ok(candidates)
}

/// Attaches the readings' traces. Without a traced reading the batch has no span.
pub(super) async fn attach_traces(context: &MintContext, candidates: &mut [Candidate]) -> Span {
    let ids = candidates.iter().map(|candidate| candidate.id);
    let mut traces = traces::of_readings(&context.pool, ids).await;
    if traces.is_empty() {
        return Span::none();
    }
    for candidate in candidates.iter_mut() {
        candidate.trace = traces.remove(&candidate.id);
    }
    Span::of_batch(candidates.len())
}

async fn rows(pool: &PgPool, ids: &[Uuid]) -> sqlx::Result<Vec<PgRow>> {
    sqlx::query(
        // Due by the database's clock, which wrote the moments: a host whose clock is late would find nothing due. Held by
        // the settings as they are now: a copy in this process could be older than the last toggle.
        "SELECT reading.id, reading.revision, reading.state, reading.next_attempt_at,
                reading.next_attempt_at <= now() AS is_due,
                NOT settings.auto_mint_enabled
                    OR meter.rollout_bucket >= settings.auto_mint_percentage AS is_held, reading.wallet,
                reading.base_units, reading.pack_alone, reading.salt, reading.interval_start,
                reading.interval_end, reading.kwh, reading.accepted_at, meter.serial,
                EXISTS (
                    SELECT FROM token_accounts AS account WHERE account.wallet = reading.wallet
                ) AS account_was_there
         FROM readings AS reading
         JOIN meters AS meter ON meter.id = reading.meter
         CROSS JOIN settings
         WHERE reading.id = ANY($1)",
    )
    .bind(ids)
    .fetch_all(pool)
    .await
}

/// The reading, if it can be minted now; otherwise its answer. A row that cannot be decoded does not keep the others from being
/// minted.
fn candidate(row: &PgRow, permission: MintPermission) -> Result<Candidate, MintOutcome> {
    // Before the rest is decoded: a reading that is not to be minted has its answer whatever its other columns hold.
    let stored = StoredState::from_row(row).map_err(unreadable)?;
    if stored.state != ReadingState::Pending {
        return Err(MintOutcome::AlreadyHandled(stored.state));
    }
    if permission == MintPermission::WhenDue {
        if stored.is_held {
            return Err(MintOutcome::OnHold);
        }
        if !stored.is_due {
            return Err(MintOutcome::NotDue(stored.next_attempt_at));
        }
    }
    let reading = StoredReading::from_row(row).map_err(unreadable)?;
    let interval = Interval::new(reading.interval_start, reading.interval_end)
        .map_err(|error| unreadable(sqlx::Error::Decode(Box::new(error))))?;
    let leaf = Leaf {
        reading_id: reading.id,
        salt: reading.salt,
        interval,
        base_units: reading.base_units,
        wallet: reading.wallet,
        serial: &reading.serial,
        kwh: reading.kwh,
    };
    Ok(Candidate {
        id: reading.id,
        revision: reading.revision,
        wallet: reading.wallet,
        base_units: reading.base_units,
        pack_alone: reading.pack_alone,
        account_was_there: reading.account_was_there,
        leaf_hash: leaf.hash(),
        accepted_at: reading.accepted_at,
        trace: None,
    })
}

fn unreadable(error: sqlx::Error) -> MintOutcome {
    MintOutcome::Deferred(DeferReason::UnreadableRow(Arc::new(error)))
}
