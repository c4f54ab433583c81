//! A backup: etcd and what a cluster is recognised by, encrypted, with a manifest of digests.
//!
//! It is encrypted and opened while it passes: neither the snapshot nor the encrypted file is ever whole in memory.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use age::stream::StreamReader;
use remote::{Command, Content, Host, Meter};
use serde::{Deserialize, Serialize};
use stage::{Ctx, Exit, Failure, Site};

use crate::World;
use crate::etcd::{self, Snapshot};
use crate::hosts::must;
use crate::seen::Seen;
use crate::want::Want;

/// Where it lies on a machine until it is fetched.
const REMOTE: &str = "/var/lib/kubeline/backup.tar";
/// How long etcd may take to save itself.
const PATIENCE: Duration = Duration::from_secs(900);

/// Saves etcd and the folder of certificates and keys into one tar file of mode 0600.
///
/// * `$1` the absolute path. The snapshot is verified by its own SHA-256 and by etcdutl in etcd's container.
/// * Standard output: what `etcdutl snapshot status` says, then the tar file's SHA-256 and size in bytes.
/// * Exit: 0, else the failing command's.
pub const BACKUP: &str = r#"# kubeline: kadm-backup v2
set -eu
umask 077
c() { crictl --runtime-endpoint unix:///run/containerd/containerd.sock "$@"; }
i=$(c ps -q --name '^etcd$' --state running | head -n 1)
[ -n "$i" ] || { echo 'no container of etcd runs' >&2; exit 1; }
mkdir -p -m 0700 -- "${1%/*}"
t=/var/lib/etcd/kubeline-backup.db
w=$(mktemp -d "${1%/*}/backup.XXXXXX")
trap 'rm -rf -- "$t" "$t.part" "$w"' EXIT
rm -f -- "$t" "$t.part"
p=/etc/kubernetes/pki/etcd
c exec "$i" etcdctl --endpoints=https://127.0.0.1:2379 --cacert=$p/ca.crt --cert=$p/healthcheck-client.crt \
  --key=$p/healthcheck-client.key snapshot save "$t" >&2
[ "$(head -c -32 -- "$t" | sha256sum | cut -d' ' -f1)" = "$(tail -c 32 -- "$t" | od -An -v -tx1 | tr -d ' \n')" ] || {
  echo 'the snapshot is not what etcd sent: it does not match the SHA-256 at its end' >&2
  exit 1
}
c exec "$i" etcdutl snapshot status "$t" -w json
mv -- "$t" "$w/snapshot.db"
cp -a /etc/kubernetes/pki "$w/pki"
tar -C "$w" -cf "$1" pki snapshot.db
echo "$(sha256sum <"$1" | cut -d' ' -f1) $(stat -c %s "$1")"
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
    let map = api.find(crate::existing::STORED).await;
    let map = map.map_err(|e| e.failure(doing))?.unwrap_or_default();
    let command = Command::sh(BACKUP).arg(REMOTE).sudo().title("save etcd").timeout(PATIENCE);
    let output = must(host, &command, doing).await?;
    let sealed = seal(host, &output.text(), dir, &want.cluster, to).await;
    host.remove(REMOTE).await.map_err(|e| fleet::failure(doing, &e))?;
    let Sealed { snapshot, content, outside, part } = sealed?;
    let taken = time::OffsetDateTime::now_utc();
    let stamp = crate::clock::rfc3339(taken);
    let name = format!("{}-{}", want.cluster, stamp.replace([':', '-'], ""));
    let manifest = Manifest {
        cluster: want.cluster.clone(),
        version: cluster.version.clone(),
        taken: stamp,
        file: format!("{name}.tar.age"),
        sha256: outside.sha256,
        content_sha256: content.sha256,
        ca_sha256: cluster.ca.clone(),
        snapshot,
        cluster_configuration: map["data"]["ClusterConfiguration"].as_str().unwrap_or_default().to_owned(),
    };
    let file = dir.join(&manifest.file);
    part.keep(&file)?;
    let text = serde_json::to_string_pretty(&manifest).unwrap_or_default() + "\n";
    // Last: a backup that has its manifest is whole.
    ctx.write_file(&dir.join(format!("{name}.json")), text.as_bytes(), 0o600)?;
    Ok(format!("{}\n", file.display()))
}

/// A backup that lies encrypted on this machine, but not yet in its place.
struct Sealed {
    snapshot: Snapshot,
    content: Content,
    outside: Content,
    part: Part,
}

