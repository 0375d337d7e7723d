//! Step 2 of the pipeline: which wallets can be paid, and which of them need a token account.
//!
//! Invariant: a reading is refused for its token account only if the account is closed, frozen or given away as of a
//! *finalized* slot that is not before anything the ledger knows to be final. The wallet's last payment, which found the
//! account usable, is in such an answer. One answer alone proves less: an endpoint that is behind has not seen the account
//! created yet, and what is merely confirmed may vanish in a fork. To pay, one answer is enough, because simulation follows.

use uuid::Uuid;

use super::answers::Answers;
use super::candidate::{Candidate, Payable};
use super::context::MintContext;
use super::defer_reason::DeferReason;
use super::refuse::refuse;
use super::token_accounts;
use super::unsettled_accounts;
use crate::chain::{AsOf, ChainError, Endpoint, Lag, RpcClass};
use crate::domain::Wallet;
use crate::ledger::{self, RefusalReason};

/// Returns the readings whose wallets can be paid. Those whose token account is unusable in this answer are checked against
/// finalized state before they are refused.
pub(super) async fn resolve_accounts(
    context: &MintContext,
    endpoint: &Endpoint,
    candidates: Vec<Candidate>,
    answers: &mut Answers,
) -> Result<Vec<Payable>, ChainError> {
    let wallets = candidates.iter().map(|candidate| candidate.wallet);
    let accounts = token_accounts::inspect(
        &context.chain,
        endpoint,
        RpcClass::Hot,
        wallets,
        AsOf::Confirmed,
    )
    .await?;
    let mut payable = Vec::with_capacity(candidates.len());
    let mut doubtful = Vec::new();
    for candidate in candidates {
        let state = accounts.state_of(candidate.wallet);
        match state.needs_account(candidate.account_was_there) {
            Ok(needs_account) => payable.push(Payable {
                candidate,
                needs_account,
            }),
            Err(_) => doubtful.push(candidate),
        }
    }
    if !doubtful.is_empty() {
        check_finalized(context, endpoint, accounts.slot, doubtful, answers).await?;
    }
    Ok(defer_unsettled(context, payable, answers).await)
}

/// Rent is paid once: an account that is missing while an earlier payment to its wallet is not final was closed by its owner, or
/// is being created. Such a reading waits until the account is shown or the payment is final. The ledger is queried after the
/// chain, so that no payment becomes final in between unnoticed.
async fn defer_unsettled(
    context: &MintContext,
    payable: Vec<Payable>,
    answers: &mut Answers,
) -> Vec<Payable> {
    let mut new: Vec<Wallet> = payable
        .iter()
        .filter(|payable| payable.needs_account)
        .map(|payable| payable.candidate.wallet)
        .collect();
    if new.is_empty() {
        return payable;
    }
    new.sort_unstable();
    new.dedup();
    let paid = unsettled_accounts::paid_before(&context.pool, &new);
    let paid = context.in_time(paid).await;
    let (creating, settled): (Vec<Payable>, Vec<Payable>) = payable
        .into_iter()
        .partition(|payable| payable.needs_account);
    let mut kept = settled;
    for payable in creating {
        let wallet = payable.candidate.wallet;
        let reason = match &paid {
            Ok(paid) if !paid.contains(&wallet) => {
                kept.push(payable);
                continue;
            }
            Ok(_) => DeferReason::AccountUnsettled {
                account: wallet.token_account(&context.chain.accounts.mint),
                wallet,
            },
            Err(reason) => reason.clone(),
        };
        answers.defer(&[payable.candidate.id], &reason);
    }
    kept
}

/// Refuses each reading whose token account is unusable at finality too. The others wait and use no attempt.
async fn check_finalized(
    context: &MintContext,
    endpoint: &Endpoint,
    confirmed_slot: u64,
    doubtful: Vec<Candidate>,
    answers: &mut Answers,
) -> Result<(), ChainError> {
    let ids: Vec<Uuid> = doubtful.iter().map(|candidate| candidate.id).collect();
    let newest = ledger::newest_finalized_slot(&context.pool);
    let known_slot = match context.in_time(newest).await {
        Ok(slot) => slot,
        Err(reason) => {
            answers.defer(&ids, &reason);
            return Ok(());
        }
    };
    // Its confirmed state is older than what is final, so its answer is of no use for the other readings either.
    if confirmed_slot < known_slot {
        return Err(ChainError::Behind {
            endpoint: endpoint.name().to_owned(),
            lag: Lag::OldAccounts {
                slot: confirmed_slot,
                finalized_slot: known_slot,
            },
        });
    }
    let wallets = doubtful.iter().map(|candidate| candidate.wallet);
    let as_of = AsOf::FinalSince(known_slot);
    let accounts = match token_accounts::inspect(
        &context.chain,
        endpoint,
        RpcClass::Hot,
        wallets,
        as_of,
    )
    .await
    {
        // The nodes behind one endpoint reach finality of a slot one after the other.
        Err(error @ ChainError::Behind { .. }) => {
            answers.defer(&ids, &error.into());
            return Ok(());
        }
        accounts => accounts?,
    };
    for candidate in doubtful {
        let wallet = candidate.wallet;
        let account = wallet.token_account(&context.chain.accounts.mint);
        let state = accounts.state_of(wallet);
        match state.needs_account(candidate.account_was_there) {
            Err(problem) => {
                let reason = RefusalReason::TokenAccount {
                    account,
                    wallet,
                    problem,
                };
                refuse(context, &candidate, reason, answers).await;
            }
            Ok(_) => {
                let reason = DeferReason::AccountNotFinal {
                    account,
                    wallet,
                    endpoint: endpoint.name().to_owned(),
                };
                answers.defer(&[candidate.id], &reason);
            }
        }
    }
    Ok(())
}
