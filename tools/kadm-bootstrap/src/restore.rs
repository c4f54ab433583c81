//! A cluster made again from a backup: on the same machines, or on new ones with new addresses.
//!
//! One control plane gets the authorities and a one-member etcd from the snapshot; kubeadm's init makes the rest of it
//! anew for this machine and this address. From there on it is a cluster like any other: the others join it, and nodes
//! and members that the document does not have leave it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use cluster_doc::KubeVersion;
use remote::{Command, Host};
use serde_json::json;
use stage::{Ctx, Failure, HeldKind, Plan, StepId};

use crate::api::{Api, ApiError};
use crate::backup::{self, Found};
use crate::build::Build;
use crate::faults::faults;
use crate::hosts::must;
use crate::node::{CONTROL_PLANE_LABEL, Node};
use crate::seen::{HostSeen, Seen};
use crate::state::State;
use crate::step::Step;
use crate::want::Want;
use crate::{MANAGER, World, init};

/// The ConfigMap that tells from which backup the cluster was made.
pub const MARK: &str = "/api/v1/namespaces/kube-system/configmaps/kubeline-restored";
/// What kubeadm notes on a static pod of etcd: where its clients reach it.
const ADVERTISED: &str = "kubeadm.kubernetes.io/etcd.advertise-client-urls";
/// Where it lies on the machine until it is unpacked.
const REMOTE: &str = "/var/lib/kubeline/restore.tar";
/// How long etcdutl and the pull of its image may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// Puts etcd's data aside, so that a reset does not take it; what was put aside before stays beside it.
///
/// * No arguments. Exit: 0; what is not there is no fault.
pub const ASIDE: &str = r#"# kubeline: kadm-aside v1
set -eu
[ -d /var/lib/etcd/member ] || exit 0
systemctl stop kubelet 2>/dev/null || true
c() { crictl --runtime-endpoint unix:///run/containerd/containerd.sock "$@"; }
for i in $(c ps -q --name '^(etcd|kube-apiserver)$' --state running); do
  c stop --timeout 30 "$i"
done
mkdir -p -m 0700 /var/lib/kubeline
t=/var/lib/kubeline/etcd-aside
n=1
while [ -e "$t" ]; do
  n=$((n + 1))
  t=/var/lib/kubeline/etcd-aside-$n
done
mv /var/lib/etcd/member "$t"
"#;

/// Unpacks a backup: the authorities into kubeadm's folder, the snapshot into a data directory of one member.
///
/// * `$1` the tar file, removed afterwards; `$2` its SHA-256; `$3` the member's name; `$4` its peer URL; `$5` the image
///   of etcd, whose `etcdutl` does it.
/// * Exit: 0, else the failing command's. Watches must not see revisions go backwards: they are bumped. The container has
///   another name each time: containerd keeps one that a power failure cut off.
pub const UNPACK: &str = r#"# kubeline: kadm-restore v1
set -eu
umask 077
w=$(mktemp -d /var/lib/kubeline/restore.XXXXXX)
trap 'rm -rf -- "$w" "$1"' EXIT
echo "$2  $1" | sha256sum -c --status
tar -C "$w" -xf "$1"
p=/etc/kubernetes/pki
mkdir -p $p/etcd
for f in ca etcd/ca front-proxy-ca; do
  install -m 0644 "$w/pki/$f.crt" $p/$f.crt
  install -m 0600 "$w/pki/$f.key" $p/$f.key
done
install -m 0600 "$w/pki/sa.key" $p/sa.key
install -m 0600 "$w/pki/sa.pub" $p/sa.pub
crictl --runtime-endpoint unix:///run/containerd/containerd.sock pull "$5" >/dev/null
ctr -n k8s.io run --rm --mount "type=bind,src=$w,dst=$w,options=rbind:rw" "$5" "kubeline-restore-${w##*.}" \
  etcdutl snapshot restore "$w/snapshot.db" --data-dir "$w/data" --name "$3" --initial-cluster "$3=$4" \
  --initial-advertise-peer-urls "$4" --bump-revision 1000000000 --mark-compacted >&2
rm -rf /var/lib/etcd/member
mkdir -p -m 0700 /var/lib/etcd
mv "$w/data/member" /var/lib/etcd/member
"#;

/// What `restore` does; once the cluster is the backup's, what `apply` does.
pub fn plan(want: &Want, seen: &Seen, found: &Found) -> Plan<Step> {
    let content = &found.manifest.content_sha256;
    if seen.cluster.as_ref().is_some_and(|c| c.restored.as_ref() == Some(content)) {
        return crate::plan::plan(want, seen);
    }
    let mut plan = Plan::new();
    let of = &found.manifest.version;
    let minor = KubeVersion::parse(of).ok().map(|v| v.minor());
    if minor.is_some_and(|minor| minor != want.version.minor()) {
        // API servers read what those of another minor stored by chance at best, and no upgrade has prepared it.
        let why = format!("the backup is of Kubernetes {of}, the document wants {}", want.version);
        let hint = format!(
            "set spec.kubernetes.version to \"{}\"; once it is restored, upgrade",
            of.trim_start_matches('v')
        );
        plan.hold(HeldKind::Unmet, "the cluster", why, Some(hint));
    }
    let planes = || want.control_planes().chain(want.leaving.iter().filter(|n| n.control_plane));
    for node in planes().filter(|n| !seen.hosts.contains_key(&n.name)) {
        // An old control plane that comes back would be a second cluster behind the same address.
        let why = "it cannot be reached, and may know the cluster from before";
        let hint = format!("bring {} back, or take it out of the document", node.name);
        plan.hold(HeldKind::Unmet, &node.name, why, Some(hint));
    }
    for fault in faults(want, seen, |name| seen.hosts.get(name).is_some_and(|h| !h.traces())) {
        plan.hold(HeldKind::Unmet, fault.what, fault.why, fault.hint);
    }
    let Some(first) = want.control_planes().next().filter(|_| plan.held().is_empty()) else { return plan };
    // Everything is made ready as before an init; what the machines are to the old cluster counts for nothing.
    let states: BTreeMap<&str, State> = want.nodes.iter().map(|n| (n.name.as_str(), State::Blank)).collect();
    let mut build = Build::new(plan, want, seen, &states);
    for node in want.control_planes() {
        build.machine(node, &states);
    }
    let mut after = build.ready_of(&first.name);
    let mut plan = build.plan;
    for node in planes() {
        let Some(host) = seen.hosts.get(&node.name) else { continue };
        after.extend(cleared(&mut plan, node, host));
    }
    let step = Step::Restore {
        host: first.name.clone(),
        address: first.address.to_string(),
        endpoint: want.endpoint.clone(),
        backup: found.file.display().to_string(),
        identity: found.identity.display().to_string(),
        content_sha256: content.clone(),
    };
    plan.step_after(&after, step, format!("the backup of {}", found.manifest.taken));
    plan
}

/// A control plane of the cluster before: its data put aside, then reset.
fn cleared(plan: &mut Plan<Step>, node: &Node, host: &HostSeen) -> Option<StepId> {
    let mut after = Vec::new();
    if host.state.contains("/var/lib/etcd/member") {
        after.push(plan.step(Step::Aside { host: node.name.clone() }, "nothing of etcd is thrown away"));
    }
    host.to_reset().then(|| {
        plan.step_after(
            &after,
            Step::Reset { host: node.name.clone() },
            "the cluster is made from the backup",
        )
    })
}

/// Puts etcd's data aside.
///
/// # Errors
/// The failing command's.
pub async fn aside(host: &Host) -> Result<(), Failure> {
    let doing = format!("cannot put etcd's data on {} aside", host.name());
    must(host, &Command::sh(ASIDE).sudo().title("put etcd's data aside"), &doing).await.map(drop)
}

/// Makes the first control plane from a backup.
///
/// # Errors
/// When the backup cannot be opened, or what failed on the machine.
pub async fn restore(
    node: &Node,
    backup: &str,
    identity: &str,
    content_sha256: &str,
    world: &World,
    want: &Want,
    ctx: &Ctx,
) -> Result<(), Failure> {
    let doing = format!("cannot restore the cluster on {}", node.name);
    let host = world.fleet.host(&node.name)?;
    let (file, identity) = (PathBuf::from(backup), PathBuf::from(identity));
    // Elsewhere: to read gigabytes takes a while, in which the locks have to be held.
    let looked_at = tokio::task::spawn_blocking(move || backup::looked_at(file, identity)).await;
    let (found, content) = looked_at.map_err(|e| Failure::internal(&doing).because(e.to_string()))??;
    if content.sha256 != content_sha256 {
        return Err(Failure::precondition(doing).because("the backup is another one than was planned with"));
    }
    let sent = host.send(REMOTE, 0o600, &content, &mut backup::open(&found)?).await;
    sent.map_err(|e| fleet::failure(&doing, &e))?;
    let images = Command::new("kubeadm")
        .args(["config", "images", "list", "--kubernetes-version", &want.version.tag()])
        .args(["--image-repository", &want.registry])
        .sudo();
    let images = must(host, &images, &doing).await?;
    let text = images.text();
    let image = text.lines().find(|l| l.contains("/etcd:"));
    let image =
        image.ok_or_else(|| Failure::precondition(&doing).because("kubeadm names no image of etcd"))?;
    let unpack = Command::sh(UNPACK)
        .args([REMOTE, content_sha256, &node.name, &format!("https://{}:2380", node.address), image.trim()])
        .sudo()
        .title("unpack the backup")
        .timeout(PATIENCE);
    must(host, &unpack, &doing).await?;
    let api = init::init_restored(node, host, world, want, ctx).await?;
    forget_the_others(node, &api).await.map_err(|e| e.failure(&doing))?;
    let mark = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "kubeline-restored", "namespace": "kube-system" },
        "data": { "sha256": content_sha256, "taken": found.manifest.taken },
    });
    api.apply(MARK, MANAGER, &mark).await.map_err(|e| e.failure(doing))
}

