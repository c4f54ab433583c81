//! A machine's private file system, in memory: directories, files, symbolic links, owners and modes.

use std::collections::BTreeMap;

/// What a path names.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A regular file with its content.
    File(Vec<u8>),
    /// A directory.
    Dir,
    /// A symbolic link with its target.
    Link(String),
}

/// An entry of the file system.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// File, directory or link.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// The owner's name.
    pub owner: String,
    /// The group's name.
    pub group: String,
}

/// Why an operation failed; `Display` is the C library's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// ENOENT.
    #[error("No such file or directory")]
    NotFound,
    /// EISDIR.
    #[error("Is a directory")]
    IsDir,
    /// ENOTDIR.
    #[error("Not a directory")]
    NotDir,
    /// EACCES.
    #[error("Permission denied")]
    Denied,
    /// EEXIST.
    #[error("File exists")]
    Exists,
    /// ENOTEMPTY.
    #[error("Directory not empty")]
    NotEmpty,
    /// ELOOP.
    #[error("Too many levels of symbolic links")]
    Loop,
}

/// The tree of one machine.
#[derive(Clone, Debug, Default)]
pub struct Fs {
    nodes: BTreeMap<String, Node>,
}

/// Makes a path absolute and plain: no `.`, `..`, doubled or trailing slashes.
pub fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The directory part of a normal path.
pub fn parent(path: &str) -> String {
    match path.rfind('/') {
        Some(0) | None => "/".into(),
        Some(at) => path[..at].into(),
    }
}

impl Fs {
    /// An empty tree with its root directory.
    pub fn new() -> Fs {
        let mut fs = Fs::default();
        fs.nodes.insert("/".into(), dir(0o755));
        fs
    }

    /// Follows symbolic links in all directories of the path, and in its last part when `last`.
    pub fn resolve(&self, path: &str, last: bool) -> Result<String, Error> {
        let mut path = normal(path);
        for _ in 0..40 {
            let mut at = 0;
            let mut again = None;
            while at < path.len() {
                let end = path[at + 1..].find('/').map_or(path.len(), |i| at + 1 + i);
                let is_last = end == path.len();
                if (!is_last || last)
                    && let Some(Node { kind: Kind::Link(to), .. }) = self.nodes.get(&path[..end])
                {
                    let base = if to.starts_with('/') {
                        to.clone()
                    } else {
                        format!("{}/{to}", parent(&path[..end]))
                    };
                    again = Some(normal(&format!("{base}{}", &path[end..])));
                    break;
                }
                at = end;
            }
            match again {
                Some(next) => path = next,
                None => return Ok(path),
            }
        }
        Err(Error::Loop)
    }

    /// The entry at a path, links followed.
    pub fn node(&self, path: &str) -> Result<&Node, Error> {
        let path = self.resolve(path, true)?;
        self.nodes.get(&path).ok_or(Error::NotFound)
    }

    /// The entry at a path, the last part not followed.
    pub fn link_node(&self, path: &str) -> Result<&Node, Error> {
        let path = self.resolve(path, false)?;
        self.nodes.get(&path).ok_or(Error::NotFound)
    }

    /// True when something is there, links followed.
    pub fn exists(&self, path: &str) -> bool {
        self.node(path).is_ok()
    }

    /// True for a directory.
    pub fn is_dir(&self, path: &str) -> bool {
        matches!(self.node(path), Ok(Node { kind: Kind::Dir, .. }))
    }

    /// A file's content.
    pub fn read(&self, path: &str) -> Result<&[u8], Error> {
        match &self.node(path)?.kind {
            Kind::File(content) => Ok(content),
            _ => Err(Error::IsDir),
        }
    }

    /// A file's content as text; empty when there is none.
    pub fn text(&self, path: &str) -> String {
        self.read(path).map(|c| String::from_utf8_lossy(c).into_owned()).unwrap_or_default()
    }

