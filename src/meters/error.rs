//! The errors of registering and showing meters, with their texts for the caller.

use thiserror::Error;

use crate::domain::{MeterSerial, SerialError, Wallet, WalletError};

/// A meter is not registered or not shown.
#[derive(Debug, Error)]
pub enum MeterError {
    #[error("meter_id {0}")]
    Serial(#[from] SerialError),
    #[error("wallet_address {0}")]
    Wallet(#[from] WalletError),
    /// The account at that address is not a wallet.
    #[error(
        "wallet_address {wallet} belongs to the program {program} on chain; give the address of an ordinary wallet, \
         not of a token account or a program"
    )]
    WalletOfProgram { wallet: Wallet, program: String },
    #[error(
        "interval_minutes {minutes} is out of range; a meter's interval is a whole number of minutes from 1 to 1440"
    )]
    IntervalMinutes { minutes: i64 },
    #[error(
        "owner has {characters} characters; an owner is a token's subject: 1 to 128 characters, none of them a control character"
    )]
    Owner { characters: usize },
    /// 403.
    #[error(
        "only an admin may register a meter for another owner; leave owner out, or give your own subject"
    )]
    OwnerOfAnother,
    /// 409. Reveals nothing about the other owner.
    #[error("meter {serial} is registered by another owner; check the meter_id")]
    OwnedByAnother { serial: MeterSerial },
    /// 409.
    #[error(
        "meter {serial} is registered with another wallet_address ({registered}); a meter's wallet does not change"
    )]
    OtherWallet {
        serial: MeterSerial,
        registered: Wallet,
    },
    /// 409.
    #[error(
        "meter {serial} is registered with interval_minutes {registered}; a meter's interval does not change"
    )]
    OtherInterval {
        serial: MeterSerial,
        registered: u16,
    },
    /// 503: whether the address is a wallet is not known.
    #[error(
        "wallet_address {wallet} cannot be looked up, because no Solana RPC endpoint answers; try again later"
    )]
    ChainUnavailable { wallet: Wallet },
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}
