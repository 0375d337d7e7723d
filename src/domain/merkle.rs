//! One root for all readings of a mint transaction, so that each of them can be shown to anybody without the others.
//!
//! The shape is that of RFC 6962, section 2.1: a tree of n leaves splits at the largest power of two below n, and the first
//! byte of what is hashed tells a leaf (0) from a node (1), so that no node can be passed off as a reading. Leaves are
//! ordered by reading id. The bytes are laid out in `docs/receipts.md`, with vectors to check against.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::energy::Kwh;
use super::interval::Interval;
use super::serial::MeterSerial;
use super::tokens::BaseUnits;
use super::wallet::Wallet;

/// A SHA-256 hash.
pub type Hash32 = [u8; 32];

const LEAF_PREFIX: [u8; 1] = [0];
const NODE_PREFIX: [u8; 1] = [1];

/// Everything that a mint transaction promises about one reading.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'a> {
    pub reading_id: Uuid,
    /// Random per reading: without it, the few values of an hour at home could be guessed from the hash.
    pub salt: [u8; 16],
    pub interval: Interval,
    pub base_units: BaseUnits,
    pub wallet: Wallet,
    pub serial: &'a MeterSerial,
    pub kwh: Kwh,
}

impl Leaf<'_> {
    pub fn hash(&self) -> Hash32 {
        let mut hasher = Sha256::new();
        hasher.update(LEAF_PREFIX);
        hasher.update(self.reading_id.as_bytes());
        hasher.update(self.salt);
        hasher.update(self.interval.start_micros().to_be_bytes());
        hasher.update(self.interval.end_micros().to_be_bytes());
        hasher.update(self.base_units.get().to_be_bytes());
        hasher.update(self.wallet.bytes());
        update_with_length(&mut hasher, self.serial.as_str());
        update_with_length(&mut hasher, &self.kwh.to_string());
        hasher.finalize().into()
    }
}

/// A serial has at most 64 characters and an amount at most 30: both lengths fit two bytes.
fn update_with_length(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u16).to_be_bytes());
    hasher.update(text.as_bytes());
}

fn node(left: Hash32, right: Hash32) -> Hash32 {
    let mut hasher = Sha256::new();
    hasher.update(NODE_PREFIX);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

/// How many leaves go to the left: the largest power of two below `leaves`, which is at least 2.
fn split(leaves: usize) -> usize {
    leaves.next_power_of_two() / 2
}

/// The root over leaf hashes that are already ordered by reading id. Of no leaves it is the hash of nothing, as in the RFC.
pub fn root(leaf_hashes: &[Hash32]) -> Hash32 {
    match leaf_hashes {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        leaves => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node(root(left), root(right))
        }
    }
}

/// Orders the leaves by reading id, and gives their root.
pub fn root_of(leaves: &mut [(Uuid, Hash32)]) -> Hash32 {
    leaves.sort_unstable_by_key(|(reading_id, _)| *reading_id);
    let hashes: Vec<Hash32> = leaves.iter().map(|(_, hash)| *hash).collect();
    root(&hashes)
}

/// What the leaf at `index` must be hashed with on its way to the root, from the leaf upwards. `None` when there is no such leaf.
pub fn audit_path(leaf_hashes: &[Hash32], index: usize) -> Option<Vec<Hash32>> {
    if index >= leaf_hashes.len() {
        return None;
    }
    let mut path = Vec::new();
    let (mut leaves, mut index) = (leaf_hashes, index);
    while leaves.len() > 1 {
        let at = split(leaves.len());
        let (left, right) = leaves.split_at(at);
        if index < at {
            path.push(root(right));
            leaves = left;
        } else {
            path.push(root(left));
            leaves = right;
            index -= at;
        }
    }
    path.reverse();
    Some(path)
}

/// Whether this path leads from the leaf at `index` of a tree of `size` leaves to this root (RFC 9162, section 2.1.3.2).
/// A path that is too short or too long does not.
pub fn verify_path(
    leaf_hash: Hash32,
    index: usize,
    size: usize,
    path: &[Hash32],
    root: Hash32,
) -> bool {
    if index >= size {
        return false;
    }
    let mut hash = leaf_hash;
    // Where we are, and where the last node is, on the level that the next step starts from.
    let (mut here, mut last) = (index, size - 1);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if here % 2 == 1 || here == last {
            hash = node(*sibling, hash);
            // The last node of a level rises without a sibling until it has one to its left.
            while here.is_multiple_of(2) && here != 0 {
                here /= 2;
                last /= 2;
            }
        } else {
            hash = node(hash, *sibling);
        }
        here /= 2;
        last /= 2;
    }
    last == 0 && hash == root
}
