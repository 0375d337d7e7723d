//! The Merkle tree over the readings of a mint transaction: one root commits to all of them, and each can be proven without
//! disclosing the others.
//!
//! The shape is that of RFC 6962, section 2.1: a tree of n leaves splits at the largest power of two below n, and the first byte
//! of the hashed data distinguishes a leaf (0) from a node (1), so that a node cannot pass as a reading. Leaves are ordered by
//! reading id. `docs/receipts.md` defines the bytes, with test vectors.

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

/// Everything that a mint transaction commits to about one reading.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'a> {
    pub reading_id: Uuid,
    /// Random per reading: without it, the few plausible values of a household's hour could be guessed from the hash.
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

/// A serial has at most 256 bytes and an amount at most 30: both lengths fit two bytes.
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

/// The number of leaves on the left: the largest power of two below `leaves`, which is at least 2.
fn split(leaves: usize) -> usize {
    leaves.next_power_of_two() / 2
}

/// The root over leaf hashes that are already ordered by reading id. Without leaves it is the hash of the empty string, as in the
/// RFC.
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

/// Orders the leaves by reading id and returns their root.
pub fn root_of(leaves: &mut [(Uuid, Hash32)]) -> Hash32 {
    leaves.sort_unstable_by_key(|(reading_id, _)| *reading_id);
    let hashes: Vec<Hash32> = leaves.iter().map(|(_, hash)| *hash).collect();
    root(&hashes)
}

/// The hashes with which the leaf at `index` is combined on the path to the root, from the leaf upwards. `None` when there is no
/// such leaf.
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