    /// Writes a file as root with mode 0644, keeping owner and mode of one that exists.
    pub fn write(&mut self, path: &str, content: impl Into<Vec<u8>>) -> Result<(), Error> {
        let path = self.resolve(path, true)?;
        self.parent_dir(&path)?;
        match self.nodes.get_mut(&path) {
            Some(Node { kind: Kind::Dir, .. }) => Err(Error::IsDir),
            Some(node) => {
                node.kind = Kind::File(content.into());
                Ok(())
            }
            None => {
                self.nodes.insert(path, file(content.into(), 0o644, "root", "root"));
                Ok(())
            }
        }
    }

    /// Puts a file in place whole, replacing what is there (a link too), and its missing directories.
    pub fn put(&mut self, path: &str, content: impl Into<Vec<u8>>, mode: u32, owner: &str, group: &str) {
        let path = self.resolve(path, false).unwrap_or_else(|_| normal(path));
        // A directory above that cannot be made is one that a test set up wrongly; the file then lands anyway.
        let _ = self.mkdir_p(&parent(&path), 0o755);
        self.nodes.insert(path, file(content.into(), mode, owner, group));
    }

    /// Makes a directory and those above it; an existing one is left as it is. True when it was made.
    pub fn mkdir_p(&mut self, path: &str, mode: u32) -> Result<bool, Error> {
        let path = self.resolve(path, true)?;
        match self.nodes.get(&path) {
            Some(Node { kind: Kind::Dir, .. }) => return Ok(false),
            Some(_) => return Err(Error::Exists),
            None => {}
        }
        if path != "/" {
            match self.mkdir_p(&parent(&path), 0o755) {
                Err(Error::Exists) => return Err(Error::NotDir),
                other => other?,
            };
        }
        self.nodes.insert(path, dir(mode));
        Ok(true)
    }

    /// Makes a symbolic link.
    pub fn symlink(&mut self, target: &str, path: &str) -> Result<(), Error> {
        let path = self.resolve(path, false)?;
        self.parent_dir(&path)?;
        if self.nodes.contains_key(&path) {
            return Err(Error::Exists);
        }
        let node =
            Node { kind: Kind::Link(target.into()), mode: 0o777, owner: "root".into(), group: "root".into() };
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Removes a file or link (not a directory).
    pub fn remove(&mut self, path: &str) -> Result<(), Error> {
        let path = self.resolve(path, false)?;
        match self.nodes.get(&path) {
            None => Err(Error::NotFound),
            Some(Node { kind: Kind::Dir, .. }) => Err(Error::IsDir),
            Some(_) => {
                self.nodes.remove(&path);
                Ok(())
            }
        }
    }

    /// Removes a path with all below it. True when something was there.
    pub fn remove_all(&mut self, path: &str) -> bool {
        let Ok(path) = self.resolve(path, false) else { return false };
        let below = format!("{path}/");
        let before = self.nodes.len();
        self.nodes.retain(|at, _| at != &path && !at.starts_with(&below));
        self.nodes.len() != before
    }

    /// Moves a path, replacing a file at the new one.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), Error> {
        let from = self.resolve(from, false)?;
        let to = self.resolve(to, false)?;
        self.parent_dir(&to)?;
        let node = self.nodes.remove(&from).ok_or(Error::NotFound)?;
        let below = format!("{from}/");
        let inner: Vec<String> = self.nodes.keys().filter(|k| k.starts_with(&below)).cloned().collect();
        for key in inner {
            if let Some(node) = self.nodes.remove(&key) {
                self.nodes.insert(format!("{to}/{}", &key[below.len()..]), node);
            }
        }
        self.nodes.insert(to, node);
        Ok(())
    }

    /// The names directly inside a directory, sorted.
    pub fn list(&self, path: &str) -> Result<Vec<String>, Error> {
        let path = self.resolve(path, true)?;
        match self.nodes.get(&path) {
            None => return Err(Error::NotFound),
            Some(Node { kind: Kind::Dir, .. }) => {}
            Some(_) => return Err(Error::NotDir),
        }
        let below = if path == "/" { "/".to_string() } else { format!("{path}/") };
        Ok(self
            .nodes
            .keys()
            .filter_map(|k| k.strip_prefix(&below))
            .filter(|rest| !rest.is_empty() && !rest.contains('/'))
            .map(str::to_string)
            .collect())
    }

