//! `scripts/bundle`: what it makes is enough for a run without a network.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may")]

mod site;

use site::{Site, binaries};

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_replaces_the_internet() {
    let site = Site::new().await;
    let bin = binaries();
    if !bin.join("cni-install").exists() {
        println!("skipped: the tools are not built (cargo build --workspace --bins)");
        return;
    }
    let document = site.document();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/bundle");
    let dir = site.dir.path().to_owned();
    let (own, home) = (document.clone(), dir.clone());
    let run = move || {
        std::process::Command::new(script)
            .arg(&own)
            .arg("bundle")
            .current_dir(&home)
            .env("KUBELINE_BIN", &bin)
            .env("HOME", &home)
            .output()
            .unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    // The lab's operator is not the pinned one: that its choice of images is unknown is said, and the rest is done.
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("the list lacks images of: cni-install"), "{said}");
    let images = std::fs::read_to_string(dir.join("bundle/images.txt")).unwrap();
    for image in [
        "docker.io/traefik:",
        "registry.k8s.io/etcd:",
        "ghcr.io/postfinance/kubelet-csr-approver:",
        "quay.io/prometheus/prometheus:",
        "sig-storage/nfs-subdir-external-provisioner:",
    ] {
        assert!(images.contains(image), "{image} in\n{images}");
    }
    for (name, of) in [("tigera-operator", "cni-install"), ("traefik-crds", "ingress-install")] {
        assert!(dir.join("bundle").join(name).exists(), "{said}");
        // Without a cache, and from the folder alone.
        let mut render = std::process::Command::new(binaries().join(of));
        render.args(["render", "--bundle", "bundle", "-f"]).arg(&document).current_dir(&dir);
        render.env("XDG_CACHE_HOME", dir.join("empty")).env("HTTP_PROXY", "http://127.0.0.1:9");
        let output = tokio::task::spawn_blocking(move || render.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
