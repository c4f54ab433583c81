//! Steps that prepare one machine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use remote::{Command, Host, Output, RemoteFile};
use stage::{Ctx, Failure, Waiting};

use crate::etcd::crictl;
use crate::files;
use crate::step::Repository;
use crate::want::Want;

/// How long the images of a control plane, some 350 MB, may take.
const PULLING: Duration = Duration::from_secs(1800);

/// Switches swap off, now and at boot: entries of fstab become comments, swap units are masked.
///
/// * No arguments. Exit: 0 done, else the failing command's.
pub const SWAP: &str = r#"# kubeline: kadm-swap v1
set -eu
swapoff -a
if [ -f /etc/fstab ]; then
  sed -i -E 's/^([^#]+[[:space:]]swap[[:space:]].*)$/# kubeline: \1/' /etc/fstab
fi
systemctl list-units --type=swap --all --plain --no-legend | while read -r u _; do
  systemctl mask --now "$u"
done
"#;

/// Fetches the signing key of a repository, checks its digest and puts it in place atomically.
///
/// * `$1` where it is, `$2` its SHA-256, `$3` the absolute path. apt-helper comes with apt and checks the digest.
/// * Exit: 0 in place, else apt-helper's; the path is as it was then.
pub const KEY: &str = r#"# kubeline: kadm-key v1
set -eu
d=${3%/*}
mkdir -p -- "$d"
t=$(mktemp -d)
trap 'rm -rf -- "$t"' EXIT
/usr/lib/apt/apt-helper -qq download-file "$1" "$t/key" "SHA256:$2"
chmod 644 "$t/key"
mv -fT -- "$t/key" "$3"
"#;

/// Pulls the images of a control plane that are not there, one after another as kubeadm does.
///
/// * `$1` the version, `$2` the registry. kubeadm names the images; with a version given it asks nobody for one.
/// * Exit: 0 all are there, else the failing command's.
pub const IMAGES: &str = r#"# kubeline: kadm-images v1
set -eu
c() { crictl --runtime-endpoint unix:///run/containerd/containerd.sock "$@"; }
l=$(kubeadm config images list --kubernetes-version "$1" --image-repository "$2")
for i in $l; do
  c inspecti "$i" >/dev/null 2>&1 || c pull "$i" >/dev/null
done
"#;

/// A command that must exit 0.
pub async fn must(host: &Host, command: &Command, doing: &str) -> Result<Output, Failure> {
    host.ok(command).await.map_err(|e| fleet::failure(doing, &e))
}

/// Kernel modules, settings and swap.
pub async fn kernel(
    host: &Host,
    want: &Want,
    paths: &BTreeMap<String, String>,
    modules: &BTreeSet<String>,
    settings: bool,
    swap_off: bool,
) -> Result<(), Failure> {
    let doing = format!("cannot prepare the kernel of {}", host.name());
    write(host, want, paths, &doing).await?;
    if !modules.is_empty() {
        must(host, &Command::new("modprobe").arg("-a").args(modules.iter().cloned()).sudo(), &doing).await?;
    }
    if settings {
        must(host, &Command::new("sysctl").arg("--system").sudo(), &doing).await?;
    }
    if swap_off {
        must(host, &Command::sh(SWAP).sudo().title("switch swap off"), &doing).await?;
    }
    Ok(())
}

/// Writes files that were rendered.
pub(crate) async fn write(
    host: &Host,
    want: &Want,
    paths: &BTreeMap<String, String>,
    doing: &str,
) -> Result<(), Failure> {
    for (path, sha256) in paths {
        let file = want.files.get(path, sha256);
        let file = file.ok_or_else(|| Failure::internal(format!("no file {path} was rendered")))?;
        put(host, &RemoteFile::new(path, file.content.clone()), doing).await?;
    }
    Ok(())
}

/// Writes a file.
pub async fn put(host: &Host, file: &RemoteFile, doing: &str) -> Result<bool, Failure> {
    host.write(file).await.map_err(|e| fleet::failure(doing, &e))
}

/// Repository, packages, holds.
pub async fn packages(
    host: &Host,
    want: &Want,
    install: &[String],
    hold: &[String],
    repository: Option<&Repository>,
    ctx: &Ctx,
) -> Result<(), Failure> {
    let doing = format!("cannot install packages on {}", host.name());
    if let Some(repository) = repository {
        if let Some(url) = &repository.key_url {
            let key = Command::sh(KEY)
                .args([url.as_str(), repository.key_sha256.as_str(), files::KEYRING])
                .sudo()
                .title(format!("fetch {url}"));
            must(host, &key, &doing).await.map_err(|f| {
                f.hint("a newer key: give its url and sha256 as spec.artifacts[] \"kubernetes-apt-key\", once compared with its publisher's")
            })?;
        }
        let list = BTreeMap::from([(files::LIST.to_owned(), repository.list_sha256.clone())]);
        write(host, want, &list, &doing).await?;
    }
    let apt = |verb: &str| {
        Command::new("apt-get")
            .args(["-q", "-o", "DPkg::Lock::Timeout=300", verb])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .sudo()
            .timeout(Duration::from_secs(1800))
    };
    if !install.is_empty() {
        if want.debs().is_empty() {
            fleet::packages::update(host, &apt("update"), &doing, ctx).await?;
        }
        // A configuration file that somebody changed stays: without a terminal dpkg cannot ask.
        let words = [
            "-y",
            "--no-install-recommends",
            "--allow-downgrades",
            "--allow-change-held-packages",
            "-o",
            "Dpkg::Options::=--force-confold",
        ];
        must(host, &apt("install").args(words).args(install.iter().cloned()), &doing).await?;
    }
    if !hold.is_empty() {
        must(host, &Command::new("apt-mark").arg("hold").args(hold.iter().cloned()).sudo(), &doing).await?;
    }
    Ok(())
}

/// containerd's configuration: tested by containerd itself, then swapped in.
pub async fn runtime(host: &Host, want: &Want, sha256: Option<&str>, ctx: &Ctx) -> Result<(), Failure> {
    const CANDIDATE: &str = "/etc/containerd/kubeline-candidate.toml";
    let doing = format!("cannot configure containerd on {}", host.name());
    if let Some(sha256) = sha256 {
        let file = want.files.get(files::CONTAINERD, sha256);
        let file = file.ok_or_else(|| Failure::internal("no configuration of containerd was rendered"))?;
        put(host, &RemoteFile::new(CANDIDATE, file.content.clone()), &doing).await?;
        let test = Command::new("containerd").args(["--config", CANDIDATE, "config", "dump"]).sudo();
        let tested = must(host, &test, &doing).await;
        host.remove(CANDIDATE).await.map_err(|e| fleet::failure(&doing, &e))?;
        tested?;
        put(host, &RemoteFile::new(files::CONTAINERD, file.content.clone()), &doing).await?;
    }
    let verb = if sha256.is_some() { "restart" } else { "start" };
    must(host, &Command::new("systemctl").args(["enable", "containerd"]).sudo(), &doing).await?;
    must(host, &Command::new("systemctl").args([verb, "containerd"]).sudo(), &doing).await?;
    let what = format!("containerd on {}", host.name());
    let info = crictl().arg("info");
    ctx.wait_for(&what, Duration::from_secs(90), || async {
        let output = host.run(&info).await.map_err(|e| fleet::failure(&doing, &e))?;
        Ok(if output.success() { Waiting::Seen(()) } else { Waiting::NotYet(output.tail()) })
    })
    .await
}

/// Has the images of a control plane pulled. kubeadm would, one machine after another.
pub async fn images(host: &Host, version: &str, registry: &str) -> Result<(), Failure> {
    let doing = format!("cannot pull the images of Kubernetes {version} on {}", host.name());
    let pull = Command::sh(IMAGES).args([version, registry]).sudo().title("pull images").timeout(PULLING);
    let pulled = must(host, &pull, &doing).await.map(drop);
    pulled.map_err(|f| {
        f.hint(format!(
            "on {}: crictl pull IMAGE; or spec.registry, a registry that can be reached",
            host.name()
        ))
    })
}

/// Installs the timer that saves etcd and starts it, or stops and removes it.
pub async fn timer(
    host: &Host,
    want: &Want,
    paths: &BTreeMap<String, String>,
    remove: &BTreeSet<String>,
) -> Result<(), Failure> {
    let systemctl = |words: &[&str]| Command::new("systemctl").args(words.iter().copied()).sudo();
    if !remove.is_empty() {
        let doing = format!("cannot remove the timer that saves etcd from {}", host.name());
        if remove.contains(files::BACKUP_TIMER) {
            must(host, &systemctl(&["disable", "--now", files::TIMER_UNIT]), &doing).await?;
        }
        sweep(host, remove).await?;
        return must(host, &systemctl(&["daemon-reload"]), &doing).await.map(drop);
    }
    let doing = format!("cannot install the timer that saves etcd on {}", host.name());
    write(host, want, paths, &doing).await?;
    must(host, &systemctl(&["daemon-reload"]), &doing).await?;
    must(host, &systemctl(&["enable", files::TIMER_UNIT]), &doing).await?;
    // Started anew, it goes by the new calendar.
    must(host, &systemctl(&["restart", files::TIMER_UNIT]), &doing).await.map(drop)
}

/// Starts a service and keeps it started.
pub async fn start(host: &Host, unit: &str) -> Result<(), Failure> {
    let doing = format!("cannot start {unit} on {}", host.name());
    must(host, &Command::new("systemctl").args(["enable", "--now", unit]).sudo(), &doing).await.map(drop)
}

/// Removes files; those that are gone are no fault.
pub async fn sweep(host: &Host, files: &BTreeSet<String>) -> Result<(), Failure> {
    for file in files {
        host.remove(file).await.map_err(|e| fleet::failure(format!("cannot remove {file}"), &e))?;
    }
    Ok(())
}
