//! Transactions on the pool are begun in one file.

use super::crates::{Module, crates};

#[test]
fn transactions_on_the_pool_are_begun_in_one_file() {
    const BEGINS: &str = "db/begin.rs";
    let library = &crates()[0];
    let begins_one = |module: &&Module| {
        // Without the white space of a call that is broken into lines.
        let code: String = module.code.split_whitespace().collect();
        code.contains("pool.begin(") || code.contains("pool.begin_with(")
    };
    let files: Vec<&str> = library
        .modules
        .values()
        .filter(begins_one)
        .map(|module| module.file.as_str())
        .collect();
    assert_eq!(files, [BEGINS], "call `db::begin` instead");
}
