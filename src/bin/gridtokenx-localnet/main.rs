//! The local chain: surfpool's real virtual machine in memory, and its state kept block by block.
//!
//! Invariant: what a client saw `finalized` survives kill -9, and what survives agrees with itself: balances,
//! supply and history are those after one block. At most the newest blocks are rolled back, as by a fork, and their
//! transactions can be sent again.
//! Kept by writing each block in one transaction of an embedded store ([`store`]), in order, behind a channel that
//! stops the chain when the disk stalls ([`persist`]). It would break if surfpool changed state without an event.
//!
//! | file | what it is for |
//! |---|---|
//! | [`chain`], [`restore`] | surfpool, set to where the store left off |
//! | [`persist`] | events to blocks, blocks to the store |
//! | [`history`] | blocks and transactions, as surfpool asks for them |
//! | [`index`], [`executing`] | accounts by owner and by mint, as surfpool changes them |
//! | [`store`], [`record`], [`log_line`], [`outline`] | what is on disk |
//! | [`data_dir`], [`ports`], [`flags`], [`error`] | what the operator sees |
#![forbid(unsafe_code)]

mod chain;
mod data_dir;
mod error;
mod executing;
mod flags;
mod history;
mod index;
mod log_line;
mod outline;
mod persist;
mod ports;
mod record;
mod restore;
mod run;
mod store;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    match run::run(flags::Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it: then the exit status says it.
            let _ = writeln!(std::io::stderr(), "gridtokenx-localnet: {error}");
            ExitCode::FAILURE
        }
    }
}
