//! The readings of a batch, as the ledger has them now.

use std::collections::HashMap;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::minter::{MintOutcome, MintPermission, MintRequest};
use crate::domain::{BaseUnits, Hash32, Interval, Kwh, Leaf, MeterSerial, ReadingState, Wallet};
use crate::telemetry::traces::TraceContext;

/// A pending, due reading with everything that paying it needs.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub id: Uuid,
    pub revision: i64,
    pub wallet: Wallet,
    pub base_units: BaseUnits,
    pub pack_alone: bool,
    /// The wallet was paid at finality before: its token account existed.
    pub account_was_there: bool,
    /// Hash of its leaf in the transaction's Merkle tree.
    pub leaf_hash: Hash32,
    pub accepted_at: DateTime<Utc>,
    /// Where its trace goes on, once that was looked for.
    pub trace: Option<TraceContext>,
}

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

/// What the database says of a batch: whom to pay, and what to answer the others.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    pub payable: Vec<Candidate>,
    pub answered: HashMap<Uuid, MintOutcome>,
}

/// Loads the readings in one query.
pub(super) async fn load(pool: &PgPool, requests: &[MintRequest]) -> sqlx::Result<Candidates> {
    let ids: Vec<Uuid> = requests.iter().map(|request| request.reading).collect();
    let rows: Vec<Row> = sqlx::query_as(
        // Due by the clock that the moments are of: a host whose own is late would find nothing due. Held by the settings as
        // they are now: no process has a copy that could be older than the last toggle.
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
    .bind(&ids)
    .fetch_all(pool)
    .await?;
    let permissions: HashMap<Uuid, MintPermission> = requests
        .iter()
        .map(|request| (request.reading, request.permission))
        .collect();
    let mut candidates = Candidates::default();
    for row in rows {
        let id = row.id;
        let permission = permissions
            .get(&id)
            .copied()
            .unwrap_or(MintPermission::WhenDue);
        match sort_out(row, permission) {
            Ok(candidate) => candidates.payable.push(candidate),
            Err(outcome) => {
                candidates.answered.insert(id, outcome);
            }
        }
    }
    let payable: std::collections::HashSet<Uuid> = candidates
        .payable
        .iter()
        .map(|candidate| candidate.id)
        .collect();
    for id in ids {
        if !payable.contains(&id) {
            candidates
                .answered
                .entry(id)
                .or_insert(MintOutcome::Unknown);
        }
    }
    Ok(candidates)
}

fn sort_out(row: Row, permission: MintPermission) -> Result<Candidate, MintOutcome> {
    let state = ReadingState::from_str(&row.state).map_err(|_| unreadable("state"))?;
    if state != ReadingState::Pending {
        return Err(MintOutcome::Already(state));
    }
    if permission == MintPermission::WhenDue {
        if row.is_held {
            return Err(MintOutcome::Held);
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

/// Only a database that was changed by hand can hold such a row.
fn unreadable(what: &str) -> MintOutcome {
    MintOutcome::NotNow(format!("the stored {what} of the reading cannot be read"))
}
