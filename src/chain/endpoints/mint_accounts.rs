//! The mint that readings are paid with, and the check that this service can still mint it.

use solana_sdk::account::Account;
use solana_sdk::hash::Hash;
use solana_sdk::program_option::COption;
use solana_sdk::program_pack::Pack;
use solana_sdk::pubkey::Pubkey;
use spl_token_interface::state::Mint;

use super::endpoint::Endpoint;
use crate::chain::commitment::Finality;
use crate::chain::error::ChainError;
use crate::chain::error_reason::MintProblem;

/// The requirements of minting besides a fee payer: the mint, and the chain that it is on.
#[derive(Clone, Copy, Debug)]
pub struct MintAccounts {
    /// Identifies the cluster.
    pub genesis_hash: Hash,
    pub mint: Pubkey,
    pub authority: Pubkey,
    pub decimals: u8,
}

impl MintAccounts {
    /// Whether the mint can be minted by our authority, as this endpoint shows it now.
    pub async fn check_mint(&self, endpoint: &Endpoint) -> Result<(), ChainError> {
        let account = endpoint
            .hot()
            .get_account_with_commitment(&self.mint, endpoint.commitment(Finality::Confirmed))
            .await;
        self.check(endpoint.answer(account)?.value.as_ref())
    }

    /// Whether this is the account of a mint that our authority can mint.
    pub(super) fn check(&self, account: Option<&Account>) -> Result<(), ChainError> {
        let unknown = |problem| ChainError::MintUnknown {
            mint: self.mint,
            problem,
        };
        let account = account.ok_or_else(|| unknown(MintProblem::Missing))?;
        let state = Some(account)
            .filter(|account| account.owner == spl_token_interface::ID)
            .and_then(|account| Mint::unpack(&account.data).ok())
            .ok_or_else(|| unknown(MintProblem::NotAMint))?;
        if state.decimals != self.decimals {
            return Err(unknown(MintProblem::Decimals {
                found: state.decimals,
                configured: self.decimals,
            }));
        }
        if state.mint_authority != COption::Some(self.authority) {
            return Err(unknown(MintProblem::Authority {
                authority: self.authority,
            }));
        }
        Ok(())
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
    fn only_a_mint_of_our_authority_passes() {
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
        assert!(accounts.check(Some(&mint_account(ours))).is_ok());
        let problem = |account: Option<&Account>| accounts.check(account).unwrap_err();
        assert!(problem(None).to_string().contains("does not exist"));
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
            let text = problem(Some(&mint_account(state))).to_string();
            assert!(text.contains(reason), "{text}");
        }
        let stranger = Account {
            owner: Pubkey::new_unique(),
            ..mint_account(ours)
        };
        assert!(
            problem(Some(&stranger))
                .to_string()
                .contains("is not a mint")
        );
    }
}
