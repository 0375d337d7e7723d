//! Which wallets of a batch can be paid, and which of them need an account.
//!
//! Invariant: a reading is refused for its token account only if the account is closed, frozen or given away as of a
//! *finalized* slot that is not before anything the ledger knows to be final. The wallet's last payment, which found the
//! account well, is in such an answer. One answer alone proves less: an endpoint that is behind has not seen the account
//! made yet, and what is merely confirmed may vanish in a fork. To pay, one answer is enough: simulation follows.

use uuid::Uuid;

use super::batch::Batch;
use super::candidate::Candidate;
use crate::chain::{AsOf, ChainError, Endpoint, inspect_token_accounts};
use crate::domain::Wallet;
use crate::ledger;

impl Batch<'_> {
    /// One question for all wallets. What cannot be paid by its answer is looked at once more before it is refused.
    pub(super) async fn look_at_accounts(
        &mut self,
        endpoint: &Endpoint,
        payable: Vec<Candidate>,
    ) -> Result<Vec<(Candidate, bool)>, ChainError> {
        let mint = self.workshop.tools.chain.accounts.mint;
        let wallets = wallets_of(&payable);
        let accounts = inspect_token_accounts(endpoint, &mint, &wallets, AsOf::Confirmed).await?;
        let mut good = Vec::with_capacity(payable.len());
        let mut doubtful = Vec::new();
        for candidate in payable {
            let state = accounts.state_of(candidate.wallet);
            match state.needs_account(candidate.account_was_there) {
                Ok(needs_account) => good.push((candidate, needs_account)),
                Err(_) => doubtful.push(candidate),
            }
        }
        if !doubtful.is_empty() {
            self.refuse_what_is_final(endpoint, accounts.slot, doubtful)
                .await?;
        }
        Ok(good)
    }

    /// Refuses these, each alone, if the same is true of what is final; otherwise they wait, and use no attempt.
    async fn refuse_what_is_final(
        &mut self,
        endpoint: &Endpoint,
        looked_at_slot: u64,
        doubtful: Vec<Candidate>,
    ) -> Result<(), ChainError> {
        let ids: Vec<Uuid> = doubtful.iter().map(|candidate| candidate.id).collect();
        let newest = ledger::newest_finalized_slot(&self.workshop.pool);
        let known_slot = match self.in_time(newest).await {
            Ok(slot) => slot,
            Err(reason) => {
                self.answer_not_now(&ids, &reason);
                return Ok(());
            }
        };
        // What it has seen confirmed is older than what is final: it is of no use to their neighbours either.
        if looked_at_slot < known_slot {
            return Err(ChainError::Behind {
                endpoint: endpoint.name().to_owned(),
                slots: Some(known_slot - looked_at_slot),
                reason: format!(
                    "it shows accounts as of slot {looked_at_slot}, and slot {known_slot} is final"
                ),
            });
        }
        let mint = self.workshop.tools.chain.accounts.mint;
        let wallets = wallets_of(&doubtful);
        let as_of = AsOf::FinalSince(known_slot);
        let accounts = match inspect_token_accounts(endpoint, &mint, &wallets, as_of).await {
            // The nodes of one endpoint call a slot final one after the other.
            Err(error @ ChainError::Behind { .. }) => {
                self.answer_not_now(&ids, &error.to_string());
                return Ok(());
            }
            accounts => accounts?,
        };
        for candidate in doubtful {
            let account = candidate.wallet.token_account(&mint);
            let state = accounts.state_of(candidate.wallet);
            let Err(reason) = state.needs_account(candidate.account_was_there) else {
                let reason = format!(
                    "the token account {account} of wallet {} has changed, or RPC endpoint {} is behind: waiting for finality",
                    candidate.wallet,
                    endpoint.name()
                );
                self.answer_not_now(&[candidate.id], &reason);
                continue;
            };
            let reason = format!(
                "the token account {account} of wallet {} {reason}; recreate the account, then retry",
                candidate.wallet,
            );
            self.refuse(&candidate, reason, true).await;
        }
        Ok(())
    }
}

/// Each once.
fn wallets_of(candidates: &[Candidate]) -> Vec<Wallet> {
    let mut wallets: Vec<Wallet> = candidates
        .iter()
        .map(|candidate| candidate.wallet)
        .collect();
    wallets.sort_unstable();
    wallets.dedup();
    wallets
}
