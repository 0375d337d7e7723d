//! One batch: from requests to recorded transactions that are on their way.
//!
//! Order matters: accounts and simulation first (a bad reading is split off before anything is signed), then number,
//! blockhash, signature, record, and only after a known commit the send. Whatever fails before the record leaves nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{join_all, try_join_all};
use solana_sdk::transaction::TransactionError;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::candidate::{self, Candidate};
use super::draft::{Draft, DraftError, observe};
use super::minter::{BatchAnswer, MintOutcome, MintRequest, Workshop};
use crate::chain::{ChainError, Endpoint, Fault, RecentBlockhash, Reservation};
use crate::domain::{
    COMPUTE_UNITS_MAX, ComputeUnitPrice, PackLimits, Packed, TRANSACTION_BYTES_MAX,
};
use crate::ledger::{self, AfterRefusal, RecordError, Refusal};
use crate::telemetry::traces::{self, Span};
use crate::telemetry::{Stage, names};

/// Times that a batch packs again because a reading changed or was refused in between; what is left then waits for its
/// job.
const MAX_PACKINGS: usize = 8;

pub(super) type Answers = HashMap<Uuid, BatchAnswer>;

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
        price: ComputeUnitPrice::ZERO,
    };
    let started = Instant::now();
    if let Err(reason) = batch.mint_all().await {
        batch.answer_rest(&reason);
    }
    metrics::histogram!(names::BATCH_SECONDS).record(started.elapsed());
    batch.answers
}

pub(super) struct Batch<'a> {
    pub(super) workshop: &'a Workshop,
    requests: HashMap<Uuid, MintRequest>,
    pub(super) answers: Answers,
    /// What each compute unit of this packing is offered.
    pub(super) price: ComputeUnitPrice,
}

/// Why the rest of a batch cannot be minted now, for logs and `last_error`.
type NotNow = String;

