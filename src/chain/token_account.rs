//! The wallets' token accounts, as one question for a whole batch.

use std::collections::HashMap;

use solana_client::rpc_config::RpcAccountInfoConfig;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::account::Account as ChainAccount;
use solana_sdk::program_pack::Pack;
use solana_sdk::pubkey::Pubkey;
use spl_token_interface::state::{Account, AccountState};

use super::{ChainError, Endpoint};
use crate::domain::Wallet;

/// Whether a wallet can be paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenAccountState {
    /// Not there: to be created, unless it was there before.
    #[default]
    Missing,
    /// Initialised, of our mint, owned by the wallet.
    Usable,
    /// The freeze authority froze it.
    Frozen,
    /// It exists but no longer belongs to the wallet, or is no token account of our mint.
    GivenAway,
}

impl TokenAccountState {
    /// Whether paying the wallet creates its account; or what is wrong with the account. `was_there`: it existed before.
    pub fn needs_account(self, was_there: bool) -> Result<bool, &'static str> {
        match self {
            TokenAccountState::Usable => Ok(false),
            TokenAccountState::Missing if !was_there => Ok(true),
            TokenAccountState::Missing => Err("was closed by its owner"),
            TokenAccountState::Frozen => Err("is frozen"),
            TokenAccountState::GivenAway => Err("no longer belongs to the wallet"),
        }
    }
}

/// What `getMultipleAccounts` takes at most.
const ACCOUNTS_PER_CALL: usize = 100;

/// As of when accounts are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// What is confirmed, at whatever slot the endpoint has reached: good enough to pay by, since simulation follows.
    Confirmed,
    /// What is final, at this slot or after it: an endpoint that has not got there is [`ChainError::Behind`].
    FinalSince(u64),
}

/// What one endpoint said of the wallets' token accounts.
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

/// Looks at the associated token accounts of these wallets, 100 a call.
pub async fn inspect_token_accounts(
    endpoint: &Endpoint,
    mint: &Pubkey,
    wallets: &[Wallet],
    as_of: AsOf,
) -> Result<TokenAccounts, ChainError> {
    let mut looked = TokenAccounts {
        states: HashMap::with_capacity(wallets.len()),
        slot: u64::MAX,
    };
    for chunk in wallets.chunks(ACCOUNTS_PER_CALL) {
        let addresses: Vec<Pubkey> = chunk
            .iter()
            .map(|wallet| wallet.token_account(mint))
            .collect();
        let (accounts, slot) = accounts_at(endpoint, &addresses, as_of).await?;
        looked.slot = looked.slot.min(slot);
        if accounts.len() != chunk.len() {
            return Err(ChainError::Unusable {
                endpoint: endpoint.name().to_owned(),
                reason: format!(
                    "{} accounts asked, {} answered",
                    chunk.len(),
                    accounts.len()
                ),
            });
        }
        for (wallet, account) in chunk.iter().zip(accounts) {
            let state = match account {
                None => TokenAccountState::Missing,
                // Lamports alone do not make a token account: anybody can send some to the address.
                Some(account) if account.owner == solana_system_interface::program::ID => {
                    TokenAccountState::Missing
                }
                Some(account) if account.owner != spl_token_interface::ID => {
                    TokenAccountState::GivenAway
                }
                Some(account) => judge(&account.data, mint, *wallet),
            };
            looked.states.insert(*wallet, state);
        }
    }
    Ok(looked)
}

/// The accounts in the order asked for, and the slot that they are of.
async fn accounts_at(
    endpoint: &Endpoint,
    addresses: &[Pubkey],
    as_of: AsOf,
) -> Result<(Vec<Option<ChainAccount>>, u64), ChainError> {
    let (commitment, since) = match as_of {
        AsOf::Confirmed => (CommitmentConfig::confirmed(), None),
        AsOf::FinalSince(slot) => (CommitmentConfig::finalized(), Some(slot)),
    };
    let config = RpcAccountInfoConfig {
        // Base64, a node's default for this question: binary, as it must be to be decoded.
        encoding: None,
        commitment: Some(commitment),
        data_slice: None,
        min_context_slot: since,
    };
    let answer = endpoint
        .rpc()
        .get_multiple_ui_accounts_with_config(addresses, config)
        .await
        .map_err(|error| ChainError::from_client(endpoint.name(), &error))?;
    let slot = answer.context.slot;
    // Not every provider heeds `minContextSlot`.
    if let Some(since) = since.filter(|since| slot < *since) {
        return Err(ChainError::Behind {
            endpoint: endpoint.name().to_owned(),
            slots: Some(since - slot),
            reason: format!("it shows accounts as of slot {slot}, and slot {since} is final"),
        });
    }
    let mut accounts = Vec::with_capacity(answer.value.len());
    for account in answer.value {
        let account = account
            .map(|account| {
                account.to_account().ok_or_else(|| ChainError::Unusable {
                    endpoint: endpoint.name().to_owned(),
                    reason: "an account's data cannot be decoded".to_owned(),
                })
            })
            .transpose()?;
        accounts.push(account);
    }
    Ok((accounts, slot))
}

fn judge(data: &[u8], mint: &Pubkey, wallet: Wallet) -> TokenAccountState {
    match Account::unpack(data) {
        Ok(account) if account.mint != *mint || account.owner != wallet.pubkey() => {
            TokenAccountState::GivenAway
        }
        Ok(account) if account.state == AccountState::Frozen => TokenAccountState::Frozen,
        Ok(_) => TokenAccountState::Usable,
        Err(_) => TokenAccountState::GivenAway,
    }
}
