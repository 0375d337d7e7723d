//! One batch: from requests to recorded transactions that are on their way.
//!
//! Order matters: accounts and simulation first (a bad reading is split off before anything is signed), then number,
//! blockhash, signature, record, and only after a known commit the send. Whatever fails before the record leaves nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use solana_client::rpc_config::RpcSimulateTransactionConfig;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::message::Message;
use solana_sdk::transaction::{Transaction, TransactionError};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::candidate::{self, Candidate};
use super::minter::{BatchAnswer, MintOutcome, MintRequest, Workshop};
use super::transaction::{self, LAMPORTS_PER_SIGNATURE};
use crate::chain::{ChainError, Endpoint, RecentBlockhash, inspect_token_accounts};
use crate::domain::{
    COMPUTE_UNITS_MAX, PackItem, PackLimits, Packed, TRANSACTION_BYTES_MAX, Wallet, pack,
};
use crate::ledger::{
    self, AfterRefusal, NewMintTransaction, PackedReading, RecordError, Refusal, readings_to_blame,
};
use crate::telemetry::{Stage, names, observe_stage};

/// Times that a batch packs again because a reading changed or was refused in between; what is left then waits for its
/// job.
const MAX_PACKINGS: usize = 8;

type Answers = HashMap<Uuid, BatchAnswer>;

/// Runs the batch. Every request's reading is among the answers.
pub(super) async fn run(workshop: &Workshop, requests: Vec<MintRequest>) -> Answers {
    let carried: HashMap<Uuid, MintRequest> = requests
        .iter()
        .map(|request| (request.reading, *request))
        .collect();
    let mut batch = Batch {
        workshop,
        requests: carried,
        answers: Answers::new(),
    };
    let started = Instant::now();
    if let Err(reason) = batch.mint_all().await {
        batch.answer_rest(&reason);
    }
    metrics::histogram!(names::BATCH_SECONDS).record(started.elapsed());
    batch.answers
}

struct Batch<'a> {
    workshop: &'a Workshop,
    requests: HashMap<Uuid, MintRequest>,
    answers: Answers,
}

/// Why the rest of a batch cannot be minted now, for logs and `last_error`.
type NotNow = String;