/// Takes the control planes from before out of the API: the pods of their etcd, which nobody ends any more, and their
/// nodes.
///
/// A join of kubeadm takes the addresses of etcd's members from the annotations of these pods (`getEtcdEndpoints` in its
/// util/etcd/etcd.go): it would ask those of the cluster before, and where one still runs it would join that.
async fn forget_the_others(first: &Node, api: &Api) -> Result<(), ApiError> {
    let pods = "/api/v1/namespaces/kube-system/pods";
    let list = api.get(&format!("{pods}?labelSelector=component%3Detcd%2Ctier%3Dcontrol-plane")).await?;
    let own = format!("https://{}:2379", first.address);
    for pod in list["items"].as_array().into_iter().flatten() {
        let told = pod["metadata"]["annotations"][ADVERTISED].as_str();
        let here = pod["spec"]["nodeName"] == first.name.as_str() && told.is_none_or(|url| url == own);
        if let Some(name) = pod["metadata"]["name"].as_str().filter(|_| !here) {
            api.delete(&format!("{pods}/{name}?gracePeriodSeconds=0")).await?;
        }
    }
    let label = CONTROL_PLANE_LABEL.replace('/', "%2F");
    let list = api.get(&format!("/api/v1/nodes?labelSelector={label}")).await?;
    for node in list["items"].as_array().into_iter().flatten() {
        if let Some(name) = node["metadata"]["name"].as_str().filter(|n| *n != first.name) {
            api.delete(&format!("/api/v1/nodes/{name}")).await?;
        }
    }
    Ok(())
}
