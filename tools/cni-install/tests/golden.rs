//! Documents and what is seen, against the plan, the manifests and the status that follow.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests fail loudly")]

use addon::Texts;
use cni_install::{Calico, Want};
use stage::Failure;

fn complete(want: &mut Want) -> Result<(), Failure> {
    let operator = include_str!("golden/tigera-operator.yaml").to_owned();
    want.complete(&Texts::from([("tigera-operator".to_owned(), operator)]))
}

#[test]
fn golden() {
    let customs = ["operator.tigera.io/v1 Installation"];
    let count = manifests::installer::<Calico>(env!("CARGO_MANIFEST_DIR"), &customs, complete)
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(count >= 5, "{count}");
}
