//! A backup: etcd and what a cluster is recognised by, encrypted, with a manifest of digests.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use remote::{Command, Host};
use serde::{Deserialize, Serialize};
use stage::{Ctx, Exit, Failure, Site};

use crate::World;
use crate::certificate::sha256;
use crate::etcd::{self, Snapshot};
use crate::hosts::must;
use crate::seen::Seen;
use crate::want::Want;

/// How much of a file travels at once, in bytes: a command may print 32 MiB.
const PART: usize = 8 << 20;
/// Where it lies on a machine until it is fetched.
const REMOTE: &str = "/var/lib/kubeline/backup.tar";
/// How long etcd may take to save itself.
const PATIENCE: Duration = Duration::from_secs(900);

/// Saves etcd and the folder of certificates and keys into one tar file of mode 0600.
///
/// * `$1` the absolute path. The snapshot is verified by etcdutl in etcd's own container.
/// * Standard output: what `etcdutl snapshot status` says, then the tar file's SHA-256 and size in bytes.
/// * Exit: 0, else the failing command's.
pub const BACKUP: &str = r#"# kubeline: kadm-backup v1
set -eu
umask 077
c() { crictl --runtime-endpoint unix:///run/containerd/containerd.sock "$@"; }
i=$(c ps -q --name '^etcd$' --state Running | head -n 1)
[ -n "$i" ] || { echo 'no container of etcd runs' >&2; exit 1; }
mkdir -p -m 0700 -- "${1%/*}"
t=/var/lib/etcd/kubeline-backup.db
w=$(mktemp -d "${1%/*}/backup.XXXXXX")
trap 'rm -rf -- "$t" "$t.part" "$w"' EXIT
rm -f -- "$t" "$t.part"
p=/etc/kubernetes/pki/etcd
c exec "$i" etcdctl --endpoints=https://127.0.0.1:2379 --cacert=$p/ca.crt --cert=$p/healthcheck-client.crt \
  --key=$p/healthcheck-client.key snapshot save "$t" >&2
c exec "$i" etcdutl snapshot status "$t" -w json
mv -- "$t" "$w/snapshot.db"
cp -a /etc/kubernetes/pki "$w/pki"
tar -C "$w" -cf "$1" pki snapshot.db
echo "$(sha256sum <"$1" | cut -d' ' -f1) $(stat -c %s "$1")"
"#;

/// Prints a part of a file.
///
/// * `$1` the absolute path, `$2` which part, from 0, `$3` the size of a part in bytes.
/// * Exit: 0, also behind the end.
pub const READ_PART: &str = r#"# kubeline: kadm-part v1
set -eu
tail -c "+$(($2 * $3 + 1))" -- "$1" | head -c "$3"
"#;

/// What stands beside an encrypted backup: nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The cluster's name.
    pub cluster: String,
    /// The version of Kubernetes that ran.
    pub version: String,
    /// When it was taken (RFC 3339, UTC).
    pub taken: String,
    /// The encrypted file beside this one.
    pub file: String,
    /// SHA-256 of the encrypted file.
    pub sha256: String,
    /// SHA-256 of what is in it.
    pub content_sha256: String,
    /// SHA-256 of the cluster's authority (DER).
    pub ca_sha256: String,
    /// What etcdutl says of the snapshot.
    pub snapshot: Snapshot,
    /// The configuration that kubeadm stored in the cluster.
    pub cluster_configuration: String,
}

/// The recipient that a backup is encrypted to.
///
/// # Errors
/// Exit 2 when none is known, exit 3 when it is none of age's.
pub fn recipient(given: Option<&str>, want: &Want) -> Result<age::x25519::Recipient, Failure> {
    let text = given.or(want.recipient.as_deref()).ok_or_else(|| {
        Failure::new(Exit::Usage, "a backup is encrypted, and there is no recipient")
            .hint("kadm-bootstrap backup DIR --recipient age1..., or spec.backup.etcd.recipient; age-keygen makes one")
    })?;
    age::x25519::Recipient::from_str(text).map_err(|why| {
        Failure::new(Exit::Refused, format!("\"{text}\" is no recipient of age"))
            .because(why)
            .hint("age-keygen -o KEY prints one that begins with age1")
    })
}

/// The control plane that is saved, and a sentence on it.
///
/// # Errors
/// Exit 5 when there is no cluster to save.
pub fn intent(seen: &Seen, dir: &Path) -> Result<String, Failure> {
    let cluster = seen.cluster.as_ref().ok_or_else(|| {
        let why = seen.api_fault.clone().unwrap_or_else(|| "no control plane knows one".to_owned());
        Failure::transient("there is no cluster to save").because(why).hint("kadm-bootstrap check")
    })?;
    Ok(format!("saves etcd and the authorities of {} to {}\n", cluster.lead, dir.display()))
}

