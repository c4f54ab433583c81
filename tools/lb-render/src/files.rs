//! What the configuration refers to: authorities, and certificates with their keys.
//!
//! All of it lies in one folder that is named by its content. A new set is therefore tested beside the one that is in
//! use, the swap of haproxy.cfg swaps both, and whenever a machine boots it finds a configuration with the files that it
//! was tested with: a certificate that HAProxy refuses is never where a running configuration would find it.

use std::collections::BTreeMap;

use remote::{Command, Error, Host, RemoteFile};
use sha2::{Digest as _, Sha256};

use crate::config::digest;

/// The folder of these folders; ours alone.
pub const FOLDER: &str = "/etc/haproxy/kubeline";
/// The authority of the API servers.
pub const CA: &str = "ca.pem";
/// The authority of the Vault servers.
pub const VAULT_CA: &str = "vault-ca.pem";
/// The certificates that are served.
pub const CERTIFICATES: &str = "certs";

/// Tells the files below a folder.
///
/// * `$1` the folder.
/// * Standard output: a line for each, its SHA-256, two spaces and its path in the folder. What they hold stays there:
///   some are private keys.
/// * Exit: 0, also when there is no such folder.
pub const LIST: &str = r#"# kubeline: lb-render-files v1
cd "$1" 2>/dev/null || exit 0
find . -type f -exec sha256sum -- {} +
"#;

/// Removes what is in a folder, but for one entry of it.
///
/// * `$1` the folder, `$2` the entry that stays; empty: the folder goes as well.
/// * Exit: 0, also when there is no such folder.
pub const TIDY: &str = r#"# kubeline: lb-render-tidy v1
set -eu
cd "$1" 2>/dev/null || exit 0
for one in *; do
  [ "$one" = "$2" ] || rm -rf -- "./$one"
done
[ -n "$2" ] || rmdir -- "$1"
"#;

/// The files of one configuration, by their paths in its folder.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Files {
    /// What each holds (PEM).
    pub all: BTreeMap<String, String>,
}

impl Files {
    /// The name of the folder; `None` when nothing is referred to.
    pub fn name(&self) -> Option<String> {
        let mut hash = Sha256::new();
        for (path, pem) in &self.all {
            hash.update(format!("{path} {}\n", digest(pem.as_bytes())));
        }
        let name = hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
        (!self.all.is_empty()).then_some(name)
    }

    /// The path of a file or a folder of files on a machine.
    pub fn path(&self, of: &str) -> String {
        format!("{FOLDER}/{}/{of}", self.name().unwrap_or_default())
    }

    /// What [`look`] finds when these files are there, and no others.
    pub fn seen(&self) -> BTreeMap<String, String> {
        let name = self.name().unwrap_or_default();
        self.all.iter().map(|(path, pem)| (format!("{name}/{path}"), digest(pem.as_bytes()))).collect()
    }

    /// The files as they are written: those with private keys for root alone.
    pub fn remote(&self) -> Vec<RemoteFile> {
        let file = |(path, pem): (&String, &String)| {
            let mode = if path.starts_with(CERTIFICATES) { 0o600 } else { 0o644 };
            RemoteFile::new(self.path(path), pem.as_bytes()).mode(mode)
        };
        self.all.iter().map(file).collect()
    }

    /// Removes every other set, and the folder when there is none.
    ///
    /// # Errors
    /// Transport trouble.
    pub async fn tidy(&self, host: &Host) -> Result<(), Error> {
        let tidy = Command::sh(TIDY).args([FOLDER.to_owned(), self.name().unwrap_or_default()]).sudo();
        host.ok(&tidy).await.map(drop)
    }
}

/// The files that are there: path in [`FOLDER`] and digest.
///
/// # Errors
/// Transport trouble.
pub async fn look(host: &Host) -> Result<BTreeMap<String, String>, Error> {
    let listed = host.ok(&Command::sh(LIST).arg(FOLDER).sudo()).await?;
    let text = listed.text();
    let lines = text.lines().filter_map(|line| line.split_once("  ./"));
    Ok(lines.map(|(digest, path)| (path.to_owned(), digest.to_owned())).collect())
}
