//! The wallet that a reading pays.

use std::fmt;

use serde::{Serialize, Serializer};
use solana_sdk::pubkey::{ParsePubkeyError, Pubkey};
use spl_associated_token_account_interface::address::get_associated_token_address_with_program_id;
use thiserror::Error;

use super::excerpt::excerpt;

/// An address that can have a private key: 32 bytes on the ed25519 curve, and not a well-known program, sysvar or mint. Tokens
/// sent to any other address are lost permanently. Whether the account exists and belongs to the system program is known only
/// on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wallet(Pubkey);

/// An address that is not a wallet.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WalletError {
    #[error("{text} is not base58")]
    NotBase58 { text: String },
    #[error("{text} is not 32 bytes of base58, as a Solana address is")]
    WrongLength { text: String },
    #[error(
        "{address} is not on the ed25519 curve: no private key exists for it, so tokens sent there are lost"
    )]
    OffCurve { address: Pubkey },
    #[error("{address} is the {name}, not a wallet")]
    WellKnown { address: Pubkey, name: &'static str },
    #[error("{address} is the mint of this service's token, not a wallet")]
    Mint { address: Pubkey },
}

impl Wallet {
    /// Parses base58 and checks what can be checked without the chain.
    pub fn parse(text: &str) -> Result<Wallet, WalletError> {
        let address: Pubkey = text.parse().map_err(|error| match error {
            ParsePubkeyError::Invalid => WalletError::NotBase58 {
                text: excerpt(text),
            },
            ParsePubkeyError::WrongSize => WalletError::WrongLength {
                text: excerpt(text),
            },
        })?;
        if let Some((_, name)) = WELL_KNOWN.iter().find(|(known, _)| *known == address) {
            return Err(WalletError::WellKnown { address, name });
        }
        if !address.is_on_curve() {
            return Err(WalletError::OffCurve { address });
        }
        Ok(Wallet(address))
    }

    /// From the database, where only validated wallets are stored.
    pub fn from_stored(bytes: [u8; 32]) -> Wallet {
        Wallet(Pubkey::new_from_array(bytes))
    }

    pub fn check_not_mint(&self, mint: &Pubkey) -> Result<(), WalletError> {
        if self.0 == *mint {
            return Err(WalletError::Mint { address: self.0 });
        }
        Ok(())
    }

    pub fn pubkey(&self) -> Pubkey {
        self.0
    }

    pub fn bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The associated token account of this wallet for `mint`. Computing it takes some hashing and curve arithmetic.
    pub fn token_account(&self, mint: &Pubkey) -> Pubkey {
        get_associated_token_address_with_program_id(&self.0, mint, &spl_token_interface::ID)
    }
}

