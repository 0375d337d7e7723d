//! Stands in for those of surfpool's maps that nothing here reads.
//!
//! surfpool notes a profile of every executed transaction, and keeps some 500 bytes of each until it ends.

use surfpool_core::storage::{Storage, StorageResult};

/// A map that keeps nothing.
pub struct Discard;

impl<K: 'static, V: 'static> Storage<K, V> for Discard {
    fn store(&mut self, _key: K, _value: V) -> StorageResult<()> {
        Ok(())
    }

    fn clear(&mut self) -> StorageResult<()> {
        Ok(())
    }

    fn get(&self, _key: &K) -> StorageResult<Option<V>> {
        Ok(None)
    }

    fn take(&mut self, _key: &K) -> StorageResult<Option<V>> {
        Ok(None)
    }

    fn keys(&self) -> StorageResult<Vec<K>> {
        Ok(Vec::new())
    }

    fn into_iter(&self) -> StorageResult<Box<dyn Iterator<Item = (K, V)> + '_>> {
        Ok(Box::new(std::iter::empty()))
    }

    fn count(&self) -> StorageResult<u64> {
        Ok(0)
    }

    fn clone_box(&self) -> Box<dyn Storage<K, V>> {
        Box::new(Self)
    }
}
