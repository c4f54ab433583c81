//! etcd as kubeadm runs it: its files, its container, and what starts it again.
//!
//! The programs are the real ones. What is played is who runs them: a kubelet that knows etcd's static pod alone, and
//! the runtime's two clients as far as its one container goes. That has a root of its own, with nothing in it but the
//! three programs, and of the machine it sees what the manifest mounts.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use crate::standins::Authority;
use crate::{Machine, Result};

/// What kubeadm would call the image.
pub const IMAGE: &str = "registry.k8s.io/etcd:3.5.16-0";
/// A script that is run with the path of each snapshot that was saved: the disk that spoils it.
pub const DAMAGE: &str = "/etc/damage";
/// The folder that stands for what the NFS server exports: the kernel that tests may have no NFS.
pub const EXPORT: &str = "/srv/export";

/// What the manifest says runs, and runs again when it ended, or when the manifest is another one.
const KUBELET: &str = r#"#!/bin/sh
[ "$1" != --version ] || { echo 'Kubernetes v1.36.2'; exit; }
m=/etc/kubernetes/manifests/etcd.yaml
r=/run/etcd-manifest
while sleep 0.1; do
  now=$(cksum <"$m" 2>/dev/null) || now=
  [ "$now" = "$(cat $r 2>/dev/null)" ] || { systemctl stop etcd 2>/dev/null; echo "$now" >$r; }
  [ -n "$now" ] || continue
  systemctl is-active --quiet etcd && continue
  set -- $(sed -n 's/^    - \(--.*\)$/\1/p' "$m")
  systemd-run --quiet --collect --unit=etcd -p Type=exec -p RootDirectory=/srv/etcd \
    -p 'BindPaths=/var/lib/etcd /etc/kubernetes/pki/etcd' -- /usr/local/bin/etcd "$@"
done
"#;

/// `crictl`: an id for each run of etcd, programs in its container, its end.
const CRICTL: &str = r#"#!/bin/sh
[ "$1 $2" = '--runtime-endpoint unix:///run/containerd/containerd.sock' ] || { echo "crictl stand-in: $*" >&2; exit 64; }
shift 2
id=
systemctl is-active --quiet etcd && id=$(systemctl show -p InvocationID --value etcd)
case "$*" in
'ps -q --name ^etcd$ --state running' | 'ps -q --name ^(etcd|kube-apiserver)$ --state running')
  [ -z "$id" ] || echo "$id" ;;
'ps --name ^etcd$ --state running -o json')
  if [ -n "$id" ]; then printf '{"containers":[{"id":"%s"}]}\n' "$id"; else echo '{"containers":[]}'; fi ;;
'pull registry.k8s.io/etcd:3.5.16-0') ;;
'pull '*)
  echo "E0000 rpc error: code = NotFound desc = failed to pull and unpack image \"$2\": not found" >&2
  exit 1 ;;
"stop --timeout 30 $id") systemctl stop etcd ;;
"exec $id "*)
  shift 2
  p=$(systemctl show -p MainPID --value etcd)
  env -i PATH=/usr/local/bin /usr/bin/nsenter --target "$p" --mount --root --wd -- "$@" || {
    echo "FATA[0000] execing command in container $id: command terminated with exit code $?" >&2
    exit 1
  }
  for f; do :; done
  case "$*" in
  *' snapshot save '*) [ ! -e /etc/damage ] || sh /etc/damage "$f" ;;
  esac ;;
*)
  echo "crictl stand-in: $*" >&2
  exit 64 ;;
esac
"#;