/// Takes a backup and writes it, encrypted, with its manifest.
///
/// # Errors
/// When it cannot be taken, verified or written; what is written is whole.
pub async fn take(
    dir: &Path,
    to: &age::x25519::Recipient,
    world: &World,
    want: &Want,
    seen: &Seen,
    ctx: &Ctx,
) -> Result<String, Failure> {
    let doing = "cannot take a backup";
    let cluster = seen.cluster.as_ref().ok_or_else(|| Failure::transient(doing))?;
    let host = world.fleet.host(&cluster.lead)?;
    let _lock = world.fleet.lock([&cluster.lead], ctx).await?;
    let api = world.api(&cluster.lead, want).await?;
    let map = api.find("/api/v1/namespaces/kube-system/configmaps/kubeadm-config").await;
    let map = map.map_err(|e| e.failure(doing))?.unwrap_or_default();
    let command = Command::sh(BACKUP).arg(REMOTE).sudo().title("save etcd").timeout(PATIENCE);
    let output = must(host, &command, doing).await?;
    let fetched = fetch(host, &output.text(), doing).await;
    host.remove(REMOTE).await.map_err(|e| fleet::failure(doing, &e))?;
    let (snapshot, content) = fetched?;
    let sealed = age::encrypt(to, &content).map_err(|e| Failure::internal(doing).because(e.to_string()))?;
    let taken = time::OffsetDateTime::now_utc();
    let stamp = crate::apply::rfc3339(taken.unix_timestamp().unsigned_abs());
    let name = format!("{}-{}", want.cluster, stamp.replace([':', '-'], ""));
    let manifest = Manifest {
        cluster: want.cluster.clone(),
        version: cluster.version.clone(),
        taken: stamp,
        file: format!("{name}.tar.age"),
        sha256: sha256(&sealed),
        content_sha256: sha256(&content),
        ca_sha256: cluster.ca.clone(),
        snapshot,
        cluster_configuration: map["data"]["ClusterConfiguration"].as_str().unwrap_or_default().to_owned(),
    };
    let file = dir.join(&manifest.file);
    ctx.write_file(&file, &sealed, 0o600)?;
    let text = serde_json::to_string_pretty(&manifest).unwrap_or_default() + "\n";
    // Last: a backup that has its manifest is whole.
    ctx.write_file(&dir.join(format!("{name}.json")), text.as_bytes(), 0o600)?;
    Ok(format!("{}\n", file.display()))
}

/// Fetches the tar file in parts and compares it with what the machine says of it.
async fn fetch(host: &Host, said: &str, doing: &str) -> Result<(Snapshot, Vec<u8>), Failure> {
    let wrong = |why: String| Failure::transient(doing).because(why);
    let mut lines = said.lines().rev().filter(|l| !l.trim().is_empty());
    let (sum, status) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let snapshot = etcd::snapshot_status(status.as_bytes()).map_err(wrong)?;
    let (sum, size) = sum.split_once(' ').ok_or_else(|| wrong("the machine gave no digest".to_owned()))?;
    let size: usize = size.trim().parse().map_err(|_| wrong(format!("\"{size}\" is no size")))?;
    let mut content = Vec::with_capacity(size);
    for n in 0..size.div_ceil(PART) {
        let part = Command::sh(READ_PART).args([REMOTE.to_owned(), n.to_string(), PART.to_string()]);
        content.extend(must(host, &part.sudo().title("fetch the backup"), doing).await?.stdout);
    }
    if content.len() != size || sha256(&content) != sum {
        return Err(wrong("what arrived is not what was sent".to_owned()));
    }
    Ok((snapshot, content))
}

/// A backup on the operator's machine, checked against its manifest.
#[derive(Clone, Debug)]
pub struct Found {
    /// The encrypted file.
    pub file: PathBuf,
    /// The file with the age identity.
    pub identity: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
}

/// Looks at a backup: its manifest, its digest, and what the identity opens, which only this process sees.
///
/// # Errors
/// Exit 4 when one of them is not right.
pub fn find(file: &Path, identity: &Path, site: &Site) -> Result<(Found, Vec<u8>), Failure> {
    let doing = format!("cannot use the backup {}", file.display());
    let wrong = |why: String| Failure::precondition(&doing).because(why);
    let file = site.absolute(file);
    let identity = site.absolute(identity);
    let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let stem = name.strip_suffix(".tar.age").ok_or_else(|| {
        wrong("its name does not end in .tar.age".to_owned())
            .hint("ls its folder: NAME.tar.age beside NAME.json")
    })?;
    let beside = file.with_file_name(format!("{stem}.json"));
    let text = std::fs::read(&beside).map_err(|e| wrong(format!("{}: {e}", beside.display())))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|e| wrong(format!("{}: {e}", beside.display())))?;
    let sealed = std::fs::read(&file).map_err(|e| wrong(e.to_string()))?;
    if sha256(&sealed) != manifest.sha256 {
        return Err(wrong("its SHA-256 is not the one in its manifest: it was cut or changed".to_owned()));
    }
    let found = Found { file, identity, manifest };
    let content = open(&found, &sealed)?;
    Ok((found, content))
}

/// Opens a backup.
///
/// # Errors
/// Exit 4 when the identity is none, others can read it, or it does not open the file.
fn open(found: &Found, sealed: &[u8]) -> Result<Vec<u8>, Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let shown = found.identity.display();
    let wrong = |why: String| {
        Failure::precondition(format!("cannot open the backup {}", found.file.display())).because(why)
    };
    let mode = std::fs::metadata(&found.identity).map_err(|e| wrong(format!("{shown}: {e}")))?.mode();
    if mode & 0o077 != 0 {
        return Err(wrong(format!("others can read {shown}")).hint(format!("chmod 600 {shown}")));
    }
    let mut text = String::new();
    let read = std::fs::File::open(&found.identity).and_then(|mut f| f.read_to_string(&mut text));
    read.map_err(|e| wrong(format!("{shown}: {e}")))?;
    let key = text.lines().map(str::trim).find(|l| l.starts_with("AGE-SECRET-KEY-"));
    let key = key.and_then(|k| age::x25519::Identity::from_str(k).ok());
    let key = key.ok_or_else(|| wrong(format!("{shown} holds no identity of age")))?;
    let content = age::decrypt(&key, sealed).map_err(|e| wrong(e.to_string()))?;
    if sha256(&content) != found.manifest.content_sha256 {
        return Err(wrong("what is in it is not what its manifest says".to_owned()));
    }
    Ok(content)
}
