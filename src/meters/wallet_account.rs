//! Checks which account is at a wallet's address on chain.

use std::time::Duration;

use solana_sdk::pubkey::Pubkey;
use tokio::sync::Semaphore;

use super::error::MeterError;
use crate::chain::{ChainError, Endpoints, Finality};
use crate::domain::Wallet;

/// How long one endpoint may take before the next is queried: a person waits for the answer.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(5);
/// Look-ups of one process that wait for an endpoint at the same time; the others wait here, so that many registrations
/// use at most half of the background budget; the rest is for a proof and a history scan.
const LOOK_UPS_AT_ONCE: usize = 2;
/// How long a registration waits until it may query at all.
const ADMISSION_LIMIT: Duration = Duration::from_secs(10);

static LOOK_UPS: Semaphore = Semaphore::const_new(LOOK_UPS_AT_ONCE);

/// Parses and checks a wallet by the rules of a registration. `mint` is this service's token, which is not a wallet.
pub async fn payable_wallet(
    endpoints: &Endpoints,
    mint: &Pubkey,
    address: &str,
) -> Result<Wallet, MeterError> {
    let wallet = Wallet::parse(address)?;
    wallet.check_not_mint(mint)?;
    check_wallet_account(endpoints, wallet).await?;
    Ok(wallet)
}

/// Refuses an address whose account belongs to another program than the system program: no one can sign for tokens there. An
/// account that does not exist yet is fine. Any endpoint's answer is enough; without one the result is
/// [`MeterError::ChainUnavailable`].
pub(super) async fn check_wallet_account(
    endpoints: &Endpoints,
    wallet: Wallet,
) -> Result<(), MeterError> {
    let admitted = tokio::time::timeout(ADMISSION_LIMIT, LOOK_UPS.acquire()).await;
    // The semaphore is never closed.
    let Ok(Ok(_look_up)) = admitted else {
        return Err(MeterError::ChainUnavailable { wallet });
    };
    for endpoint in endpoints.for_background() {
        let address = wallet.pubkey();
        let look_up = endpoint
            .background()
            .get_account_with_commitment(&address, endpoint.commitment(Finality::Confirmed));
        match tokio::time::timeout(LOOK_UP_LIMIT, look_up).await {
            Ok(Ok(answer)) => {
                return check_owner(wallet, answer.value.map(|account| account.owner));
            }
            Ok(Err(error)) => {
                let error = ChainError::from_client(endpoint.name(), &error);
                tracing::warn!(%error, "a wallet's account could not be queried");
            }
            // It may only wait for the end of a pause: that says nothing about the endpoint.
            Err(_) => tracing::warn!(
                endpoint = endpoint.name(),
                "a wallet's account could not be queried within the time that a registration has"
            ),
        }
    }
    Err(MeterError::ChainUnavailable { wallet })
}

fn check_owner(wallet: Wallet, account_owner: Option<Pubkey>) -> Result<(), MeterError> {
    match account_owner {
        Some(program) if program != solana_system_interface::program::ID => {
            Err(MeterError::WalletOfProgram {
                wallet,
                program: program.to_string(),
            })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use solana_sdk::signature::{Keypair, Signer as _};

    use super::*;

    #[test]
    fn an_account_of_a_program_is_not_a_wallet_and_a_missing_account_is_fine() {
        let wallet = Wallet::from_stored(Keypair::new().pubkey().to_bytes());
        assert!(check_owner(wallet, None).is_ok());
        assert!(check_owner(wallet, Some(solana_system_interface::program::ID)).is_ok());
        let error = check_owner(wallet, Some(spl_token_interface::ID)).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("belongs to the program TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
        );
    }

    #[tokio::test]
    async fn without_an_answering_endpoint_the_result_is_chain_unavailable() {
        // No process listens on port 1.
        let urls = [
            "http://127.0.0.1:1".to_owned(),
            "http://127.0.0.1:1/other".to_owned(),
        ];
        let endpoints = Endpoints::new(&urls, Duration::from_secs(1));
        let wallet = Wallet::from_stored(Keypair::new().pubkey().to_bytes());
        let answer = check_wallet_account(&endpoints, wallet).await;
        assert!(matches!(answer, Err(MeterError::ChainUnavailable { .. })));
    }
}
