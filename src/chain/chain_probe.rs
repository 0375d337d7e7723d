//! One look at all endpoints, and through the best of them at the accounts that minting needs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::account::Account;
use solana_sdk::hash::Hash;
use solana_sdk::program_option::COption;
use solana_sdk::program_pack::Pack;
use solana_sdk::pubkey::Pubkey;
use spl_token_interface::state::Mint;

use super::cause::{Cause, LaggingEndpoint};
use super::endpoint_health::ProbeResult;
use super::{ChainError, Endpoint, Endpoints};
use crate::telemetry::names;

/// An endpoint that has not answered by then counts as away: others are waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What minting stands on, beside a fee payer: the mint, and the chain that it is on.
#[derive(Clone, Copy, Debug)]
pub struct MintAccounts {
    /// Tells one cluster from another.
    pub genesis_hash: Hash,
    pub mint: Pubkey,
    pub authority: Pubkey,
    pub decimals: u8,
}

/// The accounts, as one endpoint shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainSnapshot {
    /// They hold all that landed up to this slot, at `confirmed`.
    pub slot: u64,
    /// The fee payer that was asked for.
    pub fee_payer: Option<FeePayer>,
}

/// What a fee payer has, lamports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeePayer {
    pub balance: u64,
    /// What must stay of it: rent of an account without data.
    pub minimum: u64,
}

/// Looks, and remembers what does not change.
pub struct ChainProbe {
    endpoints: Endpoints,
    accounts: MintAccounts,
    /// Zero: not asked yet.
    minimum_lamports: AtomicU64,
}

impl ChainProbe {
    pub fn new(endpoints: Endpoints, accounts: MintAccounts) -> ChainProbe {
        ChainProbe {
            endpoints,
            accounts,
            minimum_lamports: AtomicU64::new(0),
        }
    }

