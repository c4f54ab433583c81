//! Writing results: one whole document or nothing, files atomically.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::Failure;

/// Where results go.
pub(crate) struct Output {
    pub(crate) stdout: Box<dyn Write + Send>,
    pub(crate) file: Option<std::path::PathBuf>,
}

impl Output {
    /// Writes everything at once. A reader that went away is a quiet end.
    pub(crate) fn write(&mut self, content: &[u8]) -> Result<(), Failure> {
        if let Some(path) = &self.file {
            return write_file(path, content, 0o644).map(drop);
        }
        match self.stdout.write_all(content).and_then(|()| self.stdout.flush()) {
            Err(e) if e.kind() != ErrorKind::BrokenPipe => {
                Err(Failure::precondition("cannot write to standard output").because(e.to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// Writes a file of ours: temporary file in the same folder, synced, renamed. False when it was the same already.
pub(crate) fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<bool, Failure> {
    let cannot = |e: std::io::Error| {
        Failure::precondition(format!("cannot write {}", path.display())).because(e.to_string())
    };
    let same_mode = |m: &std::fs::Metadata| m.mode() & 0o7777 == mode;
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && same_mode(&m))
        && std::fs::read(path).is_ok_and(|old| old == content)
    {
        return Ok(false);
    }
    // A device such as /dev/null or /dev/stdout is written to, never replaced.
    if std::fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        std::fs::OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut f| f.write_all(content))
            .map_err(cannot)?;
        return Ok(true);
    }
    // A link stays a link: what it points to is replaced.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(cannot)?;
    let mut temporary = tempfile::Builder::new()
        .prefix(".kubeline-")
        .permissions(std::fs::Permissions::from_mode(mode))
        .tempfile_in(folder)
        .map_err(cannot)?;
    temporary.write_all(content).map_err(cannot)?;
    // The mode that is asked for, whatever the umask took away.
    temporary.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).map_err(cannot)?;
    temporary.as_file().sync_all().map_err(cannot)?;
    temporary.persist(&target).map_err(|e| cannot(e.error))?;
    Ok(true)
}
