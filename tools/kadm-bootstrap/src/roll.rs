//! Steps of an upgrade, each proven before it is done.

use std::collections::BTreeMap;
use std::time::Duration;

use remote::{Command, Host};
use stage::{Ctx, Failure, Waiting};

use crate::api::Api;
use crate::evidence::{EVIDENCE, own_api, wait_for_etcd};
use crate::hosts::{self, must};
use crate::node::Node;
use crate::pin::Pin;
use crate::want::Want;
use crate::{World, etcd, kubeadm, node, pins};

/// How long kubeadm may take to upgrade a control plane: it waits up to five minutes for each of four static pods.
const UPGRADE: Duration = Duration::from_secs(1800);

/// Saves etcd to a file on its machine, verified, in place of earlier such files.
///
/// * `$1` the absolute path. etcd's container is asked: it has `etcdctl` and `etcdutl`, and its data directory is the
///   one place that it shares with the machine for writing.
/// * etcd ends what it sends with its SHA-256 (server/etcdserver/api/v3rpc/maintenance.go). Only etcdutl's restore compares
///   it; its status takes what was changed, and ends in a fault of its own on what was cut.
/// * Exit: 0 saved and verified, else the failing command's.
pub const SNAPSHOT: &str = r#"# kubeline: kadm-snapshot v2
set -eu
umask 077
c() { crictl --runtime-endpoint unix:///run/containerd/containerd.sock "$@"; }
i=$(c ps -q --name '^etcd$' --state running | head -n 1)
[ -n "$i" ] || { echo 'no container of etcd runs' >&2; exit 1; }
t=/var/lib/etcd/kubeline-snapshot.db
rm -f -- "$t" "$t.part"
trap 'rm -f -- "$t" "$t.part"' EXIT
p=/etc/kubernetes/pki/etcd
c exec "$i" etcdctl --endpoints=https://127.0.0.1:2379 --cacert=$p/ca.crt --cert=$p/healthcheck-client.crt \
  --key=$p/healthcheck-client.key snapshot save "$t" >&2
[ "$(head -c -32 -- "$t" | sha256sum | cut -d' ' -f1)" = "$(tail -c 32 -- "$t" | od -An -v -tx1 | tr -d ' \n')" ] || {
  echo 'the snapshot is not what etcd sent: it does not match the SHA-256 at its end' >&2
  exit 1
}
c exec "$i" etcdutl snapshot status "$t" -w json
mkdir -p -m 0700 -- "${1%/*}"
for f in "${1%/*}"/etcd-before-*.db; do
  [ "$f" = "$1" ] || rm -f -- "$f"
done
cp -- "$t" "$1.new"
sync -- "$1.new"
mv -fT -- "$1.new" "$1"
"#;

/// Saves etcd.
///
/// # Errors
/// When it could not be saved or what was saved is no snapshot.
pub async fn snapshot(host: &Host, path: &str) -> Result<(), Failure> {
    let doing = format!("cannot save etcd on {}", host.name());
    let save = Command::sh(SNAPSHOT).arg(path).sudo().title("save etcd").timeout(Duration::from_secs(600));
    let output = must(host, &save, &doing).await?;
    etcd::snapshot_status(&output.stdout).map(drop).map_err(|why| Failure::transient(doing).because(why))
}

/// Upgrades the static pods of a control plane.
///
/// # Errors
/// kubeadm's complaints, or what did not come back.
pub async fn control_plane(
    node: &Node,
    first: bool,
    world: &World,
    want: &Want,
    ctx: &Ctx,
) -> Result<(), Failure> {
    let host = world.fleet.host(&node.name)?;
    let doing = format!("cannot upgrade the control plane on {}", node.name);
    wait_for_etcd(host, None, ctx).await?;
    let mut words = vec!["upgrade".to_owned()];
    match first {
        true => words.extend(["apply".to_owned(), want.version.tag(), "--yes".to_owned()]),
        false => words.push("node".to_owned()),
    }
    words.extend(ignored(want));
    kubeadm::run(host, &Command::new("kubeadm").args(words).sudo().timeout(UPGRADE), &doing).await?;
    wait_for_etcd(host, Some(&node.name), ctx).await?;
    own_api(node, host, want, ctx).await
}

fn ignored(want: &Want) -> Option<String> {
    (!want.ignore.is_empty()).then(|| format!("--ignore-preflight-errors={}", want.ignore.join(",")))
}

/// What the step of a kubelet says.
pub struct Kubelet<'a> {
    /// What apt installs.
    pub install: &'a [String],
    /// What is held afterwards.
    pub hold: &'a [String],
    /// Programs as their publishers' files.
    pub pins: &'a [Pin],
    /// True when kubeadm writes its configuration first.
    pub configure: bool,
    /// True when the node is to be Ready afterwards.
    pub ready: bool,
}

/// Upgrades the kubelet of a node, and waits until the node reports its version.
///
/// # Errors
/// What failed on the machine, or exit 5 when the node does not come back.
pub async fn kubelet(
    host: &Host,
    what: &Kubelet<'_>,
    api: &Api,
    want: &Want,
    ctx: &Ctx,
) -> Result<(), Failure> {
    let doing = format!("cannot upgrade the kubelet on {}", host.name());
    if what.configure {
        let words = ["upgrade", "node"].map(str::to_owned).into_iter().chain(ignored(want));
        kubeadm::run(host, &Command::new("kubeadm").args(words).sudo().timeout(UPGRADE), &doing).await?;
    }
    if !what.install.is_empty() {
        hosts::packages(host, want, what.install, what.hold, None, ctx).await?;
    }
    pins::install(host, want, what.pins, &BTreeMap::new()).await?;
    must(host, &Command::new("systemctl").arg("daemon-reload").sudo(), &doing).await?;
    must(host, &Command::new("systemctl").args(["restart", "kubelet"]).sudo(), &doing).await?;
    let path = format!("/api/v1/nodes/{}", host.name());
    ctx.wait_for(&format!("the node {}", host.name()), EVIDENCE, || async {
        let node = match api.get(&path).await {
            Ok(object) => node::read(&object),
            Err(error) => return Ok(Waiting::NotYet(error.to_string())),
        };
        Ok(match () {
            () if node.version != want.version.tag() => {
                Waiting::NotYet(format!("its kubelet still reports {}", node.version))
            }
            () if what.ready && !node.ready => Waiting::NotYet(node.reason),
            () => Waiting::Seen(()),
        })
    })
    .await
}
