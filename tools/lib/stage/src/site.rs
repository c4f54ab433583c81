//! The operator's machine: its files, and secrets read only where nobody else can read them.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cluster_doc::FilePath;

use crate::edges::Env;
use crate::{Exit, Failure};

/// Where the tool runs.
#[derive(Clone)]
pub struct Site {
    working_dir: PathBuf,
    env: Env,
}

impl Site {
    /// A site with this working directory and environment.
    pub fn new(working_dir: PathBuf, env: Env) -> Site {
        Site { working_dir, env }
    }

    /// An environment variable; empty counts as not set.
    pub fn env(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|v| !v.is_empty())
    }

    /// A document's path, absolute.
    pub fn path(&self, path: &FilePath) -> PathBuf {
        self.working_dir.join(path.expand(self.env("HOME").as_deref()))
    }

    /// A path from the command line, absolute.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        self.working_dir.join(path)
    }

    /// Reads a secret, without white space at its ends.
    ///
    /// # Errors
    /// Exit 4 when it is missing, empty, larger than 64 KiB, or can be read by others.
    pub fn secret(&self, what: &str, path: &FilePath) -> Result<String, Failure> {
        let full = self.path(path);
        let doing = || format!("cannot read {what} from {path}");
        let wrong = |e: &std::io::Error| Failure::precondition(doing()).because(e.to_string());
        let mut file = std::fs::File::open(&full).map_err(|e| wrong(&e).hint(format!("ls -l {path}")))?;
        let meta = file.metadata().map_err(|e| wrong(&e))?;
        if meta.mode() & 0o077 != 0 {
            return Err(Failure::precondition(doing())
                .because(format!("others can read it (mode {:04o})", meta.mode() & 0o7777))
                .hint(format!("chmod 600 {path}")));
        }
        let mut text = String::new();
        file.by_ref().take(65_537).read_to_string(&mut text).map_err(|e| wrong(&e))?;
        match text.trim() {
            "" => Err(Failure::precondition(doing()).because("it is empty")),
            _ if text.len() > 65_536 => {
                Err(Failure::precondition(doing()).because("it is larger than 64 KiB"))
            }
            trimmed => Ok(trimmed.to_owned()),
        }
    }

    /// Reads a file that is no secret, such as a CA certificate.
    ///
    /// # Errors
    /// Exit 4 when it cannot be read.
    pub fn file(&self, what: &str, path: &FilePath) -> Result<Vec<u8>, Failure> {
        std::fs::read(self.path(path)).map_err(|e| {
            Failure::new(Exit::Precondition, format!("cannot read {what} from {path}")).because(e.to_string())
        })
    }
}
