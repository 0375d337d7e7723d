//! Endpoints, keys and mint.

use solana_sdk::hash::Hash;
use solana_sdk::program_option::COption;
use solana_sdk::program_pack::Pack;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::{Keypair, Signer};
use spl_token_interface::state::Mint;
use sqlx::PgPool;

use super::start_error::StartError;
use crate::chain::{
    ChainError, Endpoint, Endpoints, Finality, MintAccounts, MintSigner, is_local_chain,
    prepare_local_chain, read_keypair, read_or_create_keypair,
};
use crate::config::{Config, ProcessRole};
use crate::domain::Wallet;
use crate::ledger::{self, BindingError, ChainBinding};

/// The chain side of the service.
pub(super) struct Solana {
    pub endpoints: Endpoints,
    /// `None` in a process that signs nothing and was given no key.
    pub signer: Option<MintSigner>,
    /// The mint's authority, even where this process does not have its key.
    pub authority: Pubkey,
    pub mint: Pubkey,
    pub genesis_hash: Hash,
    /// When the ledger was bound; `None` in a process that signs nothing and started while no endpoint answered.
    pub scan_request: Option<ledger::ScanRequest>,
    is_local: bool,
}

impl Solana {
    pub fn accounts(&self, decimals: u8) -> MintAccounts {
        MintAccounts {
            genesis_hash: self.genesis_hash,
            mint: self.mint,
            authority: self.authority,
            decimals,
        }
    }

    /// Binds the ledger to this chain and mint, or checks that it is bound to them. Returns the moment.
    pub async fn bind_ledger(
        &self,
        config: &Config,
        pool: &PgPool,
    ) -> Result<ledger::ScanRequest, BindingError> {
        let binding = ChainBinding {
            genesis_hash: self.genesis_hash.to_string(),
            mint: self.mint,
            authority: self.authority,
            decimals: config.tokenization.decimals,
        };
        ledger::bind(pool, &self.endpoints, &binding).await
    }

    /// The wallet that the canary's readings pay.
    pub fn canary_wallet(&self, config: &Config) -> Result<Wallet, StartError> {
        let address = match config.service.canary_wallet {
            Some(address) => address,
            None if self.is_local => local_keypair(config, LOCAL_CANARY_FILE)?.pubkey(),
            None => return Err(StartError::NoCanaryWallet),
        };
        Wallet::parse(&address.to_string()).map_err(|error| StartError::CanaryWallet {
            address: address.to_string(),
            error,
        })
    }
}

/// File of the canary's wallet that a local chain gets, in the data directory.
const LOCAL_CANARY_FILE: &str = "canary-wallet.json";
/// File of the mint authority that a local chain gets, in the data directory.
const LOCAL_AUTHORITY_FILE: &str = "mint-authority.json";

pub(super) async fn open(config: &Config) -> Result<Solana, StartError> {
    let urls = urls(config);
    let call_limit = config.tokenization.transaction_timeout;
    // A start waits for an endpoint that requests a pause; the running service uses the others.
    let patient = Endpoints::for_commands(&urls, call_limit, config.solana.background_rate);
    let endpoint = first_answering(&patient).await?;
    let genesis_hash = endpoint
        .hot()
        .get_genesis_hash()
        .await
        .map_err(|error| ChainError::from_client(endpoint.name(), &error))?;
    let is_local = is_local_chain(endpoint).await?;
    let signer = if needs_no_key(config) {
        None
    } else {
        Some(signer(config, is_local)?)
    };
    let mint = match (config.solana.mint_address, &signer) {
        (Some(mint), _) => mint,
        (None, Some(signer)) if is_local => {
            prepare_local_chain(endpoint, signer, config.tokenization.decimals).await?
        }
        (None, _) => return Err(StartError::NoMint),
    };
    let state = mint_state(endpoint, mint, config.tokenization.decimals).await?;
    let authority = authority(mint, state, signer.as_ref())?;
    let background_rate = if is_local {
        config.solana.background_rate
    } else {
        Some(config.solana.cluster_background_rate())
    };
    Ok(Solana {
        endpoints: Endpoints::paced(&urls, call_limit, background_rate),
        signer,
        authority,
        mint,
        genesis_hash,
        scan_request: None,
        is_local,
    })
}

