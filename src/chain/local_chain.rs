//! Prepares a chain for development: creates the mint and funds the fee payer there, and on no other chain.

use std::time::Duration;

use sha2::{Digest, Sha256};
use solana_client::rpc_request::RpcRequest;
use solana_sdk::program_pack::Pack;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::{Keypair, Signer as _};
use solana_sdk::transaction::Transaction;
use spl_token_interface::state::Mint;

use super::commitment::Finality;
use super::endpoints::Endpoint;
use super::error::ChainError;
use super::error_reason::UnusableAnswer;
use super::signer::MintSigner;

/// Lamports that the fee payer gets on a local chain: rent for 40,000 token accounts.
const LOCAL_FUNDING_LAMPORTS: u64 = 100_000_000_000;
/// Below this the fee payer of a local chain is funded (again), lamports.
const LOCAL_FUNDING_FLOOR_LAMPORTS: u64 = 10_000_000_000;
/// Limit of one wait until the chain shows what was sent.
const APPEAR_LIMIT: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(100);

/// Whether this endpoint is a surfnet, by the version that it reports: that works through a proxy too.
pub async fn is_local_chain(endpoint: &Endpoint) -> Result<bool, ChainError> {
    let version = endpoint
        .hot()
        .send(RpcRequest::GetVersion, serde_json::Value::Null);
    let version: serde_json::Value = endpoint.answer(version.await)?;
    Ok(version.get("surfnet-version").is_some())
}

/// Funds the fee payer and creates the mint, each only if it is missing: the next start completes what a crash interrupted,
/// since the mint's address is derived from the authority's key.
pub async fn prepare_local_chain(
    endpoint: &Endpoint,
    signer: &MintSigner,
    decimals: u8,
) -> Result<Pubkey, ChainError> {
    fund(endpoint, &signer.fee_payer()).await?;
    let mint = local_mint_keypair(signer);
    let existing = endpoint
        .hot()
        .get_account_with_commitment(&mint.pubkey(), endpoint.commitment(Finality::Confirmed))
        .await
        .map_err(|error| ChainError::from_client(endpoint.name(), &error))?
        .value;
    if existing.is_none() {
        create_mint(endpoint, signer, &mint, decimals).await?;
        tracing::info!(mint = %mint.pubkey(), decimals, "created the token mint on the local chain");
    }
    Ok(mint.pubkey())
}

fn local_mint_keypair(signer: &MintSigner) -> Keypair {
    let mut hasher = Sha256::new();
    hasher.update(b"gridtokenx local mint");
    hasher.update(signer.authority_keypair().secret_bytes());
    Keypair::new_from_array(hasher.finalize().into())
}

async fn fund(endpoint: &Endpoint, fee_payer: &Pubkey) -> Result<(), ChainError> {
    let client_error = |error| ChainError::from_client(endpoint.name(), &error);
    let rpc = endpoint.hot();
    let balance = rpc.get_balance(fee_payer).await.map_err(client_error)?;
    if balance >= LOCAL_FUNDING_FLOOR_LAMPORTS {
        return Ok(());
    }
    rpc.request_airdrop(fee_payer, LOCAL_FUNDING_LAMPORTS)
        .await
        .map_err(client_error)?;
    wait_for_appearance(endpoint, "the funding of the fee payer", || async {
        Ok(rpc.get_balance(fee_payer).await? > balance)
    })
    .await
}

async fn create_mint(
    endpoint: &Endpoint,
    signer: &MintSigner,
    mint: &Keypair,
    decimals: u8,
) -> Result<(), ChainError> {
    let client_error = |error| ChainError::from_client(endpoint.name(), &error);
    let rpc = endpoint.hot();
    let rent = rpc
        .get_minimum_balance_for_rent_exemption(Mint::LEN)
        .await
        .map_err(client_error)?;
    let initialize = spl_token_interface::instruction::initialize_mint2(
        &spl_token_interface::ID,
        &mint.pubkey(),
        &signer.authority(),
        None,
        decimals,
    )
    .map_err(|error| endpoint.unusable(UnusableAnswer::MintInstruction(error.to_string())))?;
    let create = solana_system_interface::instruction::create_account(
        &signer.fee_payer(),
        &mint.pubkey(),
        rent,
        // 82 bytes.
        Mint::LEN as u64,
        &spl_token_interface::ID,
    );
    let blockhash = rpc.get_latest_blockhash().await.map_err(client_error)?;
    let transaction = Transaction::new_signed_with_payer(
        &[create, initialize],
        Some(&signer.fee_payer()),
        &[signer.fee_payer_keypair(), mint],
        blockhash,
    );
    rpc.send_transaction(&transaction)
        .await
        .map_err(client_error)?;
    wait_for_appearance(endpoint, "the token mint", || async {
        let account = rpc
            .get_account_with_commitment(&mint.pubkey(), endpoint.commitment(Finality::Confirmed))
            .await?;
        Ok(account.value.is_some())
    })
    .await
}

/// Polls until the chain shows what was sent. Not an `AsyncFn`: its future is not `Send` for every lifetime, and the caller must
/// be able to spawn a start.
async fn wait_for_appearance<Shown>(
    endpoint: &Endpoint,
    what: &'static str,
    is_shown: impl Fn() -> Shown,
) -> Result<(), ChainError>
where
    Shown: Future<Output = Result<bool, solana_client::client_error::ClientError>>,
{
    let shown = tokio::time::timeout(APPEAR_LIMIT, async {
        while !endpoint.answer(is_shown().await)? {
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(())
    });
    shown.await.unwrap_or_else(|_| {
        Err(endpoint.unusable(UnusableAnswer::NotAppeared {
            what,
            limit: APPEAR_LIMIT,
        }))
    })
}
