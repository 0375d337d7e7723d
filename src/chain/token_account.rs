//! The state of the wallets' token accounts, read for a whole batch at once.

use std::collections::HashMap;

use solana_client::rpc_config::RpcAccountInfoConfig;
use solana_sdk::account::Account as ChainAccount;
use solana_sdk::program_pack::Pack;
use solana_sdk::pubkey::Pubkey;
use spl_token_interface::state::{Account, AccountState};
use thiserror::Error;

use super::commitment::Finality;
use super::endpoints::{Endpoint, ListMethod, ListQuery, RpcClass};
use super::error::ChainError;
use super::error_reason::{Lag, UnusableAnswer};
use crate::domain::Wallet;

/// Whether a wallet can be paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenAccountState {
    /// It does not exist: to be created, unless it existed before.
    #[default]
    Missing,
    /// Initialised, of our mint, owned by the wallet.
    Usable,
    /// The freeze authority froze it.
    Frozen,
    /// It exists but no longer belongs to the wallet, or is not a token account of our mint.
    GivenAway,
}

impl TokenAccountState {
    /// Whether paying the wallet creates its account; or why the account cannot be paid. `was_there`: it existed before.
    pub fn needs_account(self, was_there: bool) -> Result<bool, AccountProblem> {
        match self {
            TokenAccountState::Usable => Ok(false),
            TokenAccountState::Missing if !was_there => Ok(true),
            TokenAccountState::Missing => Err(AccountProblem::Closed),
            TokenAccountState::Frozen => Err(AccountProblem::Frozen),
            TokenAccountState::GivenAway => Err(AccountProblem::GivenAway),
        }
    }
}

/// The reason for which a token account cannot be paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AccountProblem {
    #[error("was closed by its owner")]
    Closed,
    #[error("is frozen")]
    Frozen,
    #[error("no longer belongs to the wallet")]
    GivenAway,
}

/// As of when accounts are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// Confirmed state, at whatever slot the endpoint has reached: good enough to pay by, since simulation follows.
    Confirmed,
    /// Final state, at this slot or after it: an endpoint that has not reached it is [`ChainError::Behind`].
    FinalSince(u64),
}

/// The wallets' token accounts, as one endpoint shows them.
#[derive(Clone, Debug)]
pub struct TokenAccounts {
    states: HashMap<Wallet, TokenAccountState>,
    /// The answer is as of this slot, or a later one.
    pub slot: u64,
}

impl TokenAccounts {
    pub fn state_of(&self, wallet: Wallet) -> TokenAccountState {
        self.states.get(&wallet).copied().unwrap_or_default()
    }
}

/// Reads the associated token accounts of these wallets, in as few calls as the endpoint allows, from the budget of this class.
pub async fn inspect_token_accounts(
    endpoint: &Endpoint,
    class: RpcClass,
    mint: &Pubkey,
    wallets: &[Wallet],
    as_of: AsOf,
) -> Result<TokenAccounts, ChainError> {
    let mut inspected = TokenAccounts {
        states: HashMap::with_capacity(wallets.len()),
        slot: u64::MAX,
    };
    let mut query = ListQuery::new(endpoint, ListMethod::MultipleAccounts, wallets);
    while let Some(part) = query.next_part() {
        let addresses: Vec<Pubkey> = part
            .iter()
            .map(|wallet| wallet.token_account(mint))
            .collect();
        let (accounts, slot) = match accounts_at(endpoint, class, &addresses, as_of).await {
            Ok(answer) => answer,
            Err(error) => {
                query.refused(error)?;
                continue;
            }
        };
        query.answered();
        inspected.slot = inspected.slot.min(slot);
        for (wallet, account) in part.iter().zip(accounts) {
            let state = match account {
                None => TokenAccountState::Missing,
                // Lamports alone do not make a token account: anyone can send some to the address.
                Some(account) if account.owner == solana_system_interface::program::ID => {
                    TokenAccountState::Missing
                }
                Some(account) if account.owner != spl_token_interface::ID => {
                    TokenAccountState::GivenAway
                }
                Some(account) => account_state(&account.data, mint, *wallet),
            };
            inspected.states.insert(*wallet, state);
        }
    }
    Ok(inspected)
}

/// The accounts in the requested order, and the slot as of which they are shown.
async fn accounts_at(
    endpoint: &Endpoint,
    class: RpcClass,
    addresses: &[Pubkey],
    as_of: AsOf,
) -> Result<(Vec<Option<ChainAccount>>, u64), ChainError> {
    let (finality, since) = match as_of {
        AsOf::Confirmed => (Finality::Confirmed, None),
        AsOf::FinalSince(slot) => (Finality::Final, Some(slot)),
    };
    let config = RpcAccountInfoConfig {
        // Base64, a node's default for this method: binary, as decoding requires.
        encoding: None,
        commitment: Some(endpoint.commitment(finality)),
        data_slice: None,
        min_context_slot: since,
    };
    let answer = endpoint
        .client(class)
        .get_multiple_ui_accounts_with_config(addresses, config);
    let answer = endpoint.answer(answer.await)?;
    let slot = answer.context.slot;
    if answer.value.len() != addresses.len() {
        return Err(endpoint.unusable(UnusableAnswer::WrongCount {
            items: "accounts",
            requested: addresses.len(),
            answered: answer.value.len(),
        }));
    }
    // Not every provider respects `minContextSlot`.
    if let Some(since) = since.filter(|since| slot < *since) {
        return Err(ChainError::Behind {
            endpoint: endpoint.name().to_owned(),
            lag: Lag::OldAccounts {
                slot,
                finalized_slot: since,
            },
        });
    }
    let mut accounts = Vec::with_capacity(answer.value.len());
    for account in answer.value {
        let account = account
            .map(|account| {
                account
                    .to_account()
                    .ok_or_else(|| endpoint.unusable(UnusableAnswer::AccountData))
            })
            .transpose()?;
        accounts.push(account);
    }
    Ok((accounts, slot))
}

fn account_state(data: &[u8], mint: &Pubkey, wallet: Wallet) -> TokenAccountState {
    match Account::unpack(data) {
        Ok(account) if account.mint != *mint || account.owner != wallet.pubkey() => {
            TokenAccountState::GivenAway
        }
        Ok(account) if account.state == AccountState::Frozen => TokenAccountState::Frozen,
        Ok(_) => TokenAccountState::Usable,
        Err(_) => TokenAccountState::GivenAway,
    }
}
