//! Dependencies point down the list of rooms, and never in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::crates::{Import, crates, room_of};
use super::source_text::source_dir;

/// The rooms in the order of the table of `src/lib.rs`, the topmost first.
fn rooms() -> Vec<String> {
    let page = std::fs::read_to_string(source_dir().join("lib.rs")).unwrap();
    page.lines()
        .filter_map(|line| line.strip_prefix("//! | [`"))
        .filter_map(|row| Some(row.split_once("`]")?.0.to_owned()))
        .collect()
}

/// Whether imports lead from one file to the other.
fn reaches(below: &BTreeMap<&str, BTreeSet<&str>>, from: &str, to: &str) -> bool {
    let (mut waiting, mut seen) = (vec![from], BTreeSet::new());
    while let Some(file) = waiting.pop() {
        if file == to {
            return true;
        }
        if seen.insert(file) {
            waiting.extend(below.get(file).into_iter().flatten());
        }
    }
    false
}

#[test]
fn rooms_import_only_what_stands_below_them_in_the_list() {
    let rooms = rooms();
    let floor = |room: &str| rooms.iter().position(|listed| listed == room);
    let mut unlisted: BTreeSet<String> = BTreeSet::new();
    let mut upward = String::new();
    let library = &crates()[0];
    for module in library.modules.values() {
        let room = room_of(&module.file);
        if floor(room).is_none() && room != "lib" {
            unlisted.insert(room.to_owned());
        }
    }
    assert!(
        unlisted.is_empty(),
        "rooms that the table in src/lib.rs lacks: {unlisted:?}"
    );
    for import in library.imports() {
        let (from, to) = (room_of(&import.from), room_of(&import.to));
        if from != to && floor(from) > floor(to) {
            writeln!(upward, "src/{} imports {}", import.from, import.path).unwrap();
        }
    }
    assert!(upward.is_empty(), "imports against the list:\n{upward}");
}

#[test]
fn no_two_files_import_each_other_in_a_circle() {
    let mut circles = String::new();
    for read in crates() {
        let imports = read.imports();
        let mut below: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for import in &imports {
            below.entry(&import.from).or_default().insert(&import.to);
        }
        for import in &imports {
            if reaches(&below, &import.to, &import.from) {
                let Import { from, to, path } = import;
                writeln!(circles, "src/{from} imports {path} of src/{to}").unwrap();
            }
        }
    }
    assert!(circles.is_empty(), "files in a circle:\n{circles}");
}
