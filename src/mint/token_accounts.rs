//! Inspects the token accounts of a batch's wallets in one query.

use super::chain_handle::ChainHandle;
use crate::chain::{AsOf, ChainError, Endpoint, TokenAccounts, inspect_token_accounts};
use crate::domain::Wallet;

/// Each wallet is queried once, however often it is named.
pub(super) async fn inspect(
    chain: &ChainHandle,
    endpoint: &Endpoint,
    wallets: impl Iterator<Item = Wallet>,
    as_of: AsOf,
) -> Result<TokenAccounts, ChainError> {
    let mut wallets: Vec<Wallet> = wallets.collect();
    wallets.sort_unstable();
    wallets.dedup();
    inspect_token_accounts(endpoint, &chain.accounts.mint, &wallets, as_of).await
}