/// Base58.
impl fmt::Display for Wallet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl Serialize for Wallet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Addresses that users paste by mistake and that have no private key. The curve alone does not exclude them: about half of them
/// happen to be points of it. Source: the programs and sysvars of the Solana documentation, and the mints of the largest tokens.
const WELL_KNOWN: [(Pubkey, &str); 45] = [
    known("11111111111111111111111111111111", "system program"),
    known(
        "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
        "token program",
    ),
    known(
        "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb",
        "token-2022 program",
    ),
    known(
        "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL",
        "associated token account program",
    ),
    known(
        "Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo",
        "memo program (version 1)",
    ),
    known(
        "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr",
        "memo program",
    ),
    known(
        "Memo4c2pN8afCj432Lb7RMVKi9PbQnnW7ewFFaV3oAH",
        "memo program (version 4)",
    ),
    known(
        "So11111111111111111111111111111111111111112",
        "mint of wrapped SOL",
    ),
    known(
        "9pan9bMn5HatX4EJdBwg9VgCa7Uz5HL8N1m5D3NdXejP",
        "mint of wrapped SOL (token-2022)",
    ),
    known(
        "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
        "mint of USDC",
    ),
    known(
        "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB",
        "mint of USDT",
    ),
    known("1nc1nerator11111111111111111111111111111111", "incinerator"),
    known(
        "AddressLookupTab1e1111111111111111111111111",
        "address lookup table program",
    ),
    known(
        "BPFLoader1111111111111111111111111111111111",
        "BPF loader (deprecated)",
    ),
    known("BPFLoader2111111111111111111111111111111111", "BPF loader"),
    known(
        "BPFLoaderUpgradeab1e11111111111111111111111",
        "upgradeable BPF loader",
    ),
    known(
        "LoaderV411111111111111111111111111111111111",
        "loader version 4",
    ),
    known(
        "NativeLoader1111111111111111111111111111111",
        "native loader",
    ),
    known(
        "ComputeBudget111111111111111111111111111111",
        "compute budget program",
    ),
    known(
        "Config1111111111111111111111111111111111111",
        "config program",
    ),
    known(
        "Ed25519SigVerify111111111111111111111111111",
        "ed25519 program",
    ),
    known(
        "KeccakSecp256k11111111111111111111111111111",
        "secp256k1 program",
    ),
    known(
        "Secp256r1SigVerify1111111111111111111111111",
        "secp256r1 program",
    ),
    known(
        "Feature111111111111111111111111111111111111",
        "feature program",
    ),
    known(
        "Stake11111111111111111111111111111111111111",
        "stake program",
    ),
    known(
        "StakeConfig11111111111111111111111111111111",
        "stake config account",
    ),
    known(
        "Vote111111111111111111111111111111111111111",
        "vote program",
    ),
    known(
        "ZkTokenProof1111111111111111111111111111111",
        "zk token proof program",
    ),
    known(
        "ZkE1Gama1Proof11111111111111111111111111111",
        "zk ElGamal proof program",
    ),
    known(
        "SPoo1Ku8WFXoNDMHPsrGSTSG1Y47rzgn41SLUNakuHy",
        "stake pool program",
    ),
    known(
        "namesLPneVptA9Z5rqUDD9tMTWEJwofgaYwp8cawRkX",
        "name service program",
    ),
    known(
        "metaqbxxUerdq28cj1RbAWkYQm3ybzjb6a8bt518x1s",
        "token metadata program",
    ),
    known(
        "Sysvar1111111111111111111111111111111111111",
        "owner of the sysvars",
    ),
    known(
        "SysvarC1ock11111111111111111111111111111111",
        "clock sysvar",
    ),
    known(
        "SysvarEpochRewards1111111111111111111111111",
        "epoch rewards sysvar",
    ),
    known(
        "SysvarEpochSchedu1e111111111111111111111111",
        "epoch schedule sysvar",
    ),
    known("SysvarFees111111111111111111111111111111111", "fees sysvar"),
    known(
        "Sysvar1nstructions1111111111111111111111111",
        "instructions sysvar",
    ),
    known(
        "SysvarLastRestartS1ot1111111111111111111111",
        "last restart slot sysvar",
    ),
    known(
        "SysvarRecentB1ockHashes11111111111111111111",
        "recent blockhashes sysvar",
    ),
    known("SysvarRent111111111111111111111111111111111", "rent sysvar"),
    known(
        "SysvarRewards111111111111111111111111111111",
        "rewards sysvar",
    ),
    known(
        "SysvarS1otHashes111111111111111111111111111",
        "slot hashes sysvar",
    ),
    known(
        "SysvarS1otHistory11111111111111111111111111",
        "slot history sysvar",
    ),
    known(
        "SysvarStakeHistory1111111111111111111111111",
        "stake history sysvar",
    ),
];

const fn known(address: &str, name: &'static str) -> (Pubkey, &'static str) {
    (Pubkey::from_str_const(address), name)
}

#[cfg(test)]
mod tests {
    use solana_sdk::signature::{Keypair, Signer as _};

    use super::*;