/// `ctr`: one program of the image in a container of its own, which sees one folder of the machine.
const CTR: &str = r#"#!/bin/sh
[ "$1 $2 $3 $4 $5" = '-n k8s.io run --rm --mount' ] || { echo "ctr stand-in: $*" >&2; exit 64; }
m=$6 i=$7 n=$8 p=$9
shift 9
d=${m#type=bind,src=}
d=${d%%,*}
[ "$m" = "type=bind,src=$d,dst=$d,options=rbind:rw" ] || { echo "ctr stand-in: $m" >&2; exit 64; }
[ "$i" = registry.k8s.io/etcd:3.5.16-0 ] || { echo "ctr: image \"$i\": not found" >&2; exit 1; }
mkdir -p /run/containers
mkdir "/run/containers/$n" 2>/dev/null || { echo "ctr: snapshot \"$n\": already exists" >&2; exit 1; }
trap 'rmdir "/run/containers/$n"' EXIT
systemd-run --quiet --wait --pipe --collect -p RootDirectory=/srv/etcd -p "BindPaths=$d" -- "/usr/local/bin/$p" "$@"
"#;

/// What mount(8) runs for `-t nfs4`.
const NFS: &str = r#"#!/bin/sh
[ "$1" = 10.99.0.1:/srv/export ] || { echo "mount.nfs4: $*" >&2; exit 32; }
exec mount --bind /srv/export "$2"
"#;

const UNIT: &str = "[Service]\nExecStart=/usr/local/bin/kubelet\n";

/// The authorities of a cluster, as kubeadm's folder has them.
pub struct Pki {
    etcd: Authority,
    shared: Vec<(&'static str, String, u32)>,
}

impl Pki {
    /// New ones.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new() -> Result<Pki> {
        let (cluster, etcd, front) = (Authority::new()?, Authority::new()?, Authority::new()?);
        let (_, accounts) = etcd.pair(&["accounts"])?;
        let shared = vec![
            ("ca.crt", cluster.pem(), 0o644),
            ("ca.key", cluster.key(), 0o600),
            ("etcd/ca.crt", etcd.pem(), 0o644),
            ("etcd/ca.key", etcd.key(), 0o600),
            ("front-proxy-ca.crt", front.pem(), 0o644),
            ("front-proxy-ca.key", front.key(), 0o600),
            ("sa.key", accounts.serialize_pem(), 0o600),
            ("sa.pub", accounts.public_key_pem(), 0o600),
        ];
        Ok(Pki { etcd, shared })
    }

    /// The files that every control plane has alike: path below kubeadm's folder, content, mode.
    pub fn shared(&self) -> &[(&'static str, String, u32)] {
        &self.shared
    }

    /// Gives a machine the shared files.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn hand_out(&self, machine: &Machine) -> Result<()> {
        for (name, content, mode) in &self.shared {
            put(machine, &format!("/etc/kubernetes/pki/{name}"), content, *mode)?;
        }
        Ok(())
    }

    /// Gives a machine certificates of its own for etcd, which `kubeadm init` and `join` make there.
    ///
    /// # Errors
    /// They cannot be made or written.
    pub fn certify(&self, machine: &Machine) -> Result<()> {
        let own = machine.address.to_string();
        let names = ["localhost", machine.name.as_str(), own.as_str(), "127.0.0.1"];
        for name in ["server", "peer", "healthcheck-client"] {
            let (certificate, key) = self.etcd.pair(&names)?;
            let at = format!("/etc/kubernetes/pki/etcd/{name}");
            put(machine, &format!("{at}.crt"), &certificate.pem(), 0o644)?;
            put(machine, &format!("{at}.key"), &key.serialize_pem(), 0o600)?;
        }
        Ok(())
    }
}

/// Writes a file on a machine.
///
/// # Errors
/// It cannot be written.
pub fn put(machine: &Machine, path: &str, content: &str, mode: u32) -> Result<()> {
    let (path, new) = (machine.file(path), machine.file(&format!("{path}.new")));
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    std::fs::write(&new, content)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode))?;
    Ok(std::fs::rename(new, path)?)
}

/// Gives a machine the programs around etcd and starts its kubelet; nothing runs until it has a manifest.
///
/// # Errors
/// What systemd says.
pub async fn prepare(machine: &Machine) -> Result<()> {
    for (path, text) in [
        ("/usr/local/bin/kubelet", KUBELET),
        ("/usr/local/bin/crictl", CRICTL),
        ("/usr/local/bin/ctr", CTR),
        ("/usr/sbin/mount.nfs4", NFS),
    ] {
        put(machine, path, text, 0o755)?;
    }
    put(machine, "/etc/systemd/system/kubelet.service", UNIT, 0o644)?;
    machine.ok(&["mkdir", "-p", "-m", "700", "/var/lib/etcd", EXPORT]).await?;
    machine.ok(&["mkdir", "-p", "/etc/kubernetes/pki/etcd", "/etc/kubernetes/manifests"]).await?;
    machine.ok(&["systemctl", "daemon-reload"]).await?;
    machine.ok(&["systemctl", "start", "kubelet"]).await.map(drop)
}

