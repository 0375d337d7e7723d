//! The installed PostgreSQL server programs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use super::error::EmbeddedError;

/// The oldest version that the schema is tested with.
const MAJOR_MIN: u32 = 15;
/// The directories in which packages install servers, one per version: Debian and Ubuntu, then the PostgreSQL project's own RPMs.
const PACKAGE_DIRS: [(&str, &str, &str); 2] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
];

/// A directory with `postgres` and `initdb` of one version.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    dir: PathBuf,
    major: u32,
}

impl Binaries {
    /// The programs for the cluster in `data`: those of its version, or the newest for one that does not exist yet.
    pub(super) fn find(data: &Path) -> Result<Binaries, EmbeddedError> {
        let installed = candidate_dirs().into_iter().filter_map(Binaries::inspect);
        let kept = fs::read_to_string(data.join("PG_VERSION"))
            .ok()
            .and_then(|version| version.trim().parse().ok());
        match kept {
            Some(major) => installed
                .into_iter()
                .find(|binaries| binaries.major == major)
                .ok_or_else(|| EmbeddedError::NoServerOfVersion {
                    path: data.to_owned(),
                    major,
                }),
            None => installed
                .filter(|binaries| binaries.major >= MAJOR_MIN)
                .max_by_key(|binaries| binaries.major)
                .ok_or(EmbeddedError::NoServer {
                    at_least: MAJOR_MIN,
                }),
        }
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.dir.join("initdb")
    }

    pub(super) fn pg_ctl(&self) -> PathBuf {
        self.dir.join("pg_ctl")
    }

    fn inspect(dir: PathBuf) -> Option<Binaries> {
        let initdb = dir.join("initdb");
        if !initdb.is_file() {
            return None;
        }
        let output = Command::new(dir.join("postgres")).arg("--version").output();
        let major = major_of(&String::from_utf8_lossy(&output.ok()?.stdout))?;
        Some(Binaries { dir, major })
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is 15.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_once(") ")?.1;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Every directory that may hold a server, those of `PATH` first. Symbolic links are resolved, because the programs locate
/// their libraries relative to the real directory.
fn candidate_dirs() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path)
        .filter_map(|dir| fs::canonicalize(dir.join("postgres")).ok())
        .filter_map(|program| program.parent().map(Path::to_owned));
    let packaged = PACKAGE_DIRS.into_iter().flat_map(|(parent, prefix, bin)| {
        fs::read_dir(parent)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(move |entry| entry.path().join(bin))
    });
    let mut dirs: Vec<PathBuf> = Vec::new();
    for dir in in_path.chain(packaged) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    dirs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_the_version_text() {
        assert_eq!(
            major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major_of("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(major_of("something else"), None);
    }

    #[test]
    fn a_database_of_a_version_that_is_not_installed_is_refused() {
        let data = env::temp_dir().join(format!("gridtokenx-version-{}", std::process::id()));
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("PG_VERSION"), "9\n").unwrap();
        let refused = Binaries::find(&data).unwrap_err().to_string();
        assert!(
            refused.contains("made by PostgreSQL 9, which is not installed"),
            "{refused}"
        );
        fs::remove_dir_all(data).unwrap();
    }
}
