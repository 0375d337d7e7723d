//! Compiles the instructions of a mint transaction into a message, and sets the limits that it requests.
//!
//! Invariant: a compiled message keeps the rules of its format, so that no node refuses the transaction for its form. The crate's
//! own compiler checks none of the limits of v1 (SIMD-0385), so they are checked here.

use solana_compute_budget_interface::ComputeBudgetInstruction;
use solana_sdk::message::v1::{self, MessageError, TransactionConfig};
use solana_sdk::message::{CompileError, Message, VersionedMessage};
use solana_sdk::pubkey::Pubkey;
use thiserror::Error;

use super::loaded_data::{self, LOADED_BYTES_MAX};
use super::priority_fee::ComputeUnitPrice;
use super::transaction::{COMPUTE_LIMIT_INDEX, Instructions};
use super::transaction_format::TransactionFormat;

/// The instructions make no message. Packing keeps every limit, so none of these happens.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidMessage {
    #[error("{0}")]
    Compile(#[from] CompileError),
    #[error("{0}")]
    Rules(#[from] MessageError),
}

/// The limits that a transaction requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestedLimits {
    pub compute_units: u32,
    /// Bytes of account data. A legacy transaction does not state them.
    pub loaded_bytes: u32,
}

impl RequestedLimits {
    /// Before a simulation, and for a transaction that must not fail for lack of either.
    pub fn ceiling(compute_units: u32) -> RequestedLimits {
        RequestedLimits {
            compute_units,
            loaded_bytes: LOADED_BYTES_MAX,
        }
    }

    /// After a simulation that loaded `loaded` bytes.
    pub fn after(compute_units: u32, loaded: Option<u32>) -> RequestedLimits {
        RequestedLimits {
            compute_units,
            loaded_bytes: loaded_data::limit_after(loaded),
        }
    }

    fn header(self, price: ComputeUnitPrice) -> TransactionConfig {
        let header = TransactionConfig::empty()
            .with_compute_unit_limit(self.compute_units)
            .with_loaded_accounts_data_size_limit(self.loaded_bytes);
        if price.is_zero() {
            header
        } else {
            // The whole fee: the chain does not multiply it by anything.
            header.with_priority_fee(price.lamports_for(self.compute_units))
        }
    }
}

impl Instructions {
    /// The message, without a blockhash. It requests the planned ceiling.
    pub fn compile(&self, fee_payer: &Pubkey) -> Result<VersionedMessage, InvalidMessage> {
        match self.terms.format {
            TransactionFormat::Legacy => {
                let message = Message::new(&self.list, Some(fee_payer));
                Ok(VersionedMessage::Legacy(message))
            }
            TransactionFormat::V1 => {
                let limits = RequestedLimits::ceiling(self.compute.ceiling());
                let message = v1::Message::try_compile_with_config(
                    fee_payer,
                    &self.list,
                    Default::default(),
                    limits.header(self.terms.price),
                )?;
                message.validate()?;
                Ok(VersionedMessage::V1(message))
            }
        }
    }
}

/// Changes what a compiled message requests, and in v1 the fee that is offered at `price` for it; its length stays the same.
pub fn set_limits(
    message: &mut VersionedMessage,
    limits: RequestedLimits,
    price: ComputeUnitPrice,
) {
    match message {
        VersionedMessage::Legacy(message) => {
            if let Some(instruction) = message.instructions.get_mut(COMPUTE_LIMIT_INDEX) {
                instruction.data =
                    ComputeBudgetInstruction::set_compute_unit_limit(limits.compute_units).data;
            }
        }
        VersionedMessage::V1(message) => message.config = limits.header(price),
        // Not a format of mint transactions.
        VersionedMessage::V0(_) => {}
    }
}
