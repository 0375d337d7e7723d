//! `gridtokenx serve`: starts the rooms in order, runs them, and shuts them down in order.
//!
//! | file | what it does |
//! |---|---|
//! | `command` | the subcommand: serves until a signal |
//! | `solana` | endpoints, keys and mint; makes mint and funding once on a local chain |
//! | `open_files` | room for as many connections as are configured |
//! | `start` | starts every part, in order |
//! | `base` | opens the base: configuration, database, health, and the tasks by the step that ends them |
//! | `listening_socket` | opens the listening socket |
//! | `open_chain` | opens the chain, or reads its identity from the ledger |
//! | `leader_tasks` | runs tasks under the locks that one process of the deployment holds: event numbers, resolver, canary |
//! | `minting` | the minter and the queue's workers |
//! | `http` | the HTTP server, with the API or with health and metrics alone |
//! | `periodic_tasks` | the list of everything that runs on a period |
//! | `drain` | a running service, and the order in which it shuts down |

mod base;
mod command;
mod drain;
mod http;
mod leader_tasks;
mod listening_socket;
mod minting;
mod open_chain;
mod open_files;
mod periodic_tasks;
mod solana;
mod start;
mod start_error;

pub use command::{ServeArgs, run};
pub use drain::RunningService;
pub use start::start;
pub use start_error::{ServiceEnded, StartError};
