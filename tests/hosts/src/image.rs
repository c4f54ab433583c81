//! The Debian that all machines are made of.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::Result;

/// What a machine has before any tool comes: what a cloud image has, as far as it matters here.
const PACKAGES: &str =
    "systemd,systemd-sysv,dbus,libpam-systemd,openssh-server,sudo,iproute2,iputils-ping,procps";

/// What the machines' own package source offers: packages with all that they depend on. Machines have no way to
/// the internet, so apt on them reads this folder. Python is there for `ansible-playbook` in the bench alone.
const OFFER: &str = r#"chroot "$1" sh -ec '
apt-get update -q
apt-get install -y -q --download-only --no-install-recommends haproxy keepalived iputils-arping python3 age
mkdir /srv/debian
mv /var/cache/apt/archives/*.deb /srv/debian/
cd /srv/debian
for f in *.deb; do
  dpkg-deb -f "$f"
  echo "Filename: ./$f"
  echo "Size: $(stat -c %s "$f")"
  echo "SHA256: $(sha256sum "$f" | cut -d" " -f1)"
  echo
done >Packages
'"#;

/// etcd as the root of a container: its three programs, what they are linked with, and no shell, as its image is. It is
/// Debian 13's, whose release has etcdutl (Debian 12's has not); apt takes it from the same place and checks it by the
/// same keyring as all else.
const ETCD: &str = r#"chroot "$1" sh -ec '
l=/etc/apt/sources.list.d/etcd.list
sed -n "s/^\(deb .*\) [a-z]* main$/\1 trixie main/p" /etc/apt/sources.list | head -n 1 >"$l"
[ -s "$l" ]
apt-get update -q -o Dir::Etc::sourcelist="$l" -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0
mkdir /tmp/etcd
cd /tmp/etcd
apt-get download -q etcd-server/trixie etcd-client/trixie
for f in *.deb; do dpkg-deb -x "$f" .; done
r=/srv/etcd
mkdir -p "$r/usr/local/bin" "$r/var/lib/etcd" "$r/etc/kubernetes/pki/etcd" "$r/tmp"
mv usr/bin/etcd usr/bin/etcdctl usr/bin/etcdutl "$r/usr/local/bin/"
ldd "$r"/usr/local/bin/* | sed -n "s,^[^/]*\(/[^ ]*\) (0x.*,\1,p" | sort -u | while read -r f; do
  mkdir -p "$r${f%/*}"
  cp -L "$f" "$r$f"
done
cd /
rm -rf /tmp/etcd "$l" /var/lib/apt/lists/*trixie*
'"#;

/// The account that tools log in with, and the network that each machine's own file completes.
const ACCOUNT: &str = r#"chroot "$1" sh -ec '
useradd --create-home --shell /bin/bash kubeline
echo "kubeline ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/kubeline
chmod 440 /etc/sudoers.d/kubeline
rm -f /etc/ssh/ssh_host_* /etc/machine-id /etc/resolv.conf
echo "deb [trusted=yes] file:/srv/debian ./" >/etc/apt/sources.list
systemctl enable systemd-networkd
systemctl disable apt-daily.timer apt-daily-upgrade.timer
'"#;

/// Makes the base once and keeps it below the build's folder; `KUBELINE_HOSTS_SUITE` names another release.
///
/// # Errors
/// mmdebstrap's own words: no mirror, no space.
#[allow(clippy::print_stdout, reason = "it takes half a minute, and a person wants to know")]
pub fn ensure() -> Result<PathBuf> {
    let suite = std::env::var("KUBELINE_HOSTS_SUITE").unwrap_or_else(|_| "bookworm".to_owned());
    let recipe = Sha256::digest([PACKAGES, OFFER, ETCD, ACCOUNT].concat());
    let recipe: String = recipe.iter().take(4).map(|b| format!("{b:02x}")).collect();
    let folder = folder()?;
    std::fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    let base = folder.join(format!("{suite}-{recipe}"));
    if base.is_dir() {
        return Ok(base);
    }
    println!("making the base of all machines from Debian's packages ({suite})");
    let half = folder.join("half");
    if half.exists() {
        std::fs::remove_dir_all(&half)?;
    }
    let said = Command::new("mmdebstrap")
        .args(["--quiet", "--format=directory", "--variant=minbase", "--include", PACKAGES])
        .args(["--aptopt=Acquire::Languages \"none\"", "--aptopt=Acquire::Retries \"3\""])
        .args(["doc", "man", "locale", "info"].map(|d| format!("--dpkgopt=path-exclude=/usr/share/{d}/*")))
        .arg(format!("--customize-hook={OFFER}"))
        .arg(format!("--customize-hook={ETCD}"))
        .arg(format!("--customize-hook={ACCOUNT}"))
        .arg(&suite)
        .arg(&half)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()?;
    if !said.status.success() {
        return Err(format!("mmdebstrap {suite}: {}", String::from_utf8_lossy(&said.stderr).trim()).into());
    }
    std::fs::rename(&half, &base)?;
    Ok(base)
}

/// Below the folder that cargo builds into, for it is a thing that was built: this program lies in `deps` there.
fn folder() -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    let target = me.ancestors().nth(3).unwrap_or_else(|| Path::new("target"));
    Ok(target.join("hosts"))
}
