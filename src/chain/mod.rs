//! The Solana cluster as this service sees it: RPC endpoints, signer, blocks and history.

mod endpoint;

pub use endpoint::{Endpoint, Endpoints};