impl Batch<'_> {
    async fn mint_all(&mut self) -> Result<(), NotNow> {
        let permit = Arc::clone(&self.workshop.in_flight)
            .acquire_owned()
            .await
            .map_err(|_| "the Minter is closed".to_owned())?;
        let permit = Arc::new(permit);
        ledger::may_sign(&self.workshop.pool)
            .await
            .map_err(|error| error.to_string())?;
        let mut may_carry = true;
        for _ in 0..MAX_PACKINGS {
            let waiting: Vec<MintRequest> = self.unanswered();
            if waiting.is_empty() {
                return Ok(());
            }
            let candidates = candidate::load(&self.workshop.pool, &waiting)
                .await
                .map_err(|error| format!("the database failed: {error}"))?;
            for (reading, outcome) in candidates.answered {
                self.answer(reading, outcome);
            }
            if candidates.payable.is_empty() {
                return Ok(());
            }
            let endpoint = self.workshop.endpoints.preferred();
            let minted = self
                .pack_and_record(endpoint, candidates.payable, &permit, may_carry)
                .await;
            if let Err(error) = minted {
                if matches!(error, ChainError::Unreachable { .. }) {
                    self.workshop.endpoints.turn_away_from(endpoint);
                }
                return Err(error.to_string());
            }
            may_carry = false;
        }
        Err("its transaction kept changing while it was packed".to_owned())
    }

    fn unanswered(&self) -> Vec<MintRequest> {
        self.requests
            .values()
            .filter(|request| !self.answers.contains_key(&request.reading))
            .copied()
            .collect()
    }

    fn answer(&mut self, reading: Uuid, outcome: MintOutcome) {
        self.answers.insert(reading, BatchAnswer::Done(outcome));
    }

    fn answer_not_now(&mut self, readings: &[&Candidate], reason: &str) {
        for reading in readings {
            self.answer(reading.id, MintOutcome::NotNow(reason.to_owned()));
        }
    }

    fn answer_rest(&mut self, reason: &str) {
        tracing::warn!(
            reason,
            readings = self.unanswered().len(),
            "readings cannot be minted now"
        );
        for request in self.unanswered() {
            self.answer(request.reading, MintOutcome::NotNow(reason.to_owned()));
        }
    }

    /// One packing of what is payable. Readings whose transaction went stale or was refused stay unanswered: packed again.
    async fn pack_and_record(
        &mut self,
        endpoint: &Endpoint,
        payable: Vec<Candidate>,
        permit: &Arc<OwnedSemaphorePermit>,
        may_carry: bool,
    ) -> Result<(), ChainError> {
        let payable = self.look_at_accounts(endpoint, payable).await?;
        let by_id: HashMap<Uuid, &Candidate> = payable
            .iter()
            .map(|(candidate, _)| (candidate.id, candidate))
            .collect();
        let items = payable
            .iter()
            .map(|(candidate, needs_account)| PackItem {
                reading_id: candidate.id,
                wallet: candidate.wallet,
                base_units: candidate.base_units,
                needs_account: *needs_account,
                alone: candidate.pack_alone,
            })
            .collect();
        let mut transactions = pack(items, &self.pack_limits());
        self.refuse_oversized(&mut transactions).await;
        if may_carry {
            self.carry_remainder(&mut transactions);
        }
        if transactions.is_empty() {
            return Ok(());
        }
        let blockhash = endpoint.recent_blockhash().await?;
        let first_number =
            match ledger::reserve_numbers(&self.workshop.pool, transactions.len() as u64).await {
                Ok(first) => first,
                Err(error) => {
                    self.answer_rest(&format!("the database failed: {error}"));
                    return Ok(());
                }
            };
        for (number, packed) in (first_number..).zip(&transactions) {
            let readings: Vec<&Candidate> = packed
                .readings
                .iter()
                .filter_map(|id| by_id.get(id).copied())
                .collect();
            self.mint_one(endpoint, blockhash, number, packed, &readings, permit)
                .await?;
        }
        Ok(())
    }

    fn pack_limits(&self) -> PackLimits {
        PackLimits {
            max_readings: self.workshop.limits.max_batch_readings,
            max_base_units: self.workshop.limits.max_base_units_per_transaction,
            max_bytes: TRANSACTION_BYTES_MAX,
            max_compute_units: COMPUTE_UNITS_MAX,
            separate_fee_payer: self.workshop.signer.has_separate_fee_payer(),
        }
    }

    /// A reading that no transaction can pay under these limits: the limits were lowered after it was accepted.
    async fn refuse_oversized(&mut self, transactions: &mut Vec<Packed>) {
        let oversized: Vec<Packed> = transactions
            .extract_if(.., |packed| packed.oversized)
            .collect();
        for packed in oversized {
            for reading in packed.readings {
                self.refuse(Refusal {
                    reading,
                    reason: format!(
                        "its {} base units are above BLOCKCHAIN_MAX_TOKENS_PER_TRANSACTION={}; raise it, then retry",
                        packed.base_units, self.workshop.limits.max_base_units_per_transaction
                    ),
                    permanent: true,
                })
                .await;
            }
        }
    }

    /// Under load (some transaction is full) what does not fill one waits for the next batch, once.
    fn carry_remainder(&mut self, transactions: &mut Vec<Packed>) {
        if !transactions.iter().any(|packed| packed.full) {
            return;
        }
        transactions.retain(|packed| {
            let fresh = packed.readings.iter().all(|reading| {
                self.requests
                    .get(reading)
                    .is_some_and(|request| !request.carried)
            });
            let leaves_now = packed.full || !fresh;
            if !leaves_now {
                for reading in &packed.readings {
                    self.answers.insert(*reading, BatchAnswer::Carry);
                }
            }
            leaves_now
        });
    }

    /// One question for all wallets. A reading whose account is frozen, closed or given away fails alone.
    async fn look_at_accounts(
        &mut self,
        endpoint: &Endpoint,
        payable: Vec<Candidate>,
    ) -> Result<Vec<(Candidate, bool)>, ChainError> {
        let mut wallets: Vec<Wallet> = payable.iter().map(|candidate| candidate.wallet).collect();
        wallets.sort_unstable();
        wallets.dedup();
        let states = inspect_token_accounts(endpoint, &self.workshop.mint, &wallets).await?;
        let mut good = Vec::with_capacity(payable.len());
        for candidate in payable {
            let state = states.get(&candidate.wallet).copied().unwrap_or_default();
            let reason = match state.needs_account(candidate.account_was_there) {
                Ok(needs_account) => {
                    good.push((candidate, needs_account));
                    continue;
                }
                Err(reason) => reason,
            };
            let refusal = Refusal {
                reading: candidate.id,
                reason: format!(
                    "the token account {} of wallet {} {reason}; recreate the account, then retry",
                    candidate.wallet.token_account(&self.workshop.mint),
                    candidate.wallet,
                ),
                permanent: true,
            };
            self.refuse(refusal).await;
        }
        Ok(good)
    }

    async fn refuse(&mut self, refusal: Refusal) {
        let after = ledger::refuse_pending(
            &self.workshop.pool,
            &self.workshop.limits.schedule,
            &refusal,
        )
        .await;
        match after {
            Ok(AfterRefusal::Failed) => {
                tracing::warn!(reading_id = %refusal.reading, reason = refusal.reason, "reading failed");
                self.answer(refusal.reading, MintOutcome::Failed);
            }
            Ok(AfterRefusal::RetryAt(at)) => {
                tracing::warn!(reading_id = %refusal.reading, reason = refusal.reason, next_attempt_at = %at, "reading refused");
                self.answer(refusal.reading, MintOutcome::RetryAt(at));
            }
            // Not pending any more: the next packing reads what it is now.
            Ok(AfterRefusal::Elsewhere) => {}
            Err(error) => self.answer(
                refusal.reading,
                MintOutcome::NotNow(format!("the refusal could not be stored: {error}")),
            ),
        }
    }

    /// Simulates, signs, records and sends one transaction.
    async fn mint_one(
        &mut self,
        endpoint: &Endpoint,
        blockhash: RecentBlockhash,
        number: u64,
        packed: &Packed,
        readings: &[&Candidate],
        permit: &Arc<OwnedSemaphorePermit>,
    ) -> Result<(), ChainError> {
        let mut leaves: Vec<(Uuid, [u8; 32])> = readings
            .iter()
            .map(|reading| (reading.id, reading.leaf_hash))
            .collect();
        let built = transaction::message_of(
            packed,
            &mut leaves,
            number,
            &self.workshop.mint,
            &self.workshop.signer,
        );
        let (message, merkle_root) = match built {
            Ok(built) => built,
            Err(error) => {
                self.answer_not_now(readings, &error.to_string());
                return Ok(());
            }
        };
        if let Some(error) = simulate(endpoint, &message).await? {
            self.refuse_simulated(&message, &error, readings).await?;
            return Ok(());
        }
        let (signature, wire) =
            match transaction::sign(message, blockhash.hash, &self.workshop.signer) {
                Ok(signed) => signed,
                Err(error) => {
                    self.answer_not_now(readings, &error.to_string());
                    return Ok(());
                }
            };
        crate::failpoint!("mint.signed");
        let new = NewMintTransaction {
            number,
            signature,
            wire,
            merkle_root,
            base_units: packed.base_units,
            blockhash,
            endpoint: endpoint.name().to_owned(),
            account_creations: packed.account_creations() as u32,
            fee_lamports: self.workshop.signer.signatures_per_transaction()
                * LAMPORTS_PER_SIGNATURE,
            readings: readings
                .iter()
                .map(|reading| PackedReading {
                    id: reading.id,
                    revision: reading.revision,
                })
                .collect(),
        };
        match ledger::record(&self.workshop.pool, &new).await {
            Ok(()) => {
                observe(Stage::Signed, readings);
                tracing::debug!(%signature, number, readings = readings.len(), bytes = packed.bytes, "recorded");
                for reading in readings {
                    self.answer(reading.id, MintOutcome::Submitted);
                }
                let accepted = readings.iter().map(|reading| reading.accepted_at).collect();
                self.send_in_background(new, accepted, permit);
            }
            // Unanswered: the next packing reads what they are now.
            Err(RecordError::Stale) => {}
            Err(error) => self.answer_not_now(readings, &error.to_string()),
        }
        Ok(())
    }

    /// Simulation refused: those to blame use up an attempt, their neighbours are packed again at once.
    async fn refuse_simulated(
        &mut self,
        message: &Message,
        error: &TransactionError,
        readings: &[&Candidate],
    ) -> Result<(), ChainError> {
        let wallets: Vec<(Uuid, Wallet)> = readings
            .iter()
            .map(|reading| (reading.id, reading.wallet))
            .collect();
        let to_blame = readings_to_blame(message, error, &self.workshop.mint, &wallets);
        if to_blame.is_empty() {
            // Fee payer, blockhash, a busy account: not the fault of any reading.
            return Err(ChainError::Refused(error.clone()));
        }
        for reading in to_blame {
            self.refuse(Refusal {
                reading,
                reason: format!("simulation refused its payment: {error}"),
                permanent: false,
            })
            .await;
        }
        Ok(())
    }

    /// The first send. It holds the batch's permit, so that no more batches are under way than allowed; whatever comes of
    /// it, the Resolver finds out.
    fn send_in_background(
        &self,
        new: NewMintTransaction,
        accepted: Vec<DateTime<Utc>>,
        permit: &Arc<OwnedSemaphorePermit>,
    ) {
        let permit = Arc::clone(permit);
        let endpoints = self.workshop.endpoints.clone();
        let limit = self.workshop.limits.send_limit;
        self.workshop.tracker.spawn(async move {
            let _permit = permit;
            crate::failpoint!("mint.before_send");
            let Some(endpoint) = endpoints.by_name(&new.endpoint) else {
                return;
            };
            match tokio::time::timeout(limit, ledger::send(endpoint, &new.wire)).await {
                Ok(Ok(())) => {
                    for accepted_at in accepted {
                        observe_stage(Stage::Sent, since(accepted_at));
                    }
                }
                Ok(Err(error)) => tracing::warn!(
                    signature = %new.signature, %error,
                    "the first send was not taken; the same bytes are sent again"
                ),
                Err(_) => tracing::warn!(
                    signature = %new.signature,
                    "the first send was not answered in time; the same bytes are sent again"
                ),
            }
            crate::failpoint!("mint.sent");
        });
    }
}

fn observe(stage: Stage, readings: &[&Candidate]) {
    for reading in readings {
        observe_stage(stage, since(reading.accepted_at));
    }
}

fn since(moment: DateTime<Utc>) -> Duration {
    (Utc::now() - moment).to_std().unwrap_or_default()
}

/// Runs the unsigned message on the endpoint: signed bytes must not leave before they are recorded.
async fn simulate(
    endpoint: &Endpoint,
    message: &Message,
) -> Result<Option<TransactionError>, ChainError> {
    let config = RpcSimulateTransactionConfig {
        sig_verify: false,
        replace_recent_blockhash: true,
        commitment: Some(CommitmentConfig::confirmed()),
        ..RpcSimulateTransactionConfig::default()
    };
    let unsigned = Transaction::new_unsigned(message.clone());
    let result = endpoint
        .rpc()
        .simulate_transaction_with_config(&unsigned, config)
        .await
        .map_err(|error| ChainError::from_client(endpoint.name(), &error))?
        .value;
    Ok(result.err.map(TransactionError::from))
}
