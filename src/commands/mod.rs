//! The program's subcommands, one file each, and what they share.

pub mod atomic_file;
pub mod backoff;
pub mod console;
pub mod data_dir;
pub mod follow;
pub mod listen;
pub mod play;
pub mod report;
pub mod running;
pub mod serve;
pub mod signals;
pub mod tokens;
