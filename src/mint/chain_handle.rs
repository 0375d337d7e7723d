//! The chain as a process uses it, whether it signs or not.

use solana_sdk::pubkey::Pubkey;

use super::costs::TransactionCosts;
use crate::chain::{
    ChainCharges, ChainError, CircuitBreaker, Endpoints, FeeBudget, MintAccounts, PriorityFees,
    TransactionFormats,
};
use crate::domain::ComputeUnitPrice;
use crate::ledger::ScanRequest;

/// The payer of the fees of mint transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeePayerSource {
    /// This process mints and pays with this key.
    OwnKey(Pubkey),
    /// Another process pays, with the key that the ledger names now and later; `None` until it names one.
    Ledger(Option<Pubkey>),
}

/// Shared by everything in a process that uses the chain. Clones share the circuit breaker and the fee budget.
#[derive(Clone)]
pub struct ChainHandle {
    pub endpoints: Endpoints,
    pub accounts: MintAccounts,
    /// Checked before each batch.
    pub circuit_breaker: CircuitBreaker,
    /// Lamports that can still be spent, and the fee payer.
    pub fee_budget: FeeBudget,
    pub priority_fees: PriorityFees,
    pub transaction_formats: TransactionFormats,
    /// The fee payer is the one that the ledger names.
    pub(super) follows_ledger: bool,
    /// Of this process, if it signs: it waits for a scan of the history that covers it.
    pub(super) scan_request: Option<ScanRequest>,
}

impl ChainHandle {
    pub fn new(
        endpoints: Endpoints,
        accounts: MintAccounts,
        fee_payer: FeePayerSource,
        priority_fees: PriorityFees,
    ) -> ChainHandle {
        let (fee_payer, follows_ledger) = match fee_payer {
            FeePayerSource::OwnKey(fee_payer) => (Some(fee_payer), false),
            FeePayerSource::Ledger(fee_payer) => (fee_payer, true),
        };
        ChainHandle {
            endpoints,
            accounts,
            circuit_breaker: CircuitBreaker::default(),
            fee_budget: FeeBudget::of(fee_payer),
            priority_fees,
            transaction_formats: TransactionFormats::default(),
            follows_ledger,
            scan_request: None,
        }
    }

    /// Of a process that signs: it does so once a scan that covers this request is finished.
    pub fn signing_after(self, scan_request: ScanRequest) -> ChainHandle {
        ChainHandle {
            scan_request: Some(scan_request),
            ..self
        }
    }

    /// With the operator's choice of formats; without one it is `auto`.
    pub fn with_transaction_formats(self, transaction_formats: TransactionFormats) -> ChainHandle {
        ChainHandle {
            transaction_formats,
            ..self
        }
    }

    /// The payer of the fees; the mint authority stands in while that is not known.
    pub(super) fn payer(&self) -> Pubkey {
        self.fee_budget
            .fee_payer()
            .unwrap_or(self.accounts.authority)
    }

    /// Fee payer and mint authority are two keys. Assumed while the fee payer is not known, so that an estimate is a ceiling.
    pub(super) fn has_separate_fee_payer(&self) -> bool {
        self.fee_budget.fee_payer() != Some(self.accounts.authority)
    }

    /// Costs of transactions while compute units cost `price`, at the charges that the chain reported last.
    pub(super) fn costs_at(&self, price: ComputeUnitPrice) -> Result<TransactionCosts, ChainError> {
        let charges = self.endpoints.parameters().charges();
        let charges = charges.ok_or(ChainError::ChargesUnknown)?;
        Ok(self.costs_with(charges, price))
    }

    fn costs_with(&self, charges: ChainCharges, price: ComputeUnitPrice) -> TransactionCosts {
        let signatures = 1 + u64::from(self.has_separate_fee_payer());
        TransactionCosts {
            base_fee: signatures * charges.per_signature,
            account_rent: charges.token_account_rent,
            price,
        }
    }

    /// Accounts that every mint transaction writes to: other transactions that write to it compete with ours.
    pub(super) fn writable_accounts(&self) -> Vec<Pubkey> {
        let mut accounts = vec![self.accounts.mint];
        accounts.extend(self.fee_budget.fee_payer());
        accounts
    }

    /// Cost of the cheapest transaction, at most.
    pub(super) fn least_fee_lamports(&self, charges: ChainCharges) -> u64 {
        self.costs_with(charges, self.priority_fees.price())
            .of_cheapest()
    }
}