impl Batch<'_> {
    async fn mint_all(&mut self) -> Result<(), NotNow> {
        self.workshop
            .tools
            .chain
            .circuit_breaker
            .view()
            .allows_minting()
            .map_err(|cause| cause.to_string())?;
        let permit = Arc::clone(&self.workshop.in_flight)
            .acquire_owned()
            .await
            .map_err(|_| "the Minter is closed".to_owned())?;
        let permit = Arc::new(permit);
        self.in_time(ledger::may_sign(&self.workshop.pool))
            .await
            .inspect_err(|_| {
                // An open ledger breaker opens the circuit breaker too, and holds the jobs back.
                self.workshop.tools.chain.circuit_breaker.check_now();
            })?;
        let mut may_carry = true;
        for _ in 0..MAX_PACKINGS {
            let waiting: Vec<MintRequest> = self.unanswered();
            if waiting.is_empty() {
                return Ok(());
            }
            let mut candidates = self
                .in_time(candidate::load(&self.workshop.pool, &waiting))
                .await?;
            for (reading, outcome) in candidates.answered {
                self.answer(reading, outcome);
            }
            if candidates.payable.is_empty() {
                return Ok(());
            }
            // Once: not when it is packed again, nor when it comes back because its transaction was not full.
            if may_carry {
                self.observe_picked(&candidates.payable);
            }
            let endpoint = self.workshop.tools.chain.endpoints.preferred();
            let span = self.trace(&mut candidates.payable).await;
            let minted = span
                .around(self.pack_and_record(endpoint, candidates.payable, &permit, may_carry))
                .await;
            match minted {
                Ok(()) => self.workshop.tools.chain.circuit_breaker.batch_succeeded(),
                // With another endpoint, from its own blockhash on.
                Err(error) if self.fails_over(endpoint, &error) => {
                    tracing::info!(%error, "a batch goes on with another endpoint");
                }
                Err(error) => {
                    let reason = error.to_string();
                    self.workshop
                        .tools
                        .chain
                        .circuit_breaker
                        .batch_failed(error);
                    return Err(reason);
                }
            }
            may_carry = false;
        }
        Err("its transaction kept changing while it was packed".to_owned())
    }

    /// Finds out where the readings' traces go on. Nothing is under way for a batch of which none is traced.
    async fn trace(&self, payable: &mut [Candidate]) -> Span {
        let ids = payable.iter().map(|candidate| candidate.id);
        let mut traces = traces::of_readings(&self.workshop.pool, ids).await;
        if traces.is_empty() {
            return Span::none();
        }
        for candidate in payable.iter_mut() {
            candidate.trace = traces.remove(&candidate.id);
        }
        Span::of_batch(payable.len())
    }

    /// Whether another endpoint is worth asking at once.
    fn fails_over(&self, endpoint: &Endpoint, error: &ChainError) -> bool {
        error.fault() == Fault::Endpoint
            && self.workshop.tools.chain.endpoints.turn_away_from(endpoint)
    }

    /// Waits for the database no longer than one transaction may take: a session that falls silent must not keep this
    /// batch's permit for ever.
    pub(super) async fn in_time<T, E: std::fmt::Display>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, NotNow> {
        let limit = self.workshop.limits.transaction_limit;
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the database did not answer within {limit:?}")),
        }
    }

    fn observe_picked(&self, candidates: &[Candidate]) {
        let is_new = |candidate: &&Candidate| {
            let request = self.requests.get(&candidate.id);
            request.is_some_and(|request| !request.carried)
        };
        let picked = candidates.iter().filter(is_new);
        let accepted: Vec<_> = picked.map(|candidate| candidate.accepted_at).collect();
        observe(Stage::Picked, &accepted);
    }

    fn unanswered(&self) -> Vec<MintRequest> {
        self.requests
            .values()
            .filter(|request| !self.answers.contains_key(&request.reading))
            .copied()
            .collect()
    }

    pub(super) fn answer(&mut self, reading: Uuid, outcome: MintOutcome) {
        self.answers.insert(reading, BatchAnswer::Done(outcome));
    }

    pub(super) fn answer_not_now(&mut self, readings: &[Uuid], reason: &str) {
        for reading in readings {
            self.answer(*reading, MintOutcome::NotNow(reason.to_owned()));
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
        let genesis_hash = &self.workshop.tools.chain.accounts.genesis_hash;
        endpoint.assure_chain(genesis_hash).await?;
        // Neither answer needs the other.
        let (mut payable, blockhash) = tokio::try_join!(
            self.look_at_accounts(endpoint, payable),
            endpoint.recent_blockhash()
        )?;
        self.price = self.workshop.tools.chain.priority_fees.price();
        let transactions = self.within_means(&mut payable, may_carry).await;
        if transactions.is_empty() {
            return Ok(());
        }
        let drafts = match self.draft(transactions, payable).await {
            Ok(drafts) => drafts,
            Err(reason) => {
                self.answer_rest(&reason);
                return Ok(());
            }
        };
        let drafts = self.simulate_all(endpoint, drafts).await?;
        self.record_and_send_all(endpoint, blockhash, drafts, permit)
            .await;
        Ok(())
    }

    /// One draft for each packed transaction, with numbers of its own.
    async fn draft(
        &mut self,
        transactions: Vec<(Packed, Reservation)>,
        payable: Vec<(Candidate, bool)>,
    ) -> Result<Vec<Draft>, NotNow> {
        let mut by_id: HashMap<Uuid, Candidate> = payable
            .into_iter()
            .map(|(candidate, _)| (candidate.id, candidate))
            .collect();
        let count = transactions.len() as u64;
        let first_number = self
            .in_time(ledger::reserve_numbers(&self.workshop.pool, count))
            .await?;
        let mut drafts = Vec::with_capacity(transactions.len());
        for (number, (packed, reservation)) in (first_number..).zip(transactions) {
            let readings: Vec<Candidate> = packed
                .readings
                .iter()
                .filter_map(|id| by_id.remove(id))
                .collect();
            let ids: Vec<Uuid> = readings.iter().map(|reading| reading.id).collect();
            let tools = &self.workshop.tools;
            match Draft::new(number, packed, readings, reservation, self.price, tools) {
                Ok(draft) => drafts.push(draft),
                Err(error) => self.answer_not_now(&ids, &error.to_string()),
            }
        }
        Ok(drafts)
    }

    /// Gives the drafts that passed. Of the others, those to blame use up an attempt, and their neighbours are packed again
    /// at once.
    async fn simulate_all(
        &mut self,
        endpoint: &Endpoint,
        drafts: Vec<Draft>,
    ) -> Result<Vec<Draft>, ChainError> {
        let results = try_join_all(drafts.iter().map(|draft| draft.simulate(endpoint))).await?;
        let base_fee_lamports = self.workshop.tools.chain.base_fee_lamports();
        let mut passed = Vec::with_capacity(drafts.len());
        for (mut draft, simulation) in drafts.into_iter().zip(results) {
            match simulation.error {
                None => {
                    draft.fit_to(simulation.compute_units, base_fee_lamports);
                    passed.push(draft);
                }
                Some(error) => self.refuse_simulated(endpoint, &draft, &error).await?,
            }
        }
        Ok(passed)
    }

    /// Readings whose transaction went stale stay unanswered: the next packing reads what they are now.
    async fn record_and_send_all(
        &mut self,
        endpoint: &Endpoint,
        blockhash: RecentBlockhash,
        drafts: Vec<Draft>,
        permit: &Arc<OwnedSemaphorePermit>,
    ) {
        let workshop = self.workshop;
        let recorded = drafts.into_iter().map(|draft| async move {
            let readings = draft.reading_ids();
            (
                readings,
                draft
                    .record_and_send(workshop, endpoint, blockhash, permit)
                    .await,
            )
        });
        for (readings, recorded) in join_all(recorded).await {
            match recorded {
                Ok(()) => {
                    for reading in readings {
                        self.answer(reading, MintOutcome::Submitted);
                    }
                }
                Err(DraftError::Record(RecordError::Stale)) => {}
                Err(error) => self.answer_not_now(&readings, &error.to_string()),
            }
        }
    }

    pub(super) fn pack_limits(&self) -> PackLimits {
        PackLimits {
            max_readings: self.workshop.limits.max_batch_readings,
            max_base_units: self.workshop.limits.max_base_units_per_transaction,
            max_bytes: TRANSACTION_BYTES_MAX,
            max_compute_units: COMPUTE_UNITS_MAX,
            separate_fee_payer: self.workshop.tools.signer.has_separate_fee_payer(),
            priced: !self.price.is_zero(),
        }
    }

    /// A reading that no transaction can pay under these limits: the limits were lowered after it was accepted.
    pub(super) async fn refuse_oversized(
        &mut self,
        transactions: &mut Vec<Packed>,
        payable: &[(Candidate, bool)],
    ) {
        let oversized: Vec<Packed> = transactions
            .extract_if(.., |packed| packed.oversized)
            .collect();
        for packed in oversized {
            let readings = payable
                .iter()
                .filter(|(candidate, _)| packed.readings.contains(&candidate.id));
            for (reading, _) in readings {
                let reason = format!(
                    "its {} base units are above BLOCKCHAIN_MAX_TOKENS_PER_TRANSACTION={}; raise it, then retry",
                    packed.base_units, self.workshop.limits.max_base_units_per_transaction
                );
                self.refuse(reading, reason, true).await;
            }
        }
    }

    /// Under load (some transaction is full) what does not fill one waits for the next batch, once.
    pub(super) fn carry_remainder(&mut self, transactions: &mut Vec<Packed>) {
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

    pub(super) async fn refuse(&mut self, reading: &Candidate, reason: String, permanent: bool) {
        let refusal = Refusal {
            reading: reading.id,
            reason,
            permanent,
        };
        let refused = ledger::refuse_pending(
            &self.workshop.pool,
            &self.workshop.limits.schedule,
            &refusal,
            reading.revision,
        );
        let after = self.in_time(refused).await;
        match after {
            Ok(AfterRefusal::Failed) => {
                tracing::warn!(reading_id = %refusal.reading, reason = refusal.reason, "reading failed");
                self.answer(refusal.reading, MintOutcome::Failed);
            }
            Ok(AfterRefusal::RetryAt(at)) => {
                tracing::warn!(reading_id = %refusal.reading, reason = refusal.reason, next_attempt_at = %at, "reading refused");
                self.answer(refusal.reading, MintOutcome::RetryAt(at));
            }
            // Changed meanwhile: the next packing reads what it is now.
            Ok(AfterRefusal::Superseded) => {}
            Err(reason) => self.answer(
                refusal.reading,
                MintOutcome::NotNow(format!("the refusal could not be stored: {reason}")),
            ),
        }
    }

    async fn refuse_simulated(
        &mut self,
        endpoint: &Endpoint,
        draft: &Draft,
        error: &TransactionError,
    ) -> Result<(), ChainError> {
        let to_blame = draft.to_blame(error, &self.workshop.tools.chain.accounts.mint);
        if to_blame.is_empty() {
            // Fee payer, blockhash, a busy account: not the fault of any reading.
            return Err(ChainError::Refused(error.clone()));
        }
        // A mint that is not ours any more fails each payment in turn: no reading is to blame, whatever the error says.
        self.workshop
            .tools
            .chain
            .accounts
            .look_at_mint(endpoint)
            .await?;
        for reading in to_blame {
            let reason = format!("simulation refused its payment: {error}");
            self.refuse(reading, reason, false).await;
        }
        Ok(())
    }
}