    #[test]
    fn a_generated_key_is_a_wallet() {
        for _ in 0..50 {
            let address = Keypair::new().pubkey();
            let wallet = Wallet::parse(&address.to_string()).unwrap();
            assert_eq!(wallet.pubkey(), address);
            assert_eq!(wallet.to_string(), address.to_string());
            assert_eq!(Wallet::from_stored(wallet.bytes()), wallet);
        }
    }

    #[test]
    fn well_known_addresses_are_rejected_by_name() {
        let mut on_curve = 0;
        for (address, name) in WELL_KNOWN {
            on_curve += usize::from(address.is_on_curve());
            let refused = Wallet::parse(&address.to_string());
            assert_eq!(refused, Err(WalletError::WellKnown { address, name }));
        }
        assert!(
            on_curve > 10,
            "the curve alone would have rejected all but {on_curve}"
        );
        for ours in [
            spl_token_interface::ID,
            spl_memo_interface::v3::ID,
            spl_associated_token_account_interface::program::ID,
            solana_system_interface::program::ID,
            spl_token_interface::native_mint::ID,
            solana_sdk::pubkey::Pubkey::default(),
        ] {
            assert!(
                matches!(
                    Wallet::parse(&ours.to_string()),
                    Err(WalletError::WellKnown { .. })
                ),
                "{ours}"
            );
        }
    }

    #[test]
    fn an_address_without_a_possible_key_is_rejected() {
        let mint = Keypair::new().pubkey();
        let wallet = Wallet::from_stored(Keypair::new().pubkey().to_bytes());
        let token_account = wallet.token_account(&mint);
        assert_eq!(
            Wallet::parse(&token_account.to_string()),
            Err(WalletError::OffCurve {
                address: token_account
            })
        );
    }

    #[test]
    fn a_text_that_is_not_32_bytes_of_base58_is_rejected() {
        // A fixed address: one character less or more of a random one may happen to be another address.
        let address = "GqDqQTP5GZ12zpxMF1WYxURVpa1z8LjQp6iKSwCYXFPD";
        assert!(Wallet::parse(address).is_ok());
        for text in [
            "",
            "1",
            "O",
            "lI0O",
            "wallet!",
            "ä",
            "\0",
            "0x71C7656EC7ab88b098defB751B7401B5f6d8976F",
            &address[12..],
            &address.replacen('G', "0", 1),
            &format!("1{address}"),
            &format!("{address}1"),
            &format!(" {address}"),
            &format!("{address}\n"),
            &address.repeat(1_000),
        ] {
            let error = Wallet::parse(text).unwrap_err();
            assert!(
                matches!(
                    error,
                    WalletError::NotBase58 { .. } | WalletError::WrongLength { .. }
                ),
                "{text:?}: {error}"
            );
        }
    }

    #[test]
    fn the_mint_is_not_a_wallet() {
        let mint = Keypair::new().pubkey();
        let wallet = Wallet::parse(&mint.to_string()).unwrap();
        assert!(wallet.check_not_mint(&mint).is_err());
        assert!(wallet.check_not_mint(&Keypair::new().pubkey()).is_ok());
    }

    /// By the program's definition: seeds wallet, token program, mint, and the first bump from 255 downwards that is off the curve.
    #[test]
    fn the_token_account_is_the_associated_one() {
        let mint = Keypair::new().pubkey();
        let wallet = Wallet::from_stored(Keypair::new().pubkey().to_bytes());
        let program = spl_associated_token_account_interface::program::ID;
        let expected = (0..=255_u8).rev().find_map(|bump| {
            let seeds: [&[u8]; 4] = [
                wallet.0.as_ref(),
                spl_token_interface::ID.as_ref(),
                mint.as_ref(),
                &[bump],
            ];
            Pubkey::create_program_address(&seeds, &program).ok()
        });
        assert_eq!(Some(wallet.token_account(&mint)), expected);
    }
}
