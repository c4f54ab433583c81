//! `scripts/bundle --images`: a site's registry has every image that the tools will ask it for, digest by digest.
//!
//! The registries of the images' publishers are one real registry on this machine, which stands in for them by the mirrors of
//! containers-registries.conf(5).
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may")]

mod site;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use site::binaries;

struct Registry {
    child: Child,
    at: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn registry(dir: &Path) -> Registry {
    // Free a moment ago; one that is taken meanwhile ends the registry, which its log tells.
    let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let config = json!({"version": "0.1", "http": {"addr": at},
        "storage": {"filesystem": {"rootdirectory": dir.join("registry")}}});
    // JSON is YAML.
    std::fs::write(dir.join("registry.yml"), config.to_string()).unwrap();
    let log = std::fs::File::create(dir.join("registry.log")).unwrap();
    let mut serve = Command::new("docker-registry");
    serve.args(["serve", "registry.yml"]).current_dir(dir).stdout(Stdio::null()).stderr(log);
    let child = serve.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(&at).is_err() {
        let log = std::fs::read_to_string(dir.join("registry.log")).unwrap_or_default();
        assert!(Instant::now() < until, "the registry does not answer\n{log}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Registry { child, at }
}

/// A program with the mirrors of this test.
fn command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(home).env("HOME", home).env("XDG_CONFIG_HOME", home.join(".config"));
    command.env("KUBELINE_BIN", binaries());
    command
}

fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}\n{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// The digest under which a registry has an image.
fn digest(image: &str, home: &Path) -> String {
    let mut inspect = command("skopeo".as_ref(), home);
    done(inspect.args(["inspect", "--format", "{{.Digest}}", &format!("docker://{image}")])).trim().to_owned()
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

#[test]
fn the_images_of_a_bundle_reach_the_sites_registry() {
    let bin = binaries();
    for program in ["skopeo", "docker-registry"] {
        if !has(program) {
            println!("skipped: {program} is not installed (apt-get install {program})");
            return;
        }
    }
    if !bin.join("obs-install").exists() {
        println!("skipped: the tools are not built (cargo build --workspace --bins)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let registry = registry(home);
    let at = registry.at.as_str();
    let mirror = |host: &str| {
        format!(
            "[[registry]]\nlocation = \"{host}\"\n[[registry.mirror]]\nlocation = \"{at}/far/{host}\"\ninsecure = true\n"
        )
    };
    let own = format!("[[registry]]\nlocation = \"{at}\"\ninsecure = true\n");
    std::fs::create_dir_all(home.join(".config/containers")).unwrap();
    let mirrors = ["docker.io", "ghcr.io", "quay.io", "registry.k8s.io"].map(mirror).concat() + &own;
    std::fs::write(home.join(".config/containers/registries.conf"), mirrors).unwrap();
    std::fs::write(
        home.join(".config/containers/policy.json"),
        r#"{"default": [{"type": "insecureAcceptAnything"}]}"#,
    )
    .unwrap();

    let machine = |name: &str, role: &str, last: u8| {
        json!({"name": name, "role": role, "address": format!("192.0.2.{last}"),
            "hostKey": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHh0kVvPqYyPqvGGmWCTmI9fQF9RQ1wl5OgUhQvuWv5t"})
    };
    let mut document = json!({"apiVersion": "kubeline/v1", "kind": "Cluster", "metadata": {"name": "p"}, "spec": {
        "vip": {"address": "192.0.2.10", "routerId": 30}, "ssh": {"user": "kubeline", "identityFile": "id"},
        "machines": [machine("cp-1", "control-plane", 1), machine("w-1", "worker", 2)],
        "kubernetes": {"version": "1.36.2", "podCidr": "10.244.0.0/16", "serviceCidr": "10.96.0.0/12", "kubeconfig": "k"},
        "observability": {"prometheus": {"retention": "10d", "size": "20Gi"}}}});
    let write = |name: &str, document: &Value| std::fs::write(home.join(name), document.to_string()).unwrap();
    write("cluster.json", &document);
    let images = |file: &str, more: &[&str]| -> Vec<String> {
        let of = |tool: &str| done(command(&bin.join(tool), home).args(["images", "-f", file]).args(more));
        let said = ["kadm-bootstrap", "obs-install"].map(of).concat();
        // In the order of the bundle's list.
        let all: BTreeSet<&str> = said.lines().map(|line| line.split(' ').next().unwrap()).collect();
        all.into_iter().map(str::to_owned).collect()
    };
    // What the publishers have: each image with content of its own.
    let far = images("cluster.json", &["--upstream"]);
    assert!(far.len() >= 4, "{far:?}");
    for image in &far {
        let layout = layout(&home.join("layout"), image);
        let mut publish = command("skopeo".as_ref(), home);
        done(publish.args([
            "copy",
            "--quiet",
            &format!("oci:{}", layout.display()),
            &format!("docker://{at}/far/{image}"),
        ]));
    }

    let script: &Path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/bundle").as_ref();
    let bundle = || done(command(script, home).args(["--images", "cluster.json", "bundle"]));
    let said = bundle();
    assert!(said.contains(&format!("image 1 of {}: {}\n", far.len(), far[0])), "{said}");
    let again = bundle();
    assert!(again.contains(&format!("{} is there\n", far[0])), "what is there is not fetched again: {again}");
    done(command(&home.join("bundle/push"), home).arg(format!("{at}/site")));

    // What the tools ask for with that registry in the document is there, and is what the publisher has.
    document["spec"]["registry"] = format!("{at}/site").into();
    write("mirrored.json", &document);
    let near = images("mirrored.json", &[]);
    assert_eq!(near.len(), far.len());
    let mut wanted: Vec<String> =
        far.iter().map(|image| digest(&format!("{at}/far/{image}"), home)).collect();
    let mut found: Vec<String> = near.iter().map(|image| digest(image, home)).collect();
    wanted.sort();
    found.sort();
    wanted.dedup();
    assert_eq!((wanted.len(), &found), (far.len(), &wanted));
    println!("{} images went from their publishers to the site, digest by digest", found.len());
}

/// An image of one small layer, as an OCI layout.
fn layout(at: &Path, name: &str) -> std::path::PathBuf {
    let _ = std::fs::remove_dir_all(at);
    std::fs::create_dir_all(at.join("blobs/sha256")).unwrap();
    let put = |kind: &str, bytes: &[u8]| {
        let digest = sha256(bytes);
        std::fs::write(at.join("blobs/sha256").join(&digest), bytes).unwrap();
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    // Two blocks of zeros are an empty tar archive.
    let layer = [0; 1024];
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Labels": {"name": name}},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]}});
    let config = put("config.v1+json", config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
        "layers": [put("layer.v1.tar", &layer)]});
    let manifest = put("manifest.v1+json", manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(at.join("index.json"), index.to_string()).unwrap();
    std::fs::write(at.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    at.to_owned()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
