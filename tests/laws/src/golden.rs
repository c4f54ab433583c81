//! Golden folders: input beside the texts that follow from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The cases below `tests/golden` of a crate, in the order of their names.
///
/// # Panics
/// When there is none.
#[allow(clippy::panic, reason = "a test's set-up fails by panicking")]
pub fn cases(crate_folder: &str) -> Vec<PathBuf> {
    let root = Path::new(crate_folder).join("tests/golden");
    let entries = std::fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort();
    assert!(!found.is_empty(), "{} holds no case", root.display());
    found
}

/// Compares texts, by their names in the case's folder, with what is expected there; with BLESS set, writes them.
/// What differs or is missing.
///
/// # Panics
/// When nothing can be written.
#[allow(clippy::panic, reason = "a test's set-up fails by panicking")]
pub fn differences(case: &Path, texts: BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, text) in texts {
        let path = case.join(name);
        if std::env::var_os("BLESS").is_some() {
            let folder = path.parent().unwrap_or(case);
            let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, &text));
            written.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        match std::fs::read_to_string(&path) {
            Ok(expected) if expected == text => {}
            Ok(_) => wrong.push(format!("{} differs", path.display())),
            Err(_) => wrong.push(format!("{} is not there", path.display())),
        }
    }
    wrong
}
