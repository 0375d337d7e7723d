//! A packed transaction on its way to the chain: simulated, signed, recorded, and only then sent.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use solana_client::rpc_config::RpcSimulateTransactionConfig;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::message::Message;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::transaction::{Transaction, TransactionError};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::candidate::Candidate;
use super::minter::{MintTools, Workshop};
use super::transaction::{self, SignError};
use crate::chain::{
    ChainError, Endpoint, RecentBlockhash, Reservation, TOKEN_ACCOUNT_RENT_LAMPORTS,
};
use crate::domain::{
    ComputePlan, ComputeUnitPrice, Hash32, Packed, Wallet, set_compute_unit_limit,
};
use crate::ledger::{self, Blame, NewMintTransaction, PackedReading, RecordError};
use crate::telemetry::traces::TransactionSpan;
use crate::telemetry::{Stage, names, observe_stage};

/// An unsigned mint transaction and the readings that it pays, as they were when it was packed.
pub(super) struct Draft {
    number: u64,
    packed: Packed,
    readings: Vec<Candidate>,
    message: Message,
    compute: ComputePlan,
    price: ComputeUnitPrice,
    merkle_root: Hash32,
    /// For its priority fee, which is part of its fee; at most until it was simulated.
    priority_fee_lamports: u64,
    /// Its cost, set aside: the ceiling until it was simulated.
    reservation: Reservation,
}

/// What a simulation said.
pub(super) struct Simulation {
    pub error: Option<TransactionError>,
    pub compute_units: Option<u64>,
}