/// Whether this path leads from the leaf at `index` of a tree of `size` leaves to this root (RFC 9162, section 2.1.3.2). A path
/// that is too short or too long does not.
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
    // The positions of the current node and of the last node, on the level at which the next step starts.
    let (mut here, mut last) = (index, size - 1);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if here % 2 == 1 || here == last {
            hash = node(*sibling, hash);
            // The last node of a level moves up without a sibling until it has one on its left.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::domain::{Memo, MintNumber, parse_timestamp};

    /// The vectors of `docs/receipts.md`, which an independent program computed.
    #[derive(Deserialize)]
    struct Vectors {
        readings: Vec<ReadingVector>,
        trees: Vec<TreeVector>,
        memos: Vec<MemoVector>,
    }

    #[derive(Deserialize)]
    struct ReadingVector {
        reading_id: Uuid,
        salt: String,
        interval_start: String,
        reading_timestamp: String,
        base_units: BaseUnits,
        wallet_address: String,
        meter_id: String,
        kwh_amount: Kwh,
        leaf: String,
    }

    #[derive(Deserialize)]
    struct TreeVector {
        size: usize,
        root: String,
        paths: Vec<Vec<String>>,
    }

    #[derive(Deserialize)]
    struct MemoVector {
        number: u64,
        root: String,
        memo: String,
    }

    impl ReadingVector {
        fn hash(&self) -> Hash32 {
            let start = parse_timestamp(&self.interval_start).unwrap();
            let end = parse_timestamp(&self.reading_timestamp).unwrap();
            Leaf {
                reading_id: self.reading_id,
                salt: bytes(&self.salt),
                interval: Interval::new(start, end).unwrap(),
                base_units: self.base_units,
                wallet: Wallet::parse(&self.wallet_address).unwrap(),
                serial: &MeterSerial::parse(&self.meter_id).unwrap(),
                kwh: self.kwh_amount,
            }
            .hash()
        }
    }

    fn vectors() -> Vectors {
        let page = include_str!("../../docs/receipts.md");
        let (_, block) = page.split_once("```json vectors\n").unwrap();
        let (json, _) = block.split_once("\n```").unwrap();
        serde_json::from_str(json).unwrap()
    }

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        assert_eq!(hex.len(), 2 * N);
        std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
    }

    #[test]
    fn leaves_are_those_of_the_page() {
        let readings = vectors().readings;
        assert_eq!(readings.len(), 8);
        for reading in readings {
            assert_eq!(
                reading.hash(),
                bytes(&reading.leaf),
                "{}",
                reading.reading_id
            );
        }
    }

    #[test]
    fn trees_and_paths_are_those_of_the_page() {
        let Vectors {
            readings, trees, ..
        } = vectors();
        assert_eq!(
            trees.iter().map(|tree| tree.size).collect::<Vec<_>>(),
            [1, 2, 3, 5, 8]
        );
        for tree in trees {
            let mut leaves: Vec<_> = readings[..tree.size]
                .iter()
                .map(|reading| (reading.reading_id, reading.hash()))
                .collect();
            let root = root_of(&mut leaves);
            assert_eq!(root, bytes(&tree.root), "{} leaves", tree.size);
            let hashes: Vec<_> = leaves.into_iter().map(|(_, hash)| hash).collect();
            assert_eq!(tree.paths.len(), tree.size);
            for (index, expected) in tree.paths.iter().enumerate() {
                let path = audit_path(&hashes, index).unwrap();
                let expected: Vec<Hash32> = expected.iter().map(|step| bytes(step)).collect();
                assert_eq!(path, expected, "leaf {index} of {}", tree.size);
                assert!(verify_path(hashes[index], index, tree.size, &path, root));
            }
        }
    }

    #[test]
    fn memos_are_those_of_the_page() {
        let memos = vectors().memos;
        assert!(memos.len() >= 5);
        for vector in memos {
            let number = MintNumber::try_from(vector.number).unwrap();
            let memo = Memo::new(number, bytes(&vector.root));
            assert_eq!(memo.encode(), vector.memo);
            assert_eq!(Memo::parse(&vector.memo), Some(memo));
        }
    }

    #[test]
    fn every_field_changes_the_leaf() {
        let serial = MeterSerial::parse("M1").unwrap();
        let other_serial = MeterSerial::parse("M11").unwrap();
        let interval = |start: &str, end: &str| {
            Interval::new(
                parse_timestamp(start).unwrap(),
                parse_timestamp(end).unwrap(),
            )
            .unwrap()
        };
        let leaf = Leaf {
            reading_id: Uuid::from_u128(1),
            salt: [2; 16],
            interval: interval("2026-03-01T12:00:00Z", "2026-03-01T12:30:00Z"),
            base_units: BaseUnits::new(3),
            wallet: Wallet::from_stored([4; 32]),
            serial: &serial,
            kwh: Kwh::parse("15").unwrap(),
        };
        let others = [
            Leaf {
                reading_id: Uuid::from_u128(2),
                ..leaf
            },
            Leaf {
                salt: [3; 16],
                ..leaf
            },
            Leaf {
                interval: interval("2026-03-01T12:00:01Z", "2026-03-01T12:30:00Z"),
                ..leaf
            },
            Leaf {
                interval: interval("2026-03-01T12:00:00Z", "2026-03-01T12:30:01Z"),
                ..leaf
            },
            Leaf {
                base_units: BaseUnits::new(4),
                ..leaf
            },
            Leaf {
                wallet: Wallet::from_stored([5; 32]),
                ..leaf
            },
            Leaf {
                serial: &other_serial,
                ..leaf
            },
            Leaf {
                kwh: Kwh::parse("5").unwrap(),
                ..leaf
            },
            // The same characters as `leaf` in a row, split at another place.
            Leaf {
                serial: &other_serial,
                kwh: Kwh::parse("5").unwrap(),
                ..leaf
            },
        ];
        let mut hashes: Vec<_> = others.iter().map(Leaf::hash).collect();
        hashes.push(leaf.hash());
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), others.len() + 1);
    }

    #[test]
    fn the_root_of_no_leaves_is_the_hash_of_the_empty_string() {
        assert_eq!(
            root(&[]),
            bytes("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        );
        assert_eq!(audit_path(&[], 0), None);
    }

    proptest! {
        #[test]
        fn every_leaf_proves_itself_and_no_other(
            hashes in prop::collection::vec(any::<Hash32>(), 1..70),
            chosen in any::<prop::sample::Index>(),
            other in any::<prop::sample::Index>(),
        ) {
            let size = hashes.len();
            let (index, other) = (chosen.index(size), other.index(size));
            let root = root(&hashes);
            let path = audit_path(&hashes, index).unwrap();
            prop_assert!(verify_path(hashes[index], index, size, &path, root));
            prop_assert!(path.len() <= size.next_power_of_two().ilog2() as usize);
            if other != index {
                prop_assert!(!verify_path(hashes[other], index, size, &path, root));
                prop_assert!(!verify_path(hashes[index], other, size, &path, root));
            }
            prop_assert!(!verify_path(hashes[index], size, size, &path, root));
            prop_assert!(!verify_path(hashes[index], index, size, &path, [0; 32]));
            let longer = [&path[..], &[[0; 32]]].concat();
            prop_assert!(!verify_path(hashes[index], index, size, &longer, root));
            if let Some((_, shorter)) = path.split_last() {
                prop_assert!(!verify_path(hashes[index], index, size, shorter, root));
                let mut forged = path.clone();
                forged[0][0] ^= 1;
                prop_assert!(!verify_path(hashes[index], index, size, &forged, root));
            }
        }

        #[test]
        fn the_order_of_arrival_does_not_matter(
            ids in prop::collection::btree_set(any::<u128>(), 1..20),
            seed in any::<u64>(),
        ) {
            let ordered: Vec<(Uuid, Hash32)> = ids
                .iter()
                .map(|id| (Uuid::from_u128(*id), [*id as u8; 32]))
                .collect();
            let hashes: Vec<Hash32> = ordered.iter().map(|(_, hash)| *hash).collect();
            let mut shuffled = ordered;
            shuffled.sort_by_key(|(id, _)| (id.as_u128() as u64).wrapping_mul(seed | 1));
            prop_assert_eq!(root_of(&mut shuffled), root(&hashes));
        }
    }
}
