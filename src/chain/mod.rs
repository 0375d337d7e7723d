//! The Solana cluster as this service sees it: RPC endpoints, signer, blocks, token accounts.
//!
//! Invariant: an answer is believed for what it proves and no more. That a signature was found proves that it landed; that
//! it was not found proves nothing, unless [`scan_blocks`] read every block that could hold it.
//!
//! | file | what it does |
//! |---|---|
//! | `endpoint`, `standing` | the endpoints, and which of them is worth asking |
//! | `sender`, `gate` | how a call travels; an endpoint that answers 429 is left alone for as long as it asked |
//! | `survey` | one look at all endpoints, the fee payer and the mint |
//! | `circuit` | whether minting is worth trying now |
//! | `purse` | what the fee payer can still spend |
//! | `priority_fee` | what is offered for a compute unit |
//! | `blockhash`, `blocks`, `history`, `mint_history`, `landed_mint`, `executed` | what the chain holds |
//! | `signer`, `token_account`, `local` | keys, wallets' accounts, the chain for development |

mod blockhash;
mod blocks;
mod circuit;
mod endpoint;
mod error;
mod executed;
mod gate;
mod history;
mod landed_mint;
mod local;
mod mint_history;
mod priority_fee;
mod purse;
mod sender;
mod signer;
mod standing;
mod survey;
mod token_account;

pub use blockhash::{BLOCKHASH_LIFE, RecentBlockhash};
pub use blocks::{BlockScan, NoProof, scan_blocks};
pub use circuit::{Circuit, CircuitView, Opening, Trouble};
pub use endpoint::{Endpoint, EndpointView, Endpoints};
pub use error::{ChainError, Fault};
pub use history::{HistoryWalk, ListedTransaction, walk_history};
pub use landed_mint::{ChainMint, find_mint, find_transaction, mint_of};
pub use local::{is_local_chain, prepare_local_chain};
pub use mint_history::{TokenSupply, shows_creation};
pub use priority_fee::PriorityFees;
pub use purse::{Funds, Purse, PurseView, Reservation, TOKEN_ACCOUNT_RENT_LAMPORTS};
pub use signer::{KeyFileError, MintSigner, read_keypair, read_or_create_keypair};
pub use survey::{FeePayer, MintAccounts, Sight, Survey};
pub use token_account::{AsOf, TokenAccountState, TokenAccounts, inspect_token_accounts};
