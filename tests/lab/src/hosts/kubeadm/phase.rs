//! Single phases of `kubeadm init`, as they are run on a cluster that is there.

use super::{Words, init, manifests};
use crate::hosts::programs::{Ctx, Output};

const ETCD: &str = "/etc/kubernetes/manifests/etcd.yaml";

/// `kubeadm init phase etcd local`: the manifest of this machine's member, written from a configuration.
///
/// It asks nobody: which members there are plays no part in it. The kubelet runs another container when another
/// manifest lies there.
pub fn etcd_local(ctx: &mut Ctx, args: &[String]) -> Output {
    let mut words = Words::default();
    let result = init::begin(ctx, args).and_then(|(_, config)| {
        if !ctx.root() {
            return Err(format!("open {ETCD}: permission denied"));
        }
        words.out("[etcd] Creating static Pod manifest for local etcd in \"/etc/kubernetes/manifests\"");
        let address = config.advertise.map(|a| a.to_string()).unwrap_or_default();
        let own = [(config.node_name.clone(), address.clone())];
        let mut machine = ctx.machine();
        let before = machine.fs.text(ETCD);
        manifests::etcd(&mut machine, &config, &config.node_name, &address, &own);
        if machine.fs.text(ETCD) != before {
            *machine.kube.stops.entry("etcd".into()).or_default() += 1;
        }
        Ok(())
    });
    ctx.changes();
    words.end(result)
}
