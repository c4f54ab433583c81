//! Documents and what is seen, against the plan, the manifests and the status that follow.

#![allow(clippy::panic)] // A test says what it expects.

use nfs_provision::Nfs;

#[test]
fn golden() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let count = manifests::installer::<Nfs>(folder, &[], |_| Ok(())).unwrap_or_else(|e| panic!("{e}"));
    assert!(count >= 5, "{count}");
}
