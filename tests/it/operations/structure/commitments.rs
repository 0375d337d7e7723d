//! One file decides which commitment a call names.

use super::crates::{Module, crates};

#[test]
fn commitments_are_decided_in_one_file() {
    const DECIDES: &str = "chain/commitment.rs";
    let library = &crates()[0];
    let names_one = |module: &&Module| module.code.contains("CommitmentConfig::");
    let files: Vec<&str> = library
        .modules
        .values()
        .filter(names_one)
        .map(|module| module.file.as_str())
        .collect();
    assert_eq!(files, [DECIDES], "ask `Endpoint::commitment` instead");
}
