//! Step 1 of the pipeline: loads the readings of a batch as the ledger holds them now, and answers those that are not to be
//! minted.

use std::collections::HashMap;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::answers::Answers;
use super::candidate::Candidate;
use super::context::MintContext;
use super::defer_reason::DeferReason;
use super::request::{MintOutcome, MintPermission, MintRequest};
use crate::domain::{BaseUnits, Interval, Kwh, Leaf, MeterSerial, ReadingState, Wallet};
use crate::telemetry::traces::{self, Span};

#[derive(FromRow)]
struct Row {
    id: Uuid,
    revision: i64,
    state: String,
    next_attempt_at: DateTime<Utc>,
    is_due: bool,
    is_held: bool,
    wallet: Vec<u8>,
    base_units: Decimal,
    pack_alone: bool,
    account_was_there: bool,
    salt: Vec<u8>,
    interval_start: DateTime<Utc>,
    interval_end: DateTime<Utc>,
    kwh: Decimal,
    serial: String,
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
        let id = row.id;
        let Some(permission) = permissions.remove(&id) else {
            continue;
        };
        match candidate(row, permission) {
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

async fn rows(pool: &PgPool, ids: &[Uuid]) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as(
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

/// The reading, if it can be minted now; otherwise its answer.
fn candidate(row: Row, permission: MintPermission) -> Result<Candidate, MintOutcome> {
    let state = ReadingState::from_str(&row.state).map_err(|_| unreadable("state"))?;
    if state != ReadingState::Pending {
        return Err(MintOutcome::AlreadyHandled(state));
    }
    if permission == MintPermission::WhenDue {
        if row.is_held {
            return Err(MintOutcome::OnHold);
        }
        if !row.is_due {
            return Err(MintOutcome::NotDue(row.next_attempt_at));
        }
    }
    let wallet = <[u8; 32]>::try_from(row.wallet.as_slice())
        .map(Wallet::from_stored)
        .map_err(|_| unreadable("wallet"))?;
    let salt = <[u8; 16]>::try_from(row.salt.as_slice()).map_err(|_| unreadable("salt"))?;
    let base_units = BaseUnits::from_decimal(row.base_units).map_err(|_| unreadable("amount"))?;
    let serial = MeterSerial::from_stored(row.serial);
    let leaf = Leaf {
        reading_id: row.id,
        salt,
        interval: Interval::new(row.interval_start, row.interval_end)
            .map_err(|_| unreadable("interval"))?,
        base_units,
        wallet,
        serial: &serial,
        kwh: Kwh::from_decimal(row.kwh).map_err(|_| unreadable("energy amount"))?,
    };
    Ok(Candidate {
        id: row.id,
        revision: row.revision,
        wallet,
        base_units,
        pack_alone: row.pack_alone,
        account_was_there: row.account_was_there,
        leaf_hash: leaf.hash(),
        accepted_at: row.accepted_at,
        trace: None,
    })
}

fn unreadable(column: &'static str) -> MintOutcome {
    MintOutcome::Deferred(DeferReason::UnreadableRow { column })
}
