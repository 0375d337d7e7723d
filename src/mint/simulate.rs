//! Step 5 of the pipeline: simulates each draft on the endpoint, before anything is signed.
//!
//! A draft that passes requests what the simulation used, with a margin. Of one that fails, the readings to
//! blame use up an attempt, and their neighbours are packed again at once.

use futures_util::future::try_join_all;
use solana_client::rpc_config::RpcSimulateTransactionConfig;
use solana_sdk::signature::Signature;
use solana_sdk::transaction::{TransactionError, VersionedTransaction};

use super::answers::Answers;
use super::context::MintContext;
use super::draft::{Draft, Used};
use super::refuse::refuse;
use crate::chain::{ChainError, Endpoint, Finality};
use crate::ledger::RefusalReason;

/// What a simulation reports.
struct Simulation {
    error: Option<TransactionError>,
    used: Used,
}

/// Returns the drafts that passed.
pub(super) async fn simulate_all(
    context: &MintContext,
    endpoint: &Endpoint,
    drafts: Vec<Draft>,
    answers: &mut Answers,
) -> Result<Vec<Draft>, ChainError> {
    let results = try_join_all(drafts.iter().map(|draft| simulate(endpoint, draft))).await?;
    let mut passed = Vec::with_capacity(drafts.len());
    for (mut draft, simulation) in drafts.into_iter().zip(results) {
        match simulation.error {
            None => {
                draft.limit_to(simulation.used);
                passed.push(draft);
            }
            Some(error) => refuse_blamed(context, endpoint, &draft, &error, answers).await?,
        }
    }
    Ok(passed)
}

/// Runs the unsigned message: signed bytes must not leave this process before they are recorded.
async fn simulate(endpoint: &Endpoint, draft: &Draft) -> Result<Simulation, ChainError> {
    let config = RpcSimulateTransactionConfig {
        sig_verify: false,
        replace_recent_blockhash: true,
        commitment: Some(endpoint.commitment(Finality::Confirmed)),
        ..RpcSimulateTransactionConfig::default()
    };
    let signatures = usize::from(draft.message.header().num_required_signatures);
    let unsigned = VersionedTransaction {
        signatures: vec![Signature::default(); signatures],
        message: draft.message.clone(),
    };
    let result = endpoint
        .hot()
        .simulate_transaction_with_config(&unsigned, config)
        .await
        .map_err(|error| ChainError::from_client(endpoint.name(), &error))?
        .value;
    Ok(Simulation {
        error: result.err.map(TransactionError::from),
        used: Used {
            compute_units: result.units_consumed,
            loaded_bytes: result.loaded_accounts_data_size,
        },
    })
}

async fn refuse_blamed(
    context: &MintContext,
    endpoint: &Endpoint,
    draft: &Draft,
    error: &TransactionError,
    answers: &mut Answers,
) -> Result<(), ChainError> {
    let accounts = &context.chain.accounts;
    let to_blame = draft.to_blame(error, &accounts.mint);
    if to_blame.is_empty() {
        // Fee payer, blockhash, a busy account: no reading is at fault.
        return Err(ChainError::Refused(error.clone()));
    }
    // A mint that is no longer ours fails each payment in turn: no reading is to blame, whatever the error.
    accounts.check_mint(endpoint).await?;
    for reading in to_blame {
        let reason = RefusalReason::Simulation(error.clone());
        refuse(context, reading, reason, answers).await;
    }
    Ok(())
}