/// Gives a machine etcd's static pod as kubeadm 1.36 writes it (recorded; with 3.5's names of the two flags that 3.6
/// renamed): `cluster` has the machine itself and those that it joins, `existing` what says that it never begins one.
///
/// # Errors
/// It cannot be written.
pub fn manifest(machine: &Machine, cluster: &[&Machine], existing: bool) -> Result<()> {
    let (own, name) = (machine.address, &machine.name);
    let initial: Vec<String> =
        cluster.iter().map(|m| format!("{}=https://{}:2380", m.name, m.address)).collect();
    let mut flags = vec![
        format!("--advertise-client-urls=https://{own}:2379"),
        "--cert-file=/etc/kubernetes/pki/etcd/server.crt".to_owned(),
        "--client-cert-auth=true".to_owned(),
        "--data-dir=/var/lib/etcd".to_owned(),
        "--experimental-initial-corrupt-check=true".to_owned(),
        "--experimental-watch-progress-notify-interval=5s".to_owned(),
        format!("--initial-advertise-peer-urls=https://{own}:2380"),
        format!("--initial-cluster={}", initial.join(",")),
        "--key-file=/etc/kubernetes/pki/etcd/server.key".to_owned(),
        format!("--listen-client-urls=https://127.0.0.1:2379,https://{own}:2379"),
        "--listen-metrics-urls=http://0.0.0.0:2381".to_owned(),
        format!("--listen-peer-urls=https://{own}:2380"),
        format!("--name={name}"),
        "--peer-cert-file=/etc/kubernetes/pki/etcd/peer.crt".to_owned(),
        "--peer-client-cert-auth=true".to_owned(),
        "--peer-key-file=/etc/kubernetes/pki/etcd/peer.key".to_owned(),
        "--peer-trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt".to_owned(),
        "--snapshot-count=10000".to_owned(),
        "--trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt".to_owned(),
    ];
    if existing {
        flags.push("--initial-cluster-state=existing".to_owned());
    }
    let flags: String = flags.iter().map(|f| format!("    - {f}\n")).collect();
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: etcd\n  namespace: kube-system\nspec:\n  containers:\n\
         \x20 - command:\n    - etcd\n{flags}    image: {IMAGE}\n    name: etcd\n  hostNetwork: true\n"
    );
    put(machine, "/etc/kubernetes/manifests/etcd.yaml", &text, 0o600)
}

/// A program of the container with kubeadm's certificates, past the tool.
///
/// # Errors
/// The machine is off.
pub async fn ctl(machine: &Machine, args: &[&str]) -> Result<Output> {
    const CTL: &str = r#"p=/etc/kubernetes/pki/etcd
e='--runtime-endpoint unix:///run/containerd/containerd.sock'
exec /usr/local/bin/crictl $e exec "$(/usr/local/bin/crictl $e ps -q --name '^etcd$' --state running)" etcdctl \
  --endpoints=https://127.0.0.1:2379 --cacert=$p/ca.crt --cert=$p/healthcheck-client.crt --key=$p/healthcheck-client.key "$@""#;
    machine.run(&[&["sh", "-c", CTL, "sh"], args].concat()).await
}

/// The same for a command that has to succeed: what it printed.
///
/// # Errors
/// What it said when it failed.
pub async fn asked(machine: &Machine, args: &[&str]) -> Result<String> {
    let said = ctl(machine, args).await?;
    match said.status.success() {
        true => Ok(String::from_utf8_lossy(&said.stdout).into_owned()),
        false => Err(format!("{}: {args:?}: {}", machine.name, String::from_utf8_lossy(&said.stderr)).into()),
    }
}

/// Stops the machine's etcd for good: its kubelet does not start it again.
///
/// # Errors
/// What systemd says.
pub async fn stop(machine: &Machine) -> Result<()> {
    machine.ok(&["systemctl", "stop", "kubelet"]).await?;
    machine.run(&["systemctl", "stop", "etcd"]).await.map(drop)
}

/// What etcd on a machine wrote since it was switched on.
///
/// # Errors
/// The machine is off.
pub async fn log(machine: &Machine) -> Result<String> {
    machine.ok(&["journalctl", "-b", "-u", "etcd", "-o", "cat", "--no-pager"]).await
}