    /// Asks all endpoints for their heights, chooses the one that is asked first from now on, and reads the accounts there:
    /// the mint, and the fee payer if it is known.
    pub async fn run(&self, fee_payer: Option<Pubkey>) -> Result<ChainSnapshot, Cause> {
        self.look_at_endpoints().await;
        if !self.endpoints.configured().iter().any(Endpoint::is_usable) {
            return Err(self.none_usable());
        }
        let mut failure = None;
        for endpoint in self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.is_usable())
        {
            match self.read_accounts(endpoint, fee_payer).await {
                Ok(snapshot) => return Ok(snapshot),
                Err(error @ ChainError::MintUnknown { .. }) => {
                    return Err(Cause::MintUnknown(error));
                }
                Err(error) => {
                    failure = Some(error);
                    self.endpoints.turn_away_from(endpoint);
                }
            }
        }
        Err(failure.map_or_else(|| self.none_usable(), Cause::Unreachable))
    }

    /// Whether another look will tell whether some endpoint is behind.
    pub fn is_in_doubt(&self) -> bool {
        let mut configured = self.endpoints.configured().iter();
        configured.any(|endpoint| endpoint.health().is_in_doubt())
    }

    async fn look_at_endpoints(&self) {
        let configured = self.endpoints.configured();
        let looks = join_all(
            configured
                .iter()
                .map(|endpoint| look_at(endpoint, &self.accounts.genesis_hash)),
        )
        .await;
        self.endpoints.take_in(looks, Instant::now());
        for view in self.endpoints.views() {
            let name = || view.name.clone();
            let healthy = f64::from(u8::from(view.healthy));
            metrics::gauge!(names::RPC_ENDPOINT_HEALTHY, "endpoint" => name()).set(healthy);
            if let Some(height) = view.height {
                metrics::gauge!(names::RPC_ENDPOINT_HEIGHT, "endpoint" => name())
                    .set(height as f64);
            }
            if let Some(lag) = view.lag_blocks {
                metrics::gauge!(names::RPC_ENDPOINT_LAG_BLOCKS, "endpoint" => name())
                    .set(lag as f64);
            }
        }
    }

    /// Why no endpoint is usable.
    fn none_usable(&self) -> Cause {
        let views = self.endpoints.views();
        if views.iter().all(|view| view.retry_after.is_some()) {
            return Cause::RateLimited;
        }
        let lagging: Vec<LaggingEndpoint> = views
            .into_iter()
            .filter(|view| view.failure.is_none())
            .filter_map(|view| {
                let lag_blocks = view.lag_blocks?;
                Some(LaggingEndpoint {
                    name: view.name,
                    lag_blocks,
                })
            })
            .collect();
        if lagging.is_empty() {
            Cause::Unreachable(self.endpoints.nobody_answers())
        } else {
            Cause::Lagging(lagging)
        }
    }

    async fn read_accounts(
        &self,
        endpoint: &Endpoint,
        fee_payer: Option<Pubkey>,
    ) -> Result<ChainSnapshot, ChainError> {
        let minimum = self.minimum(endpoint).await?;
        let addresses: Vec<Pubkey> = fee_payer.into_iter().chain([self.accounts.mint]).collect();
        let answer = within(
            endpoint,
            endpoint
                .rpc()
                .get_multiple_accounts_with_commitment(&addresses, CommitmentConfig::confirmed()),
        )
        .await?;
        let (payers, mint) = match answer.value.as_slice() {
            [payers @ .., mint] if answer.value.len() == addresses.len() => (payers, mint),
            answered => {
                return Err(ChainError::Unusable {
                    endpoint: endpoint.name().to_owned(),
                    reason: format!(
                        "{} accounts asked, {} answered",
                        addresses.len(),
                        answered.len()
                    ),
                });
            }
        };
        self.accounts.check_mint(mint.as_ref())?;
        Ok(ChainSnapshot {
            slot: answer.context.slot,
            fee_payer: payers.first().map(|account| FeePayer {
                // An account without lamports does not exist.
                balance: account.as_ref().map_or(0, |account| account.lamports),
                minimum,
            }),
        })
    }

    async fn minimum(&self, endpoint: &Endpoint) -> Result<u64, ChainError> {
        let known = self.minimum_lamports.load(Ordering::Relaxed);
        if known > 0 {
            return Ok(known);
        }
        let rent = endpoint.rpc().get_minimum_balance_for_rent_exemption(0);
        let minimum = within(endpoint, rent).await?;
        self.minimum_lamports.store(minimum, Ordering::Relaxed);
        Ok(minimum)
    }
}

impl MintAccounts {
    /// Whether the mint can be minted by our authority, as this endpoint shows it now.
    pub async fn look_at_mint(&self, endpoint: &Endpoint) -> Result<(), ChainError> {
        let account = endpoint
            .rpc()
            .get_account_with_commitment(&self.mint, CommitmentConfig::confirmed())
            .await
            .map_err(|error| ChainError::from_client(endpoint.name(), &error))?
            .value;
        self.check_mint(account.as_ref())
    }

    fn check_mint(&self, account: Option<&Account>) -> Result<(), ChainError> {
        let unknown = |reason: String| ChainError::MintUnknown {
            mint: self.mint.to_string(),
            reason,
        };
        let account = account.ok_or_else(|| unknown("does not exist on this chain".to_owned()))?;
        let state = Some(account)
            .filter(|account| account.owner == spl_token_interface::ID)
            .and_then(|account| Mint::unpack(&account.data).ok())
            .ok_or_else(|| unknown("is no mint of the token program".to_owned()))?;
        if state.decimals != self.decimals {
            return Err(unknown(format!(
                "has {} decimals, TOKENIZATION_DECIMALS says {}",
                state.decimals, self.decimals
            )));
        }
        if state.mint_authority != COption::Some(self.authority) {
            return Err(unknown(format!(
                "can no longer be minted by our authority {}",
                self.authority
            )));
        }
        Ok(())
    }
}

