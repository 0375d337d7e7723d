//! A chain for development: mint and funding are made there once, and nowhere else.

use std::time::Duration;

use sha2::{Digest, Sha256};
use solana_client::rpc_request::RpcRequest;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::program_pack::Pack;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::{Keypair, Signer as _};
use solana_sdk::transaction::Transaction;
use spl_token_interface::state::Mint;

use super::{ChainError, Endpoint, MintSigner};

/// What the fee payer gets on a local chain, lamports: rent for 40,000 token accounts.
const LOCAL_FUNDING_LAMPORTS: u64 = 100_000_000_000;
/// Below this the fee payer of a local chain is funded (again), lamports.
const LOCAL_FUNDING_FLOOR_LAMPORTS: u64 = 10_000_000_000;
/// Limit of one wait for the chain to show what was sent.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// Whether this endpoint is a surfnet, also through a proxy: its version says so.
pub async fn is_local_chain(endpoint: &Endpoint) -> Result<bool, ChainError> {
    let version: serde_json::Value = endpoint
        .rpc()
        .send(RpcRequest::GetVersion, serde_json::Value::Null)
        .await
        .map_err(|error| ChainError::from_client(endpoint.name(), &error))?;
    Ok(version.get("surfnet-version").is_some())
}

/// Funds the fee payer and creates the mint, each only if it is not there: a crash between the two is healed by the next
/// start, since the mint's address follows from the authority's key.
pub async fn prepare_local_chain(
    endpoint: &Endpoint,
    signer: &MintSigner,
    decimals: u8,
) -> Result<Pubkey, ChainError> {
    fund(endpoint, &signer.fee_payer()).await?;
    let mint = local_mint_keypair(signer);
    let existing = endpoint
        .rpc()
        .get_account_with_commitment(&mint.pubkey(), CommitmentConfig::confirmed())
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
    let rpc = endpoint.rpc();
    let balance = rpc.get_balance(fee_payer).await.map_err(client_error)?;
    if balance >= LOCAL_FUNDING_FLOOR_LAMPORTS {
        return Ok(());
    }
    rpc.request_airdrop(fee_payer, LOCAL_FUNDING_LAMPORTS)
        .await
        .map_err(client_error)?;
    settle(endpoint, "the funding of the fee payer", || async {
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
    let rpc = endpoint.rpc();
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
    .map_err(|error| ChainError::Unusable {
        endpoint: endpoint.name().to_owned(),
        reason: format!("the mint cannot be described: {error}"),
    })?;
    let create = solana_system_interface::instruction::create_account(
        &signer.fee_payer(),
        &mint.pubkey(),
        rent,
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
    settle(endpoint, "the token mint", || async {
        let account = rpc
            .get_account_with_commitment(&mint.pubkey(), CommitmentConfig::confirmed())
            .await?;
        Ok(account.value.is_some())
    })
    .await
}

/// An `AsyncFn` would keep a start from being repeated in a task: its future is not `Send` for every lifetime.
async fn settle<Looked>(
    endpoint: &Endpoint,
    what: &str,
    is_there: impl Fn() -> Looked,
) -> Result<(), ChainError>
where
    Looked: Future<Output = Result<bool, solana_client::client_error::ClientError>>,
{
    const LOOK_EVERY: Duration = Duration::from_millis(100);
    let waited = tokio::time::timeout(SETTLE_LIMIT, async {
        loop {
            if is_there()
                .await
                .map_err(|error| ChainError::from_client(endpoint.name(), &error))?
            {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    waited.await.unwrap_or_else(|_| {
        Err(ChainError::Unusable {
            endpoint: endpoint.name().to_owned(),
            reason: format!("{what} did not appear within {SETTLE_LIMIT:?}"),
        })
    })
}