/// Fetches the tar file, compares it with what the machine says of it, and encrypts it as it comes.
async fn seal(
    host: &Host,
    said: &str,
    dir: &Path,
    cluster: &str,
    to: &age::x25519::Recipient,
) -> Result<Sealed, Failure> {
    let doing = "cannot take a backup";
    let wrong = |why: String| Failure::transient(doing).because(why);
    let mut lines = said.lines().rev().filter(|l| !l.trim().is_empty());
    let (sum, status) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let snapshot = etcd::snapshot_status(status.as_bytes()).map_err(wrong)?;
    let (sum, size) = sum.split_once(' ').ok_or_else(|| wrong("the machine gave no digest".to_owned()))?;
    let size = size.trim().parse().map_err(|_| wrong(format!("\"{size}\" is no size")))?;
    let content = Content { size, sha256: sum.to_owned() };
    let (part, file) = Part::begin(dir, cluster)?;
    let local = |e: io::Error| part.failed(&e);
    let recipient: &(dyn age::Recipient + Send) = to;
    let encryptor = age::Encryptor::with_recipients(std::iter::once(recipient as &dyn age::Recipient))
        .map_err(|e| Failure::internal(doing).because(e.to_string()))?;
    let mut writer = encryptor.wrap_output(Metered { file, meter: Meter::default() }).map_err(local)?;
    let there = host.fetch(REMOTE, &content, &mut |bytes| writer.write_all(bytes)).await;
    if !there.map_err(|e| fleet::failure(doing, &e))? {
        return Err(wrong(format!("{REMOTE} is gone from {}", host.name())));
    }
    let Metered { file, meter } = writer.finish().map_err(local)?;
    file.sync_all().map_err(local)?;
    Ok(Sealed { snapshot, content, outside: meter.content(), part })
}

/// A file whose digest is known once it is written.
struct Metered {
    file: File,
    meter: Meter,
}

impl Write for Metered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.meter.update(bytes.get(..length).unwrap_or_default());
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file that comes to be, gone again unless it is kept. The next run replaces what a killed one left.
struct Part(PathBuf);

impl Part {
    fn begin(dir: &Path, cluster: &str) -> Result<(Part, File), Failure> {
        let part = Part(dir.join(format!(".{cluster}.tar.age.part")));
        let made = std::fs::create_dir_all(dir).and_then(|()| match std::fs::remove_file(&part.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => File::options().write(true).create_new(true).mode(0o600).open(&part.0),
        });
        let file = made.map_err(|e| part.failed(&e))?;
        Ok((part, file))
    }

    fn keep(self, place: &Path) -> Result<(), Failure> {
        let folder = place.parent().unwrap_or(Path::new("."));
        let kept = std::fs::rename(&self.0, place).and_then(|()| File::open(folder)?.sync_all());
        kept.map_err(|e| self.failed(&e))
    }

    fn failed(&self, e: &io::Error) -> Failure {
        Failure::precondition(format!("cannot write {}", self.0.display())).because(e.to_string())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Kept, it is not there any more.
        let _ = std::fs::remove_file(&self.0);
    }
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
pub fn find(file: &Path, identity: &Path, site: &Site) -> Result<(Found, Content), Failure> {
    looked_at(site.absolute(file), site.absolute(identity))
}

/// Looks at a backup whose paths are absolute; gives what is in it, read to its end.
///
/// # Errors
/// Exit 4 when something of it is not right.
pub fn looked_at(file: PathBuf, identity: PathBuf) -> Result<(Found, Content), Failure> {
    let doing = format!("cannot use the backup {}", file.display());
    let wrong = |why: String| Failure::precondition(&doing).because(why);
    let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let stem = name.strip_suffix(".tar.age").ok_or_else(|| {
        wrong("its name does not end in .tar.age".to_owned())
            .hint("ls its folder: NAME.tar.age beside NAME.json")
    })?;
    let beside = file.with_file_name(format!("{stem}.json"));
    let text = std::fs::read(&beside).map_err(|e| wrong(format!("{}: {e}", beside.display())))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|e| wrong(format!("{}: {e}", beside.display())))?;
    let sealed = File::open(&file).and_then(|mut f| Content::of(&mut f)).map_err(|e| wrong(e.to_string()))?;
    if sealed.sha256 != manifest.sha256 {
        return Err(wrong("its SHA-256 is not the one in its manifest: it was cut or changed".to_owned()));
    }
    let found = Found { file, identity, manifest };
    let content = Content::of(&mut open(&found)?).map_err(|e| wrong(e.to_string()))?;
    if content.sha256 != found.manifest.content_sha256 {
        return Err(wrong("what is in it is not what its manifest says".to_owned()));
    }
    Ok((found, content))
}

/// Opens a backup; what is in it is decrypted as it is read.
///
/// # Errors
/// Exit 4 when the identity is none, others can read it, or it does not open the file.
pub fn open(found: &Found) -> Result<StreamReader<BufReader<File>>, Failure> {
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
    let read = File::open(&found.identity).and_then(|mut f| f.read_to_string(&mut text));
    read.map_err(|e| wrong(format!("{shown}: {e}")))?;
    let key = text.lines().map(str::trim).find(|l| l.starts_with("AGE-SECRET-KEY-"));
    let key = key.and_then(|k| age::x25519::Identity::from_str(k).ok());
    let key = key.ok_or_else(|| wrong(format!("{shown} holds no identity of age")))?;
    let sealed = File::open(&found.file).map_err(|e| wrong(e.to_string()))?;
    let opened = age::Decryptor::new_buffered(BufReader::new(sealed))
        .and_then(|d| d.decrypt(std::iter::once(&key as &dyn age::Identity)));
    opened.map_err(|e| wrong(e.to_string()))
}
