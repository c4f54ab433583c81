//! Documents and what is seen, against the plan, the manifests and the status that follow.

#![allow(clippy::panic, clippy::unwrap_used)] // A test says what it expects.

use obs_install::{ObsInstall, Want};
use stage::Failure;

fn complete(want: &mut Want) -> Result<(), Failure> {
    let (_, others) =
        manifests::check(want.addon.values()).unwrap_or_else(|wrong| panic!("{}", wrong.join("\n")));
    assert!(others.is_empty(), "{others:?}");
    for image in want.addon.images() {
        assert!(image.rsplit('/').next().unwrap().contains(':'), "{image} has no tag");
    }
    Ok(())
}

#[test]
fn golden() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let count = manifests::cases::<ObsInstall>(folder, complete).unwrap_or_else(|e| panic!("{e}"));
    assert!(count >= 4, "{count}");
}