/// Why a draft was not sent. Nothing of it has left this process.
#[derive(Debug, thiserror::Error)]
pub(super) enum DraftError {
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Draft {
    /// `number` is the mint transaction's own, from the ledger.
    pub fn new(
        number: u64,
        packed: Packed,
        readings: Vec<Candidate>,
        reservation: Reservation,
        price: ComputeUnitPrice,
        tools: &MintTools,
    ) -> Result<Draft, SignError> {
        let mut leaves: Vec<(Uuid, Hash32)> = readings
            .iter()
            .map(|reading| (reading.id, reading.leaf_hash))
            .collect();
        let planned = transaction::message_of(
            &packed,
            &mut leaves,
            number,
            &tools.chain.accounts.mint,
            &tools.signer,
            price,
        )?;
        Ok(Draft {
            number,
            packed,
            readings,
            message: planned.message,
            compute: planned.compute,
            price,
            merkle_root: planned.merkle_root,
            priority_fee_lamports: price.lamports_for(planned.compute.ceiling()),
            reservation,
        })
    }

    pub fn reading_ids(&self) -> Vec<Uuid> {
        self.readings.iter().map(|reading| reading.id).collect()
    }

    /// Runs the unsigned message on the endpoint: signed bytes must not leave before they are recorded.
    pub async fn simulate(&self, endpoint: &Endpoint) -> Result<Simulation, ChainError> {
        let config = RpcSimulateTransactionConfig {
            sig_verify: false,
            replace_recent_blockhash: true,
            commitment: Some(CommitmentConfig::confirmed()),
            ..RpcSimulateTransactionConfig::default()
        };
        let unsigned = Transaction::new_unsigned(self.message.clone());
        let result = endpoint
            .rpc()
            .simulate_transaction_with_config(&unsigned, config)
            .await
            .map_err(|error| ChainError::from_client(endpoint.name(), &error))?
            .value;
        Ok(Simulation {
            error: result.err.map(TransactionError::from),
            compute_units: result.units_consumed,
        })
    }

    /// Asks for the compute units that it took in a simulation and a margin, and sets aside no more than that costs. What
    /// failed before gets all that was planned: it is not to fail for want of them.
    pub fn fit_to(&mut self, compute_units: Option<u64>, base_fee_lamports: u64) {
        let failed_before = self.readings.iter().any(|reading| reading.pack_alone);
        let limit = if failed_before {
            self.compute.ceiling()
        } else {
            self.compute.limit_after(compute_units)
        };
        set_compute_unit_limit(&mut self.message, limit);
        self.priority_fee_lamports = self.price.lamports_for(limit);
        let rent = self.packed.account_creations() as u64 * TOKEN_ACCOUNT_RENT_LAMPORTS;
        self.reservation
            .lower_to(base_fee_lamports + self.priority_fee_lamports + rent);
    }

    /// The readings whose instruction the error names.
    pub fn to_blame(&self, error: &TransactionError, mint: &Pubkey) -> Vec<&Candidate> {
        let wallets: Vec<(Uuid, Wallet)> = self
            .readings
            .iter()
            .map(|reading| (reading.id, reading.wallet))
            .collect();
        let Blame::Readings(to_blame) = ledger::blame(&self.message, error, mint, &wallets) else {
            return Vec::new();
        };
        self.readings
            .iter()
            .filter(|reading| to_blame.contains(&reading.id))
            .collect()
    }

    /// Signs outside any database transaction, records, and after a known commit sends. `Ok` means: recorded; whatever comes
    /// of the send, the Resolver finds out.
    pub async fn record_and_send(
        self,
        workshop: &Workshop,
        endpoint: &Endpoint,
        blockhash: RecentBlockhash,
        permit: &Arc<OwnedSemaphorePermit>,
    ) -> Result<(), DraftError> {
        let mut span = self.span();
        let (signature, signed_bytes) =
            transaction::sign(self.message, blockhash.hash, &workshop.tools.signer)?;
        span.signed(&signature);
        crate::failpoint!("mint.signed");
        let new = NewMintTransaction {
            number: self.number,
            signature,
            signed_bytes,
            merkle_root: self.merkle_root,
            base_units: self.packed.base_units,
            blockhash,
            endpoint: endpoint.name().to_owned(),
            account_creations: self.packed.account_creations() as u32,
            fee_lamports: workshop.tools.chain.base_fee_lamports() + self.priority_fee_lamports,
            priority_fee_lamports: self.priority_fee_lamports,
            readings: self
                .readings
                .iter()
                .map(|reading| PackedReading {
                    id: reading.id,
                    revision: reading.revision,
                })
                .collect(),
        };
        let recorded =
            ledger::record(&workshop.pool, workshop.limits.transaction_limit, &new).await;
        if matches!(recorded, Ok(()) | Err(RecordError::Unknown(_))) {
            self.reservation.recorded();
        }
        recorded.inspect_err(|_| span.not_recorded())?;
        let accepted: Vec<DateTime<Utc>> = self
            .readings
            .iter()
            .map(|reading| reading.accepted_at)
            .collect();
        observe(Stage::Signed, &accepted);
        metrics::histogram!(names::MINT_TRANSACTION_READINGS).record(accepted.len() as f64);
        metrics::histogram!(names::MINT_TRANSACTION_SIZE_BYTES).record(self.packed.bytes as f64);
        metrics::counter!(names::TOKEN_ACCOUNT_CREATIONS)
            .increment(u64::from(new.account_creations));
        tracing::debug!(
            %signature,
            number = self.number,
            readings = accepted.len(),
            bytes = self.packed.bytes,
            "recorded"
        );
        send_in_background(workshop, new, accepted, span, permit);
        Ok(())
    }

    fn span(&self) -> TransactionSpan {
        let traced = self.readings.iter();
        let traced = traced.filter_map(|reading| Some((reading.id, reading.trace.clone()?)));
        TransactionSpan::begin(self.number, traced.collect())
    }
}

/// The first send. It holds the batch's permit, so that no more batches are under way than allowed.
fn send_in_background(
    workshop: &Workshop,
    new: NewMintTransaction,
    accepted: Vec<DateTime<Utc>>,
    span: TransactionSpan,
    permit: &Arc<OwnedSemaphorePermit>,
) {
    let permit = Arc::clone(permit);
    let endpoints = workshop.tools.chain.endpoints.clone();
    let limit = workshop.limits.transaction_limit;
    workshop.tracker.spawn(async move {
        let _permit = permit;
        crate::failpoint!("mint.before_send");
        let Some(endpoint) = endpoints.by_name(&new.endpoint) else {
            return;
        };
        let sending = span.around(ledger::send(endpoint, &new.signed_bytes));
        match tokio::time::timeout(limit, sending).await {
            Ok(Ok(())) => {
                observe(Stage::Sent, &accepted);
                span.sent(Ok(()));
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    signature = %new.signature, %error,
                    "the first send was not taken; the same bytes are sent again"
                );
                // Now, if there is anybody else to send to, rather than by the Resolver in two seconds.
                let signature = new.signature.to_string();
                let others = ledger::send_to_others(
                    &endpoints,
                    &new.endpoint,
                    &signature,
                    &new.signed_bytes,
                );
                let _ = tokio::time::timeout(limit, span.around(others)).await;
                span.sent(Err("not taken"));
            }
            Err(_) => {
                tracing::warn!(
                    signature = %new.signature,
                    "the first send was not answered in time; the same bytes are sent again"
                );
                span.sent(Err("not answered"));
            }
        }
        crate::failpoint!("mint.sent");
    });
}

pub(super) fn observe(stage: Stage, accepted: &[DateTime<Utc>]) {
    let now = Utc::now();
    for accepted_at in accepted {
        observe_stage(stage, (now - accepted_at).to_std().unwrap_or_default());
    }
}
