//! `kubeadm reset`.

use std::time::Duration;

use super::{Flags, Words};
use crate::hosts::etcd;
use crate::hosts::programs::{Ctx, Output};
use crate::hosts::units::State;

const FILES: [&str; 6] =
    ["admin", "super-admin", "kubelet", "bootstrap-kubelet", "controller-manager", "scheduler"];

/// `kubeadm reset`.
pub async fn run(ctx: &mut Ctx, args: &[String]) -> Output {
    let mut words = Words::default();
    let result = phases(ctx, args, &mut words).await;
    words.end(result)
}

async fn phases(ctx: &mut Ctx, args: &[String], words: &mut Words) -> Result<(), String> {
    let flags =
        Flags::parse(args, &["force", "ignore-preflight-errors", "cri-socket", "cleanup-tmp-dir", "config"])?;
    let (stored, control_plane, swept) = {
        let machine = ctx.machine();
        let manifest = "/etc/kubernetes/manifests/etcd.yaml";
        (etcd::stored(&machine), machine.fs.exists(manifest), machine.fs.exists("/etc/kubernetes/admin.conf"))
    };
    if swept {
        words.out("[reset] Reading configuration from the \"kubeadm-config\" ConfigMap in namespace \"kube-system\"...");
        words.out("[reset] Use 'kubeadm init phase upload-config kubeadm --config your-config-file' to re-upload it.");
    }
    if !flags.on("force") {
        words.err("W1120 22:36:56.655663    1724 preflight.go:55] [reset] WARNING: Changes made to this host by 'kubeadm init' or 'kubeadm join' will be reverted.");
        words.out("[reset] Are you sure you want to proceed? [y/N]: ");
        return Err("error execution phase preflight: won't proceed; the user didn't answer (Y|y) in order to continue".into());
    }
    if !ctx.root() {
        return Err("error execution phase preflight: user is not running as root".into());
    }
    ctx.changes();
    words.out("[preflight] Running pre-flight checks");
    let clock = ctx.hosts.world().clock;
    match stored {
        Some((cluster, id)) => {
            leave(ctx, &cluster, id, words);
            clock.wait(Duration::from_secs(3)).await;
            words.out("[reset] Deleted contents of the etcd data directory: /var/lib/etcd");
        }
        None if control_plane => {}
        None => words.err("W1120 22:47:13.547453    5119 removeetcdmember.go:105] [reset] No kubeadm config, using etcd pod spec to get data directory"),
    }
    words.out("[reset] Stopping the kubelet service");
    words.out("[reset] Unmounting mounted directories in \"/var/lib/kubelet\"");
    words.out("[reset] Deleting contents of directories: [/etc/kubernetes/manifests /var/lib/kubelet /etc/kubernetes/pki]");
    let files: Vec<String> = FILES.iter().map(|f| format!("/etc/kubernetes/{f}.conf")).collect();
    words.out(format!("[reset] Deleting files: [{}]", files.join(" ")));
    {
        let mut machine = ctx.machine();
        machine.services.set("kubelet", State::Inactive, 0);
        for dir in ["/etc/kubernetes/manifests", "/var/lib/kubelet", "/etc/kubernetes/pki", "/var/lib/etcd"] {
            let was = machine.fs.is_dir(dir);
            machine.fs.remove_all(dir);
            if was {
                let _ = machine.fs.mkdir_p(dir, 0o755);
            }
        }
        for file in &files {
            let _ = machine.fs.remove(file);
        }
    }
    ctx.hosts.settle();
    words.out(
        "\nThe reset process does not perform cleanup of CNI plugin configuration,\nnetwork filtering rules and kubeconfig files.\n\nFor information \
         on how to perform this cleanup manually, please see:\n    https://k8s.io/docs/reference/setup-tools/kubeadm/kubeadm-reset/\n",
    );
    Ok(())
}

/// Takes the member out of its cluster; the last one and one without quorum stay, as with the real one.
fn leave(ctx: &Ctx, cluster: &str, id: u64, words: &mut Words) {
    let quorate = etcd::quorate(&ctx.hosts, cluster);
    let mut clusters = ctx.hosts.etcd();
    let Some(found) = clusters.get_mut(cluster) else { return };
    match (quorate, found.members.len()) {
        (_, 0 | 1) => {}
        (true, _) => {
            found.remove(id);
        }
        (false, _) => words.err(
            "W1120 22:52:09.551208    2824 removeetcdmember.go:95] [reset] Failed to remove etcd member: context deadline exceeded, please manually \
             remove this etcd member using etcdctl",
        ),
    }
}
