//! The admin log: who did what, when, and proof that no entry was changed since.
//!
//! Invariant: an action and its entry commit together or not at all, so [`append`] works in the transaction of the action.
//!
//! Invariant: entries are numbered without gaps, and each entry's hash covers the entry before it. Kept by one row, the head,
//! which every append locks first. Triggers refuse every change of an entry; a superuser who bypasses them breaks the chain,
//! and [`verify()`] names the first entry that does not fit. Only a chain that was rewritten from some entry to its end, head
//! included, still fits: comparing it with a hash that was noted elsewhere before reveals that too.
//!
//! | file | what it does |
//! |---|---|
//! | `action` | what an admin can do, with the name and details that are stored |
//! | `entry` | an entry, its number and its hash: pure |
//! | `log_table` | appends an entry, reads a page of them |
//! | `verify` | walks the chain and names the first entry that does not fit |

mod action;
mod entry;
mod log_table;
mod verify;

pub use action::AdminAction;
pub use entry::{BEFORE_THE_FIRST, LogEntry, LogNumber};
pub use log_table::{ENTRIES_PER_PAGE_MAX, append, read};
pub use verify::{BrokenEntry, BrokenEntryReason, ChainCheck, verify};
