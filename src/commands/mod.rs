//! The program's subcommands, one file each, and what they share.
//!
//! | file | what it does |
//! |---|---|
//! | `run` | database, chain, service and play from one command; `local_stack`, `run_output`, `report` are its parts |
//! | `replay` | the play: a year of real meter data, reported over REST and followed over the feed |
//! | `serve` | the service alone |
//! | `token` | prints a development token |
//! | `audit` | proves that ledger and chain agree |
//! | `listen` | prints the feed; `follow` is its client, and the play's |
//! | `data_dir`, `running`, `tokens` | what a local system keeps, where it runs, who may use it |
//! | `signals`, `atomic_file`, `public_url`, `paced_endpoints` | used by several of them |

mod atomic_file;
pub mod audit;
mod data_dir;
mod follow;
pub mod listen;
mod local_stack;
mod paced_endpoints;
mod public_url;
pub mod replay;
mod report;
pub mod run;
mod run_output;
pub mod running;
pub mod serve;
mod signals;
pub mod token;
pub mod tokens;
