//! Inspects the token accounts of a batch's wallets in one query.

use super::chain_handle::ChainHandle;
use crate::chain::{AsOf, ChainError, Endpoint, RpcClass, TokenAccounts, inspect_token_accounts};
use crate::domain::Wallet;

/// Each wallet is queried once, however often it is named. `class`: the budget that the query spends.
pub(super) async fn inspect(
    chain: &ChainHandle,
    endpoint: &Endpoint,
    class: RpcClass,
    wallets: impl Iterator<Item = Wallet>,
    as_of: AsOf,
) -> Result<TokenAccounts, ChainError> {
    let mut wallets: Vec<Wallet> = wallets.collect();
    wallets.sort_unstable();
    wallets.dedup();
    inspect_token_accounts(endpoint, class, &chain.accounts.mint, &wallets, as_of).await
}
