//! Marks the thread that executes transactions.
//!
//! surfpool calls its storages in the same way from the loop that executes transactions and from the threads that answer
//! JSON-RPC. This distinguishes the two where they need different answers.

use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    static IS_CURRENT: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as the one that executes transactions, until the guard is dropped.
pub fn mark() -> ExecutionThread {
    IS_CURRENT.set(true);
    ExecutionThread(PhantomData)
}

/// Whether this is the thread that executes transactions.
pub fn is_current() -> bool {
    IS_CURRENT.get()
}

/// Not `Send`: it concerns the thread that it was created on.
pub struct ExecutionThread(PhantomData<*const ()>);

impl Drop for ExecutionThread {
    fn drop(&mut self) {
        IS_CURRENT.set(false);
    }
}
