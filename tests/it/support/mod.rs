//! What the tests share.

pub mod localnet;
