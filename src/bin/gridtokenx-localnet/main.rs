//! The local chain: surfpool's real virtual machine in memory, and its state stored block by block.
//!
//! Invariant: what a client saw `finalized` survives kill -9, and what survives is consistent: balances, supply and history
//! are those after one block. At most the newest blocks are rolled back, as by a fork, and their transactions can be sent
//! again.
//! Kept by writing each block in one transaction of an embedded store ([`store`]), in order, behind a channel that stops the
//! chain when the disk stalls ([`persistence`]). It would break if surfpool changed state without an event.
//!
//! | file | what it does |
//! |---|---|
//! | [`chain`], [`restore`] | surfpool, set to the state in the store |
//! | [`persistence`] | collects events into blocks and writes blocks to the store |
//! | [`chain_history`] | blocks and transactions, as surfpool reads them |
//! | [`account_index`], [`execution_thread`] | accounts by owner and by mint, as surfpool updates them |
//! | [`discard`] | in place of surfpool's maps that nothing reads |
//! | [`store`], [`block`], [`transaction_record`], [`log_line`], [`outline`] | what is on disk |
//! | [`data_dir`], [`ports`], [`flags`], [`error`] | lock, addresses, command line and errors |
//! | [`parameters`] | length of a slot and rent, chosen by flags and kept by the store |
#![forbid(unsafe_code)]

mod account_index;
mod block;
mod chain;
mod chain_history;
mod data_dir;
mod discard;
mod error;
mod execution_thread;
mod flags;
mod log_line;
mod outline;
mod parameters;
mod persistence;
mod ports;
mod restore;
mod serve;
mod store;
mod transaction_record;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    match serve::run(flags::Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // stderr may be closed: then the exit status reports the failure.
            let _ = writeln!(std::io::stderr(), "gridtokenx-localnet: {error}");
            ExitCode::FAILURE
        }
    }
}