    /// Every path below a directory, itself first.
    pub fn walk(&self, path: &str) -> Vec<String> {
        let path = self.resolve(path, true).unwrap_or_else(|_| normal(path));
        let below = if path == "/" { "/".to_string() } else { format!("{path}/") };
        self.nodes.keys().filter(|k| **k == path || k.starts_with(&below)).cloned().collect()
    }

    /// Changes an entry's mode, owner and group where given; links are followed.
    pub fn change(
        &mut self,
        path: &str,
        mode: Option<u32>,
        owner: Option<&str>,
        group: Option<&str>,
    ) -> Result<(), Error> {
        let path = self.resolve(path, true)?;
        let node = self.nodes.get_mut(&path).ok_or(Error::NotFound)?;
        if let Some(mode) = mode {
            node.mode = mode;
        }
        if let Some(owner) = owner {
            node.owner = owner.into();
        }
        if let Some(group) = group {
            node.group = group.into();
        }
        Ok(())
    }

    /// Whether `user` may use the bits `want` (4 read, 2 write, 1 search) on the entry and search all above it.
    pub fn may(&self, user: &str, path: &str, want: u32) -> bool {
        if user == "root" {
            return true;
        }
        let Ok(path) = self.resolve(path, true) else { return false };
        let allowed = |node: &Node, bits: u32| {
            let shift = match () {
                () if node.owner == user => 6,
                () if node.group == user => 3,
                () => 0,
            };
            (node.mode >> shift) & bits == bits
        };
        let mut at = path.clone();
        while at != "/" {
            at = parent(&at);
            if self.nodes.get(&at).is_some_and(|node| !allowed(node, 1)) {
                return false;
            }
        }
        self.nodes.get(&path).is_none_or(|node| allowed(node, want))
    }

    /// Whether `user` may make or replace a file at the path.
    pub fn may_create(&self, user: &str, path: &str) -> bool {
        match self.node(path) {
            Ok(_) => self.may(user, path, 2),
            Err(_) => self.may(user, &parent(&normal(path)), 3),
        }
    }

    fn parent_dir(&self, path: &str) -> Result<(), Error> {
        match self.nodes.get(&parent(path)) {
            Some(Node { kind: Kind::Dir, .. }) => Ok(()),
            Some(_) => Err(Error::NotDir),
            None => Err(Error::NotFound),
        }
    }
}

fn dir(mode: u32) -> Node {
    Node { kind: Kind::Dir, mode, owner: "root".into(), group: "root".into() }
}

fn file(content: Vec<u8>, mode: u32, owner: &str, group: &str) -> Node {
    Node { kind: Kind::File(content), mode, owner: owner.into(), group: group.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_directories_and_permissions() {
        let mut fs = Fs::new();
        fs.put("/etc/a/file", "x", 0o600, "root", "root");
        fs.symlink("a", "/etc/b").unwrap();
        assert_eq!(fs.read("/etc/b/file").unwrap(), b"x");
        assert!(!fs.may("kubeline", "/etc/b/file", 4));
        assert!(!fs.may_create("kubeline", "/etc/new"));
        assert!(fs.may("root", "/etc/b/file", 6));
        assert_eq!(fs.write("/none/file", "y"), Err(Error::NotFound));
        assert_eq!(fs.list("/etc").unwrap(), ["a", "b"]);
        fs.rename("/etc/a", "/etc/c").unwrap();
        assert_eq!(fs.read("/etc/c/file").unwrap(), b"x");
        assert_eq!(fs.read("/etc/b/file"), Err(Error::NotFound));
        assert!(fs.remove_all("/etc/c"));
        assert_eq!(fs.walk("/etc"), ["/etc", "/etc/b"]);
    }
}
