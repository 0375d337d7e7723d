//! The wallets' token accounts, as one question for a whole batch.

use std::collections::HashMap;

use solana_commitment_config::CommitmentConfig;
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

/// Looks at the associated token accounts of these wallets, 100 a call.
pub async fn inspect_token_accounts(
    endpoint: &Endpoint,
    mint: &Pubkey,
    wallets: &[Wallet],
) -> Result<HashMap<Wallet, TokenAccountState>, ChainError> {
    let mut states = HashMap::with_capacity(wallets.len());
    for chunk in wallets.chunks(ACCOUNTS_PER_CALL) {
        let addresses: Vec<Pubkey> = chunk
            .iter()
            .map(|wallet| wallet.token_account(mint))
            .collect();
        let accounts = endpoint
            .rpc()
            .get_multiple_accounts_with_commitment(&addresses, CommitmentConfig::confirmed())
            .await
            .map_err(|error| ChainError::from_client(endpoint.name(), &error))?
            .value;
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
            states.insert(*wallet, state);
        }
    }
    Ok(states)
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
