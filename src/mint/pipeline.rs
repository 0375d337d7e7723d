//! One batch, from requests to recorded transactions that are on their way. This file shows the order of the steps:
//!
//! 1. [`load`] the readings · 2. [`resolve_accounts`] of their wallets · 3. [`pack`] readings into transactions ·
//! 4. [`fit_to_budget`] of the fee payer · 5. [`simulate_all`] · 6. [`sign_and_record`] · 7. [`send_in_background`]
//!
//! Accounts and simulation come before any signature, so that a reading that cannot be paid is split off first. Bytes are
//! sent only after a known commit of their record. What fails before the record leaves nothing behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::affordability::fit_to_budget;
use super::answers::Answers;
use super::candidate::Candidate;
use super::context::MintContext;
use super::defer_reason::DeferReason;
use super::draft::{Draft, draft_all};
use super::first_send::send_in_background;
use super::left_out::answer_left_out;
use super::load::{attach_traces, load};
use super::pack::pack;
use super::request::{BatchAnswer, MintOutcome, MintRequest};
use super::resolve_accounts::resolve_accounts;
use super::sign_and_record::{NotRecorded, sign_and_record};
use super::simulate::simulate_all;
use super::stage_times::observe;
use crate::chain::{ChainError, Endpoint, FailureOrigin, RecentBlockhash};
use crate::domain::{TransactionFormat, TransactionTerms};
use crate::ledger;
use crate::telemetry::{Stage, names};

/// Times a batch is packed again because a reading changed or was refused in between. Readings that are left over then wait
/// for their jobs.
const MAX_PACKINGS: usize = 8;

/// Answers every request.
pub(super) async fn run(
    context: &MintContext,
    requests: Vec<MintRequest>,
) -> HashMap<Uuid, BatchAnswer> {
    let started = Instant::now();
    let mut answers = Answers::none_yet(requests);
    if let Err(reason) = mint_all(context, &mut answers).await {
        answers.defer_rest(&reason);
    }
    metrics::histogram!(names::BATCH_SECONDS).record(started.elapsed());
    answers.into_given()
}

async fn mint_all(context: &MintContext, answers: &mut Answers) -> Result<(), DeferReason> {
    let permit = permit(context).await?;
    for round in 0..MAX_PACKINGS {
        let requests = answers.unanswered();
        if requests.is_empty() {
            return Ok(());
        }
        // Step 1.
        let mut candidates = load(context, &requests, answers).await?;
        if candidates.is_empty() {
            return Ok(());
        }
        let is_first = round == 0;
        if is_first {
            observe_picked(&candidates, answers);
        }
        let round = PackingRound {
            context,
            endpoint: context.chain.endpoints.preferred(),
            permit: &permit,
            is_first,
        };
        let span = attach_traces(context, &mut candidates).await;
        match span.around(round.mint(candidates, answers)).await {
            Ok(()) => context.chain.circuit_breaker.batch_succeeded(),
            Err(error) if round.fails_over(&error) => {
                tracing::info!(%error, "batch continues with another endpoint");
            }
            Err(error) => {
                context.chain.circuit_breaker.batch_failed(error.clone());
                return Err(error.into());
            }
        }
    }
    Err(DeferReason::KeptChanging)
}

/// One packing of the readings that have no answer yet, through one endpoint.
struct PackingRound<'a> {
    context: &'a MintContext,
    endpoint: &'a Endpoint,
    permit: &'a Arc<OwnedSemaphorePermit>,
    is_first: bool,
}

