//! Documents and what is seen, against the plan, the manifests and the status that follow.

#![allow(clippy::panic, clippy::unwrap_used)] // A test says what it expects.

use nfs_provision::{NfsProvision, Want};
use stage::Failure;

fn complete(want: &mut Want) -> Result<(), Failure> {
    let (_, others) =
        manifests::check(want.addon.values()).unwrap_or_else(|wrong| panic!("{}", wrong.join("\n")));
    assert!(others.is_empty(), "{others:?}");
    Ok(())
}

#[test]
fn golden() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let count = manifests::cases::<NfsProvision>(folder, complete).unwrap_or_else(|e| panic!("{e}"));
    assert!(count >= 5, "{count}");
}
