//! The structure of `src/`, and the words of the project.
//!
//! | file | what it checks |
//! |---|---|
//! | `imports` | dependencies between rooms point down the list in `src/lib.rs`; no two files import each other in a circle |
//! | `spawns` | what is spawned is a periodic task or listed |
//! | `commitments` | one file decides which commitment a call names |
//! | `transactions` | transactions on the pool are begun in one file |
//! | `words` | retired names and phrases stay retired, in code and pages |
//!
//! Imports are read from the text, by `crates`, `use_tree` and `source_text`: `use` declarations, and paths that begin with `crate`,
//! `super` or `self`. What a `mod.rs` re-exports counts as an import of the file that defines it. Test modules are left out.

mod commitments;
mod crates;
mod imports;
mod source_text;
mod spawns;
mod transactions;
mod use_tree;
mod words;
