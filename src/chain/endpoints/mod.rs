//! The configured RPC endpoints: how a call reaches one, which one is queried first, and what a probe of all of them found.

mod call_budget;
mod chain_identity;
mod chain_probe;
mod charges;
mod consensus;
mod endpoint;
mod endpoint_health;
mod endpoint_names;
mod mint_accounts;
pub(super) mod rate_limit;
mod rpc_class;
mod rpc_sender;
mod selection;
mod v1_support;

pub use chain_probe::{ChainProbe, ChainSnapshot};
pub use endpoint::Endpoint;
pub use mint_accounts::MintAccounts;
pub use rpc_class::RpcClass;
pub use selection::{EndpointView, Endpoints};
pub(super) use v1_support::V1Answer;