/// The same from the ledger, for a process without a key while no endpoint answers. `None`: only the chain has what this process
/// needs.
pub(super) async fn recall(config: &Config, pool: &PgPool) -> Result<Option<Solana>, StartError> {
    let canary_needs_chain =
        config.service.canary_enabled && config.service.canary_wallet.is_none();
    let Some(mint) = config.solana.mint_address else {
        return Ok(None);
    };
    if !needs_no_key(config) || canary_needs_chain {
        return Ok(None);
    }
    let bound = match ledger::bind_offline(pool, mint, config.tokenization.decimals).await {
        Err(BindingError::Unbound) => return Ok(None),
        recalled => recalled?,
    };
    let genesis_hash = bound
        .genesis_hash
        .parse()
        .map_err(|_| BindingError::Unreadable {
            what: "a genesis hash",
            value: bound.genesis_hash,
        })?;
    Ok(Some(Solana {
        endpoints: Endpoints::paced(
            &urls(config),
            config.tokenization.transaction_timeout,
            Some(config.solana.cluster_background_rate()),
        ),
        signer: None,
        authority: bound.authority,
        mint,
        genesis_hash,
        scan_request: None,
        is_local: false,
    }))
}

fn urls(config: &Config) -> Vec<String> {
    let urls = config.solana.rpc_urls.iter();
    urls.map(|url| url.expose().to_owned()).collect()
}

async fn first_answering(endpoints: &Endpoints) -> Result<&Endpoint, StartError> {
    let mut failure = None;
    for endpoint in endpoints.iter() {
        match endpoint.hot().get_version().await {
            Ok(_) => return Ok(endpoint),
            Err(error) => {
                let error = ChainError::from_client(endpoint.name(), &error);
                endpoints.fail_over_from(endpoint, &error);
                failure = Some(error);
            }
        }
    }
    Err(failure.map_or(StartError::NoEndpoint, StartError::Chain))
}

/// A process that only serves the API signs nothing, so that a host on the public internet need not have the authority's key. A
/// local chain's mint is found by its key unless it is configured.
fn needs_no_key(config: &Config) -> bool {
    let role: ProcessRole = config.service.role;
    !role.runs_jobs()
        && config.solana.keypair_path.is_none()
        && config.solana.mint_address.is_some()
}

fn signer(config: &Config, is_local: bool) -> Result<MintSigner, StartError> {
    let authority = match &config.solana.keypair_path {
        Some(path) => read_keypair(path)?,
        None if is_local => local_keypair(config, LOCAL_AUTHORITY_FILE)?,
        None => return Err(StartError::NoKeypair),
    };
    let fee_payer = match config.solana.fee_payer_path() {
        Some(path) if Some(path) != config.solana.keypair_path.as_ref() => {
            Some(read_keypair(path)?)
        }
        _ => None,
    };
    Ok(MintSigner::new(authority, fee_payer))
}

/// The key in this file of the data directory, created at the first start.
fn local_keypair(config: &Config, file: &str) -> Result<Keypair, StartError> {
    let folder = &config.data_dir.path;
    std::fs::create_dir_all(folder).map_err(|source| StartError::DataDir {
        path: folder.clone(),
        source,
    })?;
    Ok(read_or_create_keypair(&folder.join(file))?)
}

/// The mint, with the decimals that readings are converted with.
async fn mint_state(endpoint: &Endpoint, mint: Pubkey, decimals: u8) -> Result<Mint, StartError> {
    let account = endpoint
        .hot()
        .get_account_with_commitment(&mint, endpoint.commitment(Finality::Confirmed))
        .await
        .map_err(|error| ChainError::from_client(endpoint.name(), &error))?
        .value;
    let not_a_mint = || StartError::NotAMint {
        mint: mint.to_string(),
    };
    let account = account.ok_or_else(not_a_mint)?;
    if account.owner != spl_token_interface::ID {
        return Err(not_a_mint());
    }
    let state = Mint::unpack(&account.data).map_err(|_| not_a_mint())?;
    if state.decimals != decimals {
        return Err(StartError::Decimals {
            mint: mint.to_string(),
            found: state.decimals,
            configured: decimals,
        });
    }
    Ok(state)
}

/// The mint's authority: this process' key, where it has one.
fn authority(mint: Pubkey, state: Mint, signer: Option<&MintSigner>) -> Result<Pubkey, StartError> {
    match (state.mint_authority, signer) {
        (COption::Some(authority), None) => Ok(authority),
        (COption::Some(authority), Some(signer)) if authority == signer.authority() => {
            Ok(authority)
        }
        (_, Some(signer)) => Err(StartError::NotTheAuthority {
            mint: mint.to_string(),
            authority: signer.authority().to_string(),
        }),
        (COption::None, None) => Err(StartError::NoAuthority {
            mint: mint.to_string(),
        }),
    }
}
