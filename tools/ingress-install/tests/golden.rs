//! Documents and what is seen, against the plan, the manifests and the status that follow.

#![allow(clippy::panic)] // A test says what it expects.

use addon::Texts;
use ingress_install::{Ingress, Want};
use stage::Failure;

/// Not the secret of anybody.
const SECRET: &str = "c0ffee00-secret-id";

fn complete(want: &mut Want) -> Result<(), Failure> {
    let mut texts = Texts::new();
    for artefact in &want.artefacts {
        let text = match artefact.name.as_str() {
            "traefik-crds" => include_str!("golden/traefik-crds.yaml"),
            "cert-manager" => include_str!("golden/cert-manager.yaml"),
            other => panic!("an artefact {other}"),
        };
        texts.insert(artefact.name.clone(), text.to_owned());
    }
    want.complete(&texts, want.settings.vault.as_ref().and(Some(SECRET)))
}

#[test]
fn golden() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let customs = ["traefik.io/v1alpha1 TLSOption", "cert-manager.io/v1 ClusterIssuer"];
    let count = manifests::installer::<Ingress>(folder, &customs, complete).unwrap_or_else(|e| panic!("{e}"));
    assert!(count >= 4, "{count}");
}

#[test]
fn no_golden_file_holds_the_secret() {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(SECRET);
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/vault/rendered.txt"))
            .unwrap();
    assert!(text.contains("vault-approle") && !text.contains(SECRET) && !text.contains(&encoded));
}
