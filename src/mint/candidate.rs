//! A reading on its way through the pipeline.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{BaseUnits, Hash32, PackItem, Wallet};
use crate::telemetry::traces::TraceContext;

/// A pending, due reading with everything that is needed to pay it.
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
    /// The trace that its mint transaction continues, if the reading is traced.
    pub trace: Option<TraceContext>,
}

/// A candidate whose wallet can be paid.
#[derive(Clone, Debug)]
pub(super) struct Payable {
    pub candidate: Candidate,
    /// Paying it creates the wallet's token account.
    pub needs_account: bool,
}

impl Payable {
    pub fn pack_item(&self) -> PackItem {
        PackItem {
            reading_id: self.candidate.id,
            wallet: self.candidate.wallet,
            base_units: self.candidate.base_units,
            needs_account: self.needs_account,
            alone: self.candidate.pack_alone,
        }
    }
}
