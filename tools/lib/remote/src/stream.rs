//! Files of any size: sent and fetched in pieces, so that neither side holds more than some of them in memory.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::command::{Command, Output};
use crate::error::Error;
use crate::host::Host;
use crate::scripts;

/// How long nothing may move before the other side counts as gone.
const STALLED: Duration = Duration::from_secs(120);

/// What a file holds, told without holding it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256, in lower-case hexadecimal digits.
    pub sha256: String,
}

impl Content {
    /// Reads to the end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(from: &mut dyn Read) -> io::Result<Content> {
        let mut meter = Meter::default();
        let mut piece = vec![0; 64 << 10];
        loop {
            match from.read(&mut piece)? {
                0 => return Ok(meter.content()),
                length => meter.update(piece.get(..length).unwrap_or_default()),
            }
        }
    }
}

/// Tells what is read or written while it passes.
#[derive(Default)]
pub struct Meter {
    size: u64,
    hash: Sha256,
}

impl Meter {
    /// Takes the next bytes into account.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.hash.update(bytes);
    }

    /// What all of it was.
    pub fn content(self) -> Content {
        let sha256 = self.hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Content { size: self.size, sha256 }
    }
}

impl Host {
    /// Sends a file of root's with this mode, in place atomically once its digest is right; false when the same file
    /// was there already, of which nothing is sent.
    ///
    /// `from` is read piece by piece, on the caller's thread. Whatever breaks off, the path is as it was, and another
    /// attempt begins anew.
    ///
    /// # Errors
    /// `Here` when `from` cannot be read, `Damaged` when it is not what `content` says, `TimedOut` when nothing moves for
    /// two minutes, `Directory`, and those of [`Host::ok`].
    pub async fn send(
        &self,
        path: &str,
        mode: u32,
        content: &Content,
        from: &mut (dyn Read + Send),
    ) -> Result<bool, Error> {
        self.file_path(path)?;
        let command = Command::sh(scripts::RECEIVE)
            .arg(path)
            .arg(format!("{:o}", mode & 0o7777))
            .arg(content.size.to_string())
            .arg(&content.sha256)
            .sudo()
            .title(format!("send {path}"))
            .timeout(STALLED);
        let output = self.stream(&command, from, &mut |_| Ok(())).await?;
        match output.exit {
            0 => Ok(true),
            scripts::SAME => Ok(false),
            scripts::DIRECTORY => Err(self.directory(path)),
            scripts::CUT_SHORT => Err(self.damaged(path)),
            _ => Err(self.bad_exit(&command, &output)),
        }
    }

    /// Fetches a file as root, piece by piece, into `to`, which is called on the caller's thread; false when there is
    /// none.
    ///
    /// What `to` was given counts only once this has returned: a caller puts it aside until then.
    ///
    /// # Errors
    /// `Here` when `to` fails, `Damaged` when what came is not what `content` says, `TimedOut` when nothing moves for two
    /// minutes, `Directory`, and those of [`Host::ok`].
    pub async fn fetch(
        &self,
        path: &str,
        content: &Content,
        to: &mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
    ) -> Result<bool, Error> {
        self.file_path(path)?;
        let command =
            Command::sh(scripts::PRINT).arg(path).sudo().title(format!("fetch {path}")).timeout(STALLED);
        let mut meter = Meter::default();
        let mut sink = |bytes: &[u8]| {
            meter.update(bytes);
            if meter.size > content.size {
                return Err(self.damaged(path));
            }
            to(bytes).map_err(|source| self.here(format!("keep {path}"), source))
        };
        let output = self.stream(&command, &mut io::empty(), &mut sink).await?;
        match output.exit {
            0 if meter.content() == *content => Ok(true),
            0 => Err(self.damaged(path)),
            scripts::ABSENT => Ok(false),
            scripts::DIRECTORY => Err(self.directory(path)),
            _ => Err(self.bad_exit(&command, &output)),
        }
    }

    /// Runs a command that may take as long as bytes move; its limit is on the pause between two of them.
    async fn stream(
        &self,
        command: &Command,
        from: &mut (dyn Read + Send),
        to: &mut (dyn FnMut(&[u8]) -> Result<(), Error> + Send),
    ) -> Result<Output, Error> {
        let moved = AtomicU64::new(0);
        let mut from = Counted { from, moved: &moved };
        let mut to = |bytes: &[u8]| {
            moved.fetch_add(1, Ordering::Relaxed);
            to(bytes)
        };
        let still = async {
            let mut before = u64::MAX;
            loop {
                let now = moved.load(Ordering::Relaxed);
                if now == before {
                    return;
                }
                before = now;
                tokio::time::sleep(command.limit()).await;
            }
        };
        self.exchange(command, &mut from, &mut to, still).await
    }

    pub(crate) fn here(&self, doing: String, source: io::Error) -> Error {
        Error::Here { host: self.name().to_owned(), doing, source }
    }

    fn damaged(&self, path: &str) -> Error {
        Error::Damaged { host: self.name().to_owned(), path: path.to_owned() }
    }
}

struct Counted<'a> {
    from: &'a mut (dyn Read + Send),
    moved: &'a AtomicU64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.moved.fetch_add(1, Ordering::Relaxed);
        self.from.read(buffer)
    }
}
