//! Which thread executes transactions.
//!
//! surfpool asks its storages the same question in the same way from the loop that executes transactions and from
//! the threads that answer JSON-RPC. Where the two deserve different answers, this tells them apart.

use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    static HERE: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as the one that executes transactions, until the guard is dropped.
pub fn here() -> Executing {
    HERE.set(true);
    Executing(PhantomData)
}

pub fn is_here() -> bool {
    HERE.get()
}

/// Not to be sent: it speaks of its thread.
pub struct Executing(PhantomData<*const ()>);

impl Drop for Executing {
    fn drop(&mut self) {
        HERE.set(false);
    }
}
