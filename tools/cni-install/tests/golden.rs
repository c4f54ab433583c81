//! Documents and what is seen, against the plan, the manifests and the status that follow.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests fail loudly")]

use addon::Texts;
use cni_install::{Calico, Want};
use stage::Failure;

fn complete(want: &mut Want) -> Result<(), Failure> {
    let text = match want.settings.operator {
        true => include_str!("golden/tigera-operator.yaml").to_owned(),
        false => lab::kube::artefacts::calico(!want.settings.bgp),
    };
    let known = want.operands()?.len();
    assert_eq!(known, if want.settings.operator { 8 } else { 1 });
    let name = want.artefacts[0].name.clone();
    want.complete(&Texts::from([(name, text)]))
}

#[test]
fn golden() {
    let customs = [
        "crd.projectcalico.org/v1 BGPConfiguration",
        "crd.projectcalico.org/v1 BGPPeer",
        "crd.projectcalico.org/v1 FelixConfiguration",
        "crd.projectcalico.org/v1 GlobalNetworkPolicy",
        "operator.tigera.io/v1 Installation",
    ];
    let count = manifests::installer::<Calico>(env!("CARGO_MANIFEST_DIR"), &customs, complete)
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(count >= 21, "{count}");
}
