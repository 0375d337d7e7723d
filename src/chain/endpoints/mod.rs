//! The configured RPC endpoints: how a call reaches one, which one is queried first, and what a probe of all of them found.

mod call_budget;
mod capabilities;
mod chain_identity;
mod chain_probe;
mod chain_snapshot;
mod charges;
mod consensus;
mod endpoint;
mod endpoint_health;
mod endpoint_names;
mod list_query;
mod mint_accounts;
mod provider_limits;
pub(super) mod rate_limit;
pub(super) mod refusal;
mod rpc_class;
pub(super) mod rpc_method;
mod rpc_sender;
mod selection;
mod shared_blockhash;
mod shared_probe;
mod url_secrets;
mod v1_support;

pub use capabilities::{Ability, Capabilities};
pub use chain_probe::{ChainProbe, Probed};
pub use chain_snapshot::ChainSnapshot;
pub use endpoint::Endpoint;
pub use list_query::{ListMethod, ListQuery};
pub use mint_accounts::MintAccounts;
pub use provider_limits::MetLimit;
pub use refusal::ProviderLimit;
pub use rpc_class::RpcClass;
pub use selection::{EndpointView, Endpoints};
pub use shared_blockhash::RecentBlockhash;
pub use shared_probe::{EndpointsKey, SharedProbe};
pub(super) use v1_support::V1Answer;
