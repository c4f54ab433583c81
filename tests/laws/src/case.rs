//! One experiment: a world, a document for it, and what may not leak.

use std::any::Any;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use lab::{Fault, Faults, Journal};
use regex::Regex;
use serde_json::{Value, json};
use stage::Exit;

use crate::{Broken, Said};

/// A world and a document for it.
pub struct Case {
    /// What the world was asked.
    pub journal: Journal,
    /// Its faults.
    pub faults: Faults,
    /// The working directory of the tool.
    pub dir: PathBuf,
    /// The document, without the section of the tool.
    pub document: String,
    /// Words that no stream, argument list or readable file may hold.
    pub secrets: Vec<String>,
    /// What differs from world to world (addresses, keys), and what stands for it in a comparison.
    pub same: Vec<(String, String)>,
    /// What the world looks like, as text: all that a run leaves in it.
    pub picture: Box<dyn Fn() -> String + Send + Sync>,
    /// What lives as long as the case: the lab.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// A fault, and how a run that meets it may end.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// What it is called in a report.
    pub name: &'static str,
    /// What happens, and where.
    pub fault: Fault,
    /// The exits that are right.
    pub exits: Vec<Exit>,
}

const FOREIGN: &str = "aa-foreign";

impl Case {
    /// The document with sections of others in its status.
    pub fn with_foreign_status(&self) -> String {
        let mut value: Value = serde_json::from_str(&self.document).unwrap_or_default();
        value["status"][FOREIGN] = json!({ "z": [1, { "y": null }], "a": "kept as it is" });
        value["status"]["zz-foreign"] = json!("kept too");
        format!("{value:#}\n")
    }

    pub(crate) fn foreign_status_survived(&self, said: &Said) -> Result<(), Broken> {
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let (before, after) = (read(&self.with_foreign_status()), read(&said.stdout));
        for key in [FOREIGN, "zz-foreign"] {
            if !same_text(&before["status"][key], &after["status"][key]) {
                return Err(Broken(format!("law 4: status[\"{key}\"] did not survive\n{said}")));
            }
        }
        if !same_text(&before["spec"], &after["spec"]) {
            return Err(Broken(format!("law 4: spec was changed\n{said}")));
        }
        Ok(())
    }

    /// A text with what differs between worlds replaced; digests too, for they follow from it, and then what
    /// chance gives each machine that a run makes.
    pub fn comparable(&self, text: &str) -> String {
        let text = self.same.iter().fold(text.to_owned(), |text, (what, stands)| text.replace(what, stands));
        digests(&chance(&text))
    }

    /// What a run changed since the journal was this long and the world looked so. A world that keeps no journal, such
    /// as real machines, is judged by its looks alone; one that keeps one, by that: its own controllers may go on.
    pub(crate) fn changed_since(&self, mark: usize, looks: &str) -> Option<String> {
        if self.journal.is_empty() {
            let now = (self.picture)();
            return (now != looks).then(|| difference(looks, &now));
        }
        let changed = self.journal.changing_since(mark);
        (!changed.is_empty()).then(|| format!("{changed:#?}"))
    }

    pub(crate) fn agrees(
        &self,
        law: u8,
        what: &str,
        said: &Said,
        document: &str,
        picture: &str,
    ) -> Result<(), Broken> {
        for (name, is, due) in [("document", &said.stdout, document), ("world", &(self.picture)(), picture)] {
            let is = self.comparable(is);
            if is != due {
                let differs = difference(due, &is);
                return Err(Broken(format!("law {law}: {what}: another {name}:\n{differs}\n{said}")));
            }
        }
        Ok(())
    }

    pub(crate) fn tells_no_secret(&self, said: &Said) -> Result<(), Broken> {
        for secret in &self.secrets {
            for (name, text) in [("stdout", &said.stdout), ("stderr", &said.stderr), ("events", &said.events)]
            {
                if text.contains(secret.as_str()) {
                    return Err(Broken(format!("law 7: a secret stands on {name}")));
                }
            }
            let told = self
                .journal
                .since(0)
                .into_iter()
                .find(|e| e.argv.iter().any(|a| a.contains(secret.as_str())));
            if let Some(entry) = told {
                return Err(Broken(format!("law 7: a secret stands in the arguments of {}", entry.request)));
            }
        }
        readable(&self.dir, &self.secrets)
    }

    pub(crate) fn nothing_unknown(&self, said: &Said) -> Result<(), Broken> {
        let unknown = self.journal.unknown();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Broken(format!("the lab was asked what it does not know: {unknown:#?}\n{said}")))
    }
}

/// The same as text, so that the order of keys counts.
fn same_text(a: &Value, b: &Value) -> bool {
    let (a, b) = (a.to_string(), b.to_string());
    a == b
}

/// A secret in a file that others than its owner can read.
fn readable(dir: &Path, secrets: &[String]) -> Result<(), Broken> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    for path in entries.flatten().map(|e| e.path()) {
        if path.is_dir() {
            readable(&path, secrets)?;
        } else if path.metadata().is_ok_and(|m| m.mode() & 0o077 != 0) {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
            if secrets.iter().any(|s| text.contains(s.as_str())) {
                return Err(Broken(format!("law 7: others can read a secret in {}", path.display())));
            }
        }
    }
    Ok(())
}

/// Replaces SSH host keys that no case knows by name, and MAC addresses of Proxmox's own range.
fn chance(text: &str) -> String {
    static KEY: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new("ssh-ed25519 AAAA[A-Za-z0-9+/]{60,}={0,2}").ok());
    static MAC: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("BC:24:11(:[0-9A-F]{2}){3}").ok());
    let replaced = |text: &str, what: &Option<Regex>, stands: &str| match what {
        Some(what) => what.replace_all(text, stands).into_owned(),
        None => text.to_owned(),
    };
    replaced(&replaced(text, &KEY, "<host key>"), &MAC, "<mac>")
}

/// Replaces words of 16 and more hexadecimal digits.
fn digests(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        let digest = word.len() >= 16 && word.chars().all(|c| c.is_ascii_hexdigit());
        out.push_str(if digest { "<digest>" } else { &word });
        word.clear();
        out.push(c);
    }
    out.pop();
    out
}

/// The lines that one text has and the other has not.
fn difference(due: &str, is: &str) -> String {
    let lacks = due.lines().filter(|l| !is.lines().any(|i| i == *l)).map(|l| format!("- {l}\n"));
    let has = is.lines().filter(|l| !due.lines().any(|d| d == *l)).map(|l| format!("+ {l}\n"));
    let text: String = lacks.chain(has).take(40).collect();
    if text.is_empty() { "the same lines in another order or number".to_owned() } else { text }
}
