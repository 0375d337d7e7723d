//! Step 5 of the pipeline: simulates each draft on the endpoint, before anything is signed.
//!
//! A draft that passes requests what the simulation used, with a margin. Of one that fails, the readings to
//! blame use up an attempt, and their neighbours are packed again at once.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use solana_client::rpc_request::RpcRequest;
use solana_sdk::signature::Signature;
use solana_sdk::transaction::VersionedTransaction;

use super::answers::Answers;
use super::candidate::Candidate;
use super::context::MintContext;
use super::draft::{Draft, Used};
use super::refuse::refuse;
use crate::chain::{
    CallProblem, ChainError, Endpoint, Finality, TransactionFailure, UnusableAnswer,
};
use crate::domain::signed_bytes;
use crate::ledger::{self, Payee, RefusalReason};

/// The report of a simulation.
struct Simulation {
    error: Option<TransactionFailure>,
    used: Used,
}

/// The cause of a draft's failed simulation.
enum ToBlame {
    /// Some of its readings, which were refused.
    Readings,
    NoReading,
}

/// Returns the drafts that passed; an error if none did and no reading is to blame.
pub(super) async fn simulate_all(
    context: &MintContext,
    endpoint: &Endpoint,
    drafts: Vec<Draft>,
    answers: &mut Answers,
) -> Result<Vec<Draft>, ChainError> {
    let results = try_join_all(drafts.iter().map(|draft| simulate(endpoint, draft))).await?;
    let mut passed = Vec::with_capacity(drafts.len());
    let mut no_readings_fault = None;
    for (mut draft, simulation) in drafts.into_iter().zip(results) {
        match simulation.error {
            None => {
                draft.limit_to(simulation.used);
                passed.push(draft);
            }
            Some(error) => match refuse_blamed(context, endpoint, &draft, &error, answers).await? {
                ToBlame::Readings => {}
                ToBlame::NoReading => {
                    let error = ChainError::Refused(error);
                    answers.defer(&draft.reading_ids(), &error.clone().into());
                    no_readings_fault.get_or_insert(error);
                }
            },
        }
    }
    match no_readings_fault {
        // Nothing can be minted now: the circuit breaker counts it.
        Some(error) if passed.is_empty() => Err(error),
        _ => Ok(passed),
    }
}

/// Runs the unsigned message: signed bytes must not leave this process before they are recorded.
async fn simulate(endpoint: &Endpoint, draft: &Draft) -> Result<Simulation, ChainError> {
    let signatures = usize::from(draft.message.header().num_required_signatures);
    let unsigned = VersionedTransaction {
        signatures: vec![Signature::default(); signatures],
        message: draft.message.clone(),
    };
    // A transaction that this service packed always encodes; no bytes at all are refused.
    let bytes = signed_bytes::encode(&unsigned).unwrap_or_default();
    let parameters = json!([
        STANDARD.encode(bytes),
        {
            "encoding": "base64",
            "sigVerify": false,
            "replaceRecentBlockhash": true,
            "commitment": endpoint.commitment(Finality::Confirmed).commitment,
        }
    ]);
    let answer: Result<Value, _> = endpoint
        .hot()
        .send(RpcRequest::SimulateTransaction, parameters)
        .await;
    let answer = answer.map_err(|error| ChainError::from_client(endpoint.name(), &error))?;
    let simulated = &answer["value"];
    // Without the member nothing says that it succeeded.
    let Some(error) = simulated.get("err") else {
        return Err(ChainError::Unusable {
            endpoint: endpoint.name().to_owned(),
            reason: UnusableAnswer::Call {
                method: "simulateTransaction",
                problem: CallProblem::of_value(simulated),
            },
        });
    };
    Ok(Simulation {
        error: TransactionFailure::read(error),
        used: Used {
            compute_units: simulated["unitsConsumed"].as_u64(),
            loaded_bytes: simulated["loadedAccountsDataSize"]
                .as_u64()
                .and_then(|bytes| u32::try_from(bytes).ok()),
        },
    })
}

async fn refuse_blamed(
    context: &MintContext,
    endpoint: &Endpoint,
    draft: &Draft,
    error: &TransactionFailure,
    answers: &mut Answers,
) -> Result<ToBlame, ChainError> {
    let accounts = &context.chain.accounts;
    let to_blame = match (draft.to_blame(error, &accounts.mint), error) {
        (blamed, TransactionFailure::Unnamed { .. }) if blamed.is_empty() => {
            isolate(context, draft, error, answers).await?;
            return Ok(ToBlame::Readings);
        }
        // Fee payer, blockhash, a busy account: its readings wait, and the other drafts continue.
        (blamed, TransactionFailure::Named(_)) if blamed.is_empty() => {
            return Ok(ToBlame::NoReading);
        }
        (blamed, _) => blamed,
    };
    // A mint that is no longer ours fails each payment in turn: no reading is to blame, whatever the error.
    accounts.check_mint(endpoint).await?;
    for reading in to_blame {
        refuse(context, reading, refusal(context, reading, error), answers).await;
    }
    Ok(ToBlame::Readings)
}

fn refusal(
    context: &MintContext,
    reading: &Candidate,
    error: &TransactionFailure,
) -> RefusalReason {
    RefusalReason::Simulation {
        payee: Payee::of(reading.wallet, &context.chain.accounts.mint),
        error: error.clone(),
    }
}

/// An error that does not show whose fault it is: each reading is packed alone next time, and one that was alone already is to
/// blame.
async fn isolate(
    context: &MintContext,
    draft: &Draft,
    error: &TransactionFailure,
    answers: &mut Answers,
) -> Result<(), ChainError> {
    if let [reading] = draft.readings.as_slice() {
        refuse(context, reading, refusal(context, reading, error), answers).await;
        return Ok(());
    }
    let ids = draft.reading_ids();
    let alone = ledger::pack_alone_next_time(&context.pool, &ids);
    if let Err(reason) = context.in_time(alone).await {
        answers.defer(&ids, &reason);
    }
    Ok(())
}
