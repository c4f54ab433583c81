//! Whole files on a host: read, put in place atomically, removed.

use std::fmt;

use crate::command::Command;
use crate::error::Error;
use crate::host::Host;
use crate::scripts;

/// How much a file may hold, in bytes.
const LIMIT: usize = 16 << 20;

/// A file as it is to be on a host.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// The absolute path.
    pub path: String,
    /// All of the content.
    pub content: Vec<u8>,
    /// The mode, such as `0o644`.
    pub mode: u32,
    /// The owning user, by name or number.
    pub owner: String,
    /// The owning group, by name or number.
    pub group: String,
}

impl RemoteFile {
    /// A file of root's that all can read.
    pub fn new(path: impl Into<String>, content: impl Into<Vec<u8>>) -> RemoteFile {
        RemoteFile {
            path: path.into(),
            content: content.into(),
            mode: 0o644,
            owner: "root".to_owned(),
            group: "root".to_owned(),
        }
    }

    /// The same file with another mode.
    pub fn mode(mut self, mode: u32) -> RemoteFile {
        self.mode = mode;
        self
    }

    /// The same file with another owner and group.
    pub fn owner(mut self, owner: impl Into<String>, group: impl Into<String>) -> RemoteFile {
        self.owner = owner.into();
        self.group = group.into();
        self
    }
}

// The content may be a secret.
impl fmt::Debug for RemoteFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RemoteFile { path, content, mode, owner, group } = self;
        write!(f, "RemoteFile({path}, {} bytes, {mode:04o}, {owner}:{group})", content.len())
    }
}

impl Host {
    /// Reads a file as root; `None` when there is none.
    ///
    /// # Errors
    /// `TooLarge` above 16 MiB, `Directory`, and those of [`Host::ok`].
    pub async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        self.file_path(path)?;
        let command = Command::sh(scripts::READ)
            .args([path.to_owned(), (LIMIT + 1).to_string()])
            .sudo()
            .title(format!("read {path}"));
        let output = self.run(&command).await?;
        match output.exit {
            0 if output.stdout.len() > LIMIT => Err(self.too_large(path)),
            0 => Ok(Some(output.stdout)),
            scripts::ABSENT => Ok(None),
            scripts::DIRECTORY => Err(self.directory(path)),
            _ => Err(self.bad_exit(&command, &output)),
        }
    }

    /// Puts a file in place atomically, with its owner and mode; false when all was right already.
    ///
    /// Nothing is written in that case. Missing parent directories are made; a symbolic link at the path is
    /// replaced, not followed.
    ///
    /// # Errors
    /// `TooLarge` above 16 MiB, `Directory`, and those of [`Host::ok`].
    pub async fn write(&self, file: &RemoteFile) -> Result<bool, Error> {
        self.file_path(&file.path)?;
        if file.content.len() > LIMIT {
            return Err(self.too_large(&file.path));
        }
        let title = format!("write {}", file.path);
        let command = Command::sh(scripts::WRITE)
            .arg(&file.path)
            .arg(format!("{:o}", file.mode & 0o7777))
            .args([&file.owner, &file.group])
            .arg(file.content.len().to_string())
            .stdin(file.content.clone())
            .sudo()
            .title(&title);
        let output = self.run(&command).await?;
        match output.exit {
            0 => Ok(true),
            scripts::SAME => Ok(false),
            scripts::DIRECTORY => Err(self.directory(&file.path)),
            scripts::CUT_SHORT => Err(self.lost(title)),
            _ => Err(self.bad_exit(&command, &output)),
        }
    }

    /// Removes a file or a symbolic link; false when there was none.
    ///
    /// # Errors
    /// `Directory`, and those of [`Host::ok`].
    pub async fn remove(&self, path: &str) -> Result<bool, Error> {
        self.file_path(path)?;
        let command = Command::sh(scripts::REMOVE).arg(path).sudo().title(format!("remove {path}"));
        let output = self.run(&command).await?;
        match output.exit {
            0 => Ok(true),
            scripts::ABSENT => Ok(false),
            scripts::DIRECTORY => Err(self.directory(path)),
            _ => Err(self.bad_exit(&command, &output)),
        }
    }

    pub(crate) fn file_path(&self, path: &str) -> Result<(), Error> {
        if path.starts_with('/') && !path.ends_with('/') {
            return Ok(());
        }
        let why = format!("{path:?} is no absolute path of a file");
        Err(Error::Unsendable { host: self.name().to_owned(), why })
    }

    fn too_large(&self, path: &str) -> Error {
        Error::TooLarge { host: self.name().to_owned(), what: path.to_owned(), limit: LIMIT as u64 }
    }

    pub(crate) fn directory(&self, path: &str) -> Error {
        Error::Directory { host: self.name().to_owned(), path: path.to_owned() }
    }
}
