//! Where packages come from.

use cluster_doc::KubeVersion;
use cluster_doc::spec::PackageSource;
use stage::Failure;

/// The name of the pinned signing key in `spec.artifacts`.
pub const KEY_ARTEFACT: &str = "kubernetes-apt-key";
/// SHA-256 of pkgs.k8s.io's Release.key (fingerprint DE15B14486CD377B9E876E1A234654DA9A296436), which signs the
/// repository of every minor. The key ends on 2026-12-29; `spec.artifacts` gives another one.
const KEY_SHA256: &str = "7627818cf7bae52f9008c93e8b1f961f53dea11d40891778de216fb1b43be54d";
/// Where the packages of Kubernetes are published.
const REPOSITORY: &str = "https://pkgs.k8s.io";

/// Where packages come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A repository: its address, and the key's address and digest.
    Repository {
        /// Without a slash at its end.
        url: String,
        /// Where the signing key is.
        key_url: String,
        /// The key's SHA-256.
        key_sha256: String,
    },
    /// A folder on each machine.
    Directory(String),
    /// They are there.
    Present,
}

/// What the document says of them.
///
/// # Errors
/// Exit 3 when it lacks the folder or the mirror that its source needs.
pub(crate) fn of(spec: &cluster_doc::Spec, version: KubeVersion) -> Result<Source, Failure> {
    let packages = spec.packages.clone().unwrap_or_default();
    let refuse = |what: &str| {
        let at = cluster_doc::Pointer::root().key("spec").key("packages").key(what);
        Failure::from(cluster_doc::Refusals::one(at, "is missing for this source"))
    };
    let base = match packages.source {
        PackageSource::Present => return Ok(Source::Present),
        PackageSource::Directory => {
            let folder = packages.directory.as_ref().ok_or_else(|| refuse("directory"))?;
            return Ok(Source::Directory(folder.to_string()));
        }
        PackageSource::Mirror => packages.mirror.as_deref().ok_or_else(|| refuse("mirror"))?,
        PackageSource::Repository => REPOSITORY,
    };
    let url = format!("{}/core:/stable:/v{}/deb", base.trim_end_matches('/'), version.release());
    let pin = spec.artifacts.iter().flatten().find(|a| a.name.to_string() == KEY_ARTEFACT);
    let (key_url, key_sha256) = match pin {
        Some(pin) => (pin.url.clone(), pin.sha256.to_string()),
        None => (format!("{url}/Release.key"), KEY_SHA256.to_owned()),
    };
    Ok(Source::Repository { url, key_url, key_sha256 })
}