impl PackingRound<'_> {
    /// The steps. Readings whose transaction went stale or was refused get no answer here: they are packed again.
    async fn mint(
        &self,
        candidates: Vec<Candidate>,
        answers: &mut Answers,
    ) -> Result<(), ChainError> {
        let (context, endpoint) = (self.context, self.endpoint);
        let chain = &context.chain;
        endpoint.ensure_chain(&chain.accounts.genesis_hash).await?;
        // Step 2. No answer needs another.
        let fetched_at = Instant::now();
        let payer = chain.payer();
        let (payable, blockhash, format) = tokio::try_join!(
            resolve_accounts(context, endpoint, candidates, answers),
            endpoint.recent_blockhash(),
            chain.transaction_formats.choose(endpoint, &payer).map(Ok)
        )?;
        // Steps 3 and 4: packed, and packed again without the readings that have to wait for funds.
        let price = chain.priority_fees.price();
        let terms = TransactionTerms { format, price };
        let (costs, limits) = (chain.costs_at(price)?, context.pack_limits(terms));
        // A reading waits for the next batch once: not when it is packed again, nor in the batch that it waited for.
        let may_wait = |reading| self.is_first && !answers.was_carried(reading);
        let plan = fit_to_budget(payable, &chain.fee_budget, &costs, |items| {
            pack(items, &limits, may_wait)
        });
        answer_left_out(context, plan.left_out, &costs, answers).await;
        // Step 5.
        let drafts = draft_all(context, plan.funded, format, costs, answers).await;
        let drafts = match simulate_all(context, endpoint, drafts, answers).await {
            // Nothing was signed: the same readings are packed again, as legacy transactions.
            Err(error) if self.refuses_v1(format, &error) => return Ok(()),
            simulated => simulated?,
        };
        // Steps 6 and 7.
        let blockhash = self.fresh(blockhash, fetched_at).await?;
        self.record_and_send(blockhash, drafts, answers).await;
        Ok(())
    }

    /// The blockhash, or another one if slow answers have used up too much of its life: bytes that are signed on it would have
    /// little time to land, and their death would have to be proven.
    async fn fresh(
        &self,
        blockhash: RecentBlockhash,
        fetched_at: Instant,
    ) -> Result<RecentBlockhash, ChainError> {
        let parameters = self.context.chain.endpoints.parameters();
        if parameters.is_worn(fetched_at.elapsed()) {
            self.endpoint.recent_blockhash().await
        } else {
            Ok(blockhash)
        }
    }

    /// Each transaction is sent as soon as its own record is committed.
    async fn record_and_send(
        &self,
        blockhash: RecentBlockhash,
        drafts: Vec<Draft>,
        answers: &mut Answers,
    ) {
        let (context, endpoint) = (self.context, self.endpoint);
        let sent = drafts.into_iter().map(|draft| async move {
            let readings = draft.reading_ids();
            let recorded = sign_and_record(context, endpoint, blockhash, draft).await;
            let sent = recorded.map(|recorded| send_in_background(context, recorded, self.permit));
            (readings, sent)
        });
        for (readings, sent) in join_all(sent).await {
            match sent {
                Ok(()) => readings
                    .into_iter()
                    .for_each(|reading| answers.give(reading, MintOutcome::Submitted)),
                // The next packing loads its readings as they are now.
                Err(NotRecorded::Stale) => {}
                Err(NotRecorded::Deferred(reason)) => answers.defer(&readings, &reason),
            }
        }
    }

    /// Whether the endpoint refused the round's transactions for their format, which is noted.
    fn refuses_v1(&self, format: TransactionFormat, error: &ChainError) -> bool {
        let formats = self.context.chain.transaction_formats;
        format == TransactionFormat::V1 && formats.note_refusal(self.endpoint, error)
    }

    /// Whether to continue with another endpoint, from its own blockhash on.
    fn fails_over(&self, error: &ChainError) -> bool {
        let endpoints = &self.context.chain.endpoints;
        error.origin() == FailureOrigin::Endpoint && endpoints.fail_over_from(self.endpoint, error)
    }
}

/// Whether anything may be minted now. The permit is one of those that limit how many batches are made or sent at once.
async fn permit(context: &MintContext) -> Result<Arc<OwnedSemaphorePermit>, DeferReason> {
    let circuit_breaker = &context.chain.circuit_breaker;
    circuit_breaker
        .view()
        .allows_minting()
        .map_err(DeferReason::CircuitBreakerOpen)?;
    circuit_breaker.batch_begins();
    let permit = Arc::clone(&context.in_flight)
        .acquire_owned()
        .await
        .map_err(|_| DeferReason::MinterClosed)?;
    context
        .in_time(ledger::may_sign(&context.pool, context.chain.scan_request))
        .await
        // An open ledger breaker opens the circuit breaker too, which holds the jobs back.
        .inspect_err(|_| circuit_breaker.check_now())?;
    Ok(Arc::new(permit))
}

/// Carried readings were observed by the batch that carried them.
fn observe_picked(candidates: &[Candidate], answers: &Answers) {
    let picked = candidates
        .iter()
        .filter(|candidate| !answers.was_carried(candidate.id));
    let accepted: Vec<_> = picked.map(|candidate| candidate.accepted_at).collect();
    observe(Stage::Picked, &accepted);
}
