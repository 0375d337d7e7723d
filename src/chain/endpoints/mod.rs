//! The configured RPC endpoints: calls to one of them, the choice among them, and probes of all of them.
//!
//! | file | what it does |
//! |---|---|
//! | `endpoint` | one endpoint: its clients and everything that is remembered of it |
//! | `endpoint_names`, `url_secrets` | a safe name for each endpoint; no access key in logs and errors |
//! | `rpc_sender`, `rpc_method` | sends one call, and names its method |
//! | `rpc_class`, `call_budget`, `rate_limit` | the budget that a call spends, its pace, and the pause after a 429 |
//! | `limit_recognition`, `provider_limits`, `list_query` | limits of providers: recognised, remembered, met with shorter lists |
//! | `selection`, `endpoint_health` | the order in which endpoints are queried, and which of them are usable |
//! | `chain_probe`, `mint_accounts`, `chain_snapshot` | one probe of all endpoints, the fee payer and the mint |
//! | `shared_probe` | one process's probe, for the other processes |
//! | `chain_identity` | the chain that an endpoint is on, and its newest finalized block |
//! | `consensus` | the consensus of an endpoint's cluster |
//! | `capabilities` | the capabilities of an endpoint, as probes found them |
//! | `v1_support` | whether an endpoint takes v1 transactions |
//! | `charges` | the chain's charges, as an endpoint reports them |
//! | `shared_blockhash` | the last blockhash, shared by the batches of a moment |

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
pub(super) mod limit_recognition;
mod list_query;
mod mint_accounts;
mod provider_limits;
pub(super) mod rate_limit;
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
pub use limit_recognition::ProviderLimit;
pub use list_query::{ListMethod, ListQuery};
pub use mint_accounts::MintAccounts;
pub use provider_limits::MetLimit;
pub use rpc_class::RpcClass;
pub use selection::{EndpointView, Endpoints};
pub use shared_blockhash::RecentBlockhash;
pub use shared_probe::{EndpointsKey, SharedProbe};
pub(super) use v1_support::V1Answer;