async fn look_at(endpoint: &Endpoint, genesis_hash: &Hash) -> ProbeResult {
    if let Some(wait) = endpoint.wait_left() {
        return ProbeResult::RateLimited(wait);
    }
    let height = endpoint
        .rpc()
        .get_block_height_with_commitment(CommitmentConfig::confirmed());
    // The node compares itself with the cluster: the only way to see that a single endpoint lags from the start.
    let health = endpoint.rpc().get_health();
    let (chain, height, health) = tokio::join!(
        on_our_chain(endpoint, genesis_hash),
        within(endpoint, height),
        within(endpoint, health)
    );
    let says_behind = match health {
        Err(ChainError::Behind { slots, .. }) => Some(slots.unwrap_or_default()),
        // Not every provider has the method.
        Ok(()) | Err(_) => None,
    };
    // Heights of another chain say nothing of the others' lag.
    match chain.and(height) {
        Ok(height) => ProbeResult::Height {
            height,
            says_behind,
        },
        Err(ChainError::TooManyCalls { wait, .. }) => ProbeResult::RateLimited(wait),
        Err(error) => ProbeResult::NoAnswer(error.to_string()),
    }
}

async fn on_our_chain(endpoint: &Endpoint, genesis_hash: &Hash) -> Result<(), ChainError> {
    tokio::time::timeout(ANSWER_LIMIT, endpoint.assure_chain(genesis_hash))
        .await
        .unwrap_or_else(|_| Err(no_answer(endpoint)))
}

async fn within<T>(
    endpoint: &Endpoint,
    answer: impl Future<Output = solana_client::client_error::Result<T>>,
) -> Result<T, ChainError> {
    match tokio::time::timeout(ANSWER_LIMIT, answer).await {
        Ok(answer) => answer.map_err(|error| ChainError::from_client(endpoint.name(), &error)),
        Err(_) => Err(no_answer(endpoint)),
    }
}

fn no_answer(endpoint: &Endpoint) -> ChainError {
    ChainError::Unreachable {
        endpoint: endpoint.name().to_owned(),
        reason: format!("no answer within {} s", ANSWER_LIMIT.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mint_account(state: Mint) -> Account {
        let mut data = vec![0; Mint::LEN];
        Mint::pack(state, &mut data).unwrap();
        Account {
            lamports: 1,
            data,
            owner: spl_token_interface::ID,
            ..Account::default()
        }
    }

    #[test]
    fn only_a_mint_of_ours_will_do() {
        let authority = Pubkey::new_unique();
        let accounts = MintAccounts {
            genesis_hash: Hash::default(),
            mint: Pubkey::new_unique(),
            authority,
            decimals: 9,
        };
        let ours = Mint {
            mint_authority: COption::Some(authority),
            decimals: 9,
            is_initialized: true,
            ..Mint::default()
        };
        assert!(accounts.check_mint(Some(&mint_account(ours))).is_ok());
        let refusal = |account: Option<&Account>| accounts.check_mint(account).unwrap_err();
        assert!(refusal(None).to_string().contains("does not exist"));
        for (state, reason) in [
            (
                Mint {
                    decimals: 6,
                    ..ours
                },
                "has 6 decimals",
            ),
            (
                Mint {
                    mint_authority: COption::None,
                    ..ours
                },
                "can no longer be minted",
            ),
            (
                Mint {
                    mint_authority: COption::Some(Pubkey::new_unique()),
                    ..ours
                },
                "can no longer be minted",
            ),
        ] {
            let told = refusal(Some(&mint_account(state))).to_string();
            assert!(told.contains(reason), "{told}");
        }
        let stranger = Account {
            owner: Pubkey::new_unique(),
            ..mint_account(ours)
        };
        assert!(refusal(Some(&stranger)).to_string().contains("is no mint"));
    }
}
