//! The keys that sign: mint authority and fee payer.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::{Keypair, Signer as _};
use thiserror::Error;

/// The fault of a key file that cannot be used.
#[derive(Debug, Error)]
pub enum KeyFileError {
    #[error("key file {path} cannot be read: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "key file {path} is not a Solana keypair: it must hold a JSON array of 64 numbers, as written by solana-keygen"
    )]
    NoKeypair { path: PathBuf },
    #[error("key file {path} cannot be written: {source}")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// Mint authority and fee payer; they may be one key.
#[derive(Clone)]
pub struct MintSigner {
    authority: Arc<Keypair>,
    fee_payer: Arc<Keypair>,
}

impl MintSigner {
    pub fn new(authority: Keypair, fee_payer: Option<Keypair>) -> MintSigner {
        let authority = Arc::new(authority);
        let fee_payer = fee_payer.map_or_else(|| Arc::clone(&authority), Arc::new);
        MintSigner {
            authority,
            fee_payer,
        }
    }

    pub fn authority(&self) -> Pubkey {
        self.authority.pubkey()
    }

    pub fn fee_payer(&self) -> Pubkey {
        self.fee_payer.pubkey()
    }

    pub fn has_separate_fee_payer(&self) -> bool {
        self.authority() != self.fee_payer()
    }

    /// The keys that must sign, fee payer first.
    pub fn keypairs(&self) -> Vec<&Keypair> {
        if self.has_separate_fee_payer() {
            vec![&self.fee_payer, &self.authority]
        } else {
            vec![&self.authority]
        }
    }

    pub(super) fn authority_keypair(&self) -> &Keypair {
        &self.authority
    }

    pub(super) fn fee_payer_keypair(&self) -> &Keypair {
        &self.fee_payer
    }
}

/// Reads a keypair as `solana-keygen` writes it.
pub fn read_keypair(path: &Path) -> Result<Keypair, KeyFileError> {
    let text = fs::read_to_string(path).map_err(|source| KeyFileError::Read {
        path: path.to_owned(),
        source,
    })?;
    let no_keypair = || KeyFileError::NoKeypair {
        path: path.to_owned(),
    };
    let bytes: Vec<u8> = serde_json::from_str(&text).map_err(|_| no_keypair())?;
    Keypair::try_from(bytes.as_slice()).map_err(|_| no_keypair())
}

/// Reads the keypair, or creates it once: readable by its owner only, and never visible half-written.
pub fn read_or_create_keypair(path: &Path) -> Result<Keypair, KeyFileError> {
    if path.exists() {
        return read_keypair(path);
    }
    let keypair = Keypair::new();
    let write_failed = |source| KeyFileError::Write {
        path: path.to_owned(),
        source,
    };
    let text = serde_json::to_string(&keypair.to_bytes().to_vec()).map_err(|_| {
        KeyFileError::NoKeypair {
            path: path.to_owned(),
        }
    })?;
    let draft = path.with_extension("draft");
    let mut file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .map_err(write_failed)?;
    file.write_all(text.as_bytes()).map_err(write_failed)?;
    file.sync_all().map_err(write_failed)?;
    fs::rename(&draft, path).map_err(write_failed)?;
    Ok(keypair)
}
