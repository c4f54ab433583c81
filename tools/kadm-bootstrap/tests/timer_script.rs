//! The script of the timer that saves etcd, run by a real shell with stand-ins for etcd, age and the mount.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test may fail so"
)]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cluster_doc::KubeVersion;
use kadm_bootstrap::files::{self, Saved};
use kadm_bootstrap::source::Source;
use serde_json::Value;

/// Where the script's absolute paths begin.
const ROOTS: [&str; 3] = ["/var/lib/", "/etc/kubernetes", "/run/containerd"];

/// The stand-ins, which play etcd's container, age, and a mount that is a link to a folder.
const STANDINS: [(&str, &str); 6] = [
    (
        "crictl",
        r#"shift 2
case "$1" in
ps) [ -e "$WORLD/no-etcd" ] || echo c0ffee ;;
exec)
  shift 2
  case "$*" in
  *'endpoint status'*) cat "$WORLD/status" ;;
  *'snapshot save'*)
    [ -e "$WORLD/no-space" ] && { echo 'no space left on device' >&2; exit 1; }
    for f; do :; done
    printf 'etcd in %s' "$(date +%N)" >"$f"
    [ -e "$WORLD/spoilt" ] || perl -e 'print pack "H*", $ARGV[0]' "$(sha256sum <"$f" | cut -d' ' -f1)" >>"$f" ;;
  'etcdutl snapshot status'*)
    [ -e "$WORLD/bad" ] && { echo 'hash mismatch' >&2; exit 2; }
    printf '{"hash":1,"revision":2,"totalKey":3,"totalSize":4}\n' ;;
  *) echo "crictl stand-in: $*" >&2; exit 127 ;;
  esac ;;
*) echo "crictl stand-in: $*" >&2; exit 127 ;;
esac"#,
    ),
    (
        "age",
        r#"[ "$1 $3" = '-r -o' ] || exit 127
[ -e "$WORLD/no-age" ] && exit 1
{ echo "for $2"; cat "$5"; } >"$4""#,
    ),
    (
        "mount",
        r#"[ "$1 $2 $5" = '-t nfs4 10.0.0.9:/srv/etcd' ] || exit 127
[ -e "$WORLD/no-mount" ] && { echo 'mount.nfs4: Connection timed out' >&2; exit 32; }
rmdir "$6" && ln -s "$WORLD/export" "$6""#,
    ),
    ("umount", r#"[ -L "$1" ] && rm "$1" && mkdir "$1""#),
    ("kubelet", "echo 'Kubernetes v1.36.2'"),
    // A clock that each attempt moves on, so that names differ without waiting.
    (
        "date",
        r#"case "$*" in
'-u +%Y-%m-%dT%H:%M:%SZ') n=$(cat "$WORLD/clock"); echo $((n + 1)) >"$WORLD/clock"; exec /bin/date -u -d "@$n" +%Y-%m-%dT%H:%M:%SZ ;;
*) exec /bin/date "$@" ;;
esac"#,
    ),
];

struct World {
    dir: tempfile::TempDir,
    script: PathBuf,
}

fn rendered() -> String {
    let version = KubeVersion::parse("1.36.2").unwrap();
    let saved = Saved {
        cluster: "prod".into(),
        recipient: "age1recipient".into(),
        server: "10.0.0.9".into(),
        export: "/srv/etcd".into(),
        schedule: "daily".into(),
        keep: 3,
    };
    let files = files::render(version, "registry.k8s.io", &Source::Present, Some(&saved)).unwrap();
    files.backup[files::BACKUP].content.clone()
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        for folder in [
            "bin",
            "export",
            "root/etc/kubernetes/manifests",
            "root/etc/kubernetes/pki/etcd",
            "root/var/lib/etcd",
            "root/var/lib/prometheus/node-exporter",
        ] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for (name, body) in STANDINS {
            let path = at("bin").join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::fs::write(at("root/etc/kubernetes/manifests/etcd.yaml"), "").unwrap();
        std::fs::write(at("root/etc/kubernetes/pki/ca.crt"), "-----BEGIN-----\nYWJj\n-----END-----\n")
            .unwrap();
        std::fs::write(at("clock"), "1800000000\n").unwrap();
        let script = at("script");
        let root = at("root");
        let text = ROOTS.iter().fold(rendered(), |t, r| t.replace(r, &format!("{}{r}", root.display())));
        std::fs::write(&script, text).unwrap();
        let world = World { dir, script };
        world.leads(true);
        world
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Ids as etcd has them: greater than a float or a signed number holds.
    fn leads(&self, leads: bool) {
        let leader = if leads { 17_293_822_569_102_704_640_u64 } else { 7 };
        let status = format!(
            r#"[{{"Endpoint":"https://127.0.0.1:2379","Status":{{"header":{{"cluster_id":1,"member_id":17293822569102704640,"revision":5,"raft_term":2}},"version":"3.6.8","dbSize":1,"leader":{leader},"raftIndex":9,"raftTerm":2}}}}]"#
        );
        std::fs::write(self.at("status"), status).unwrap();
    }

    fn set(&self, what: &str, on: bool) {
        let path = self.at(what);
        if on { std::fs::write(path, "").unwrap() } else { std::fs::remove_file(path).unwrap() }
    }

    fn run(&self) -> Output {
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.at("bin").display());
        let mut shell = Command::new("sh");
        shell.arg(&self.script).env_clear().env("PATH", path).env("WORLD", self.dir.path());
        shell.output().unwrap()
    }

    fn good(&self) {
        let output = self.run();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn export(&self) -> Vec<String> {
        names(&self.at("export"))
    }

    fn metrics(&self) -> Option<String> {
        std::fs::read_to_string(self.at("root/var/lib/prometheus/node-exporter/kubeline-etcd-backup.prom"))
            .ok()
    }

    /// What an attempt leaves on the machine beside the metrics: nothing.
    fn left(&self) -> Vec<String> {
        let mut left = names(&self.at("root/var/lib/kubeline"));
        left.extend(names(&self.at("root/var/lib/etcd")));
        left
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut all: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

fn value(metrics: &str, name: &str) -> Option<u64> {
    metrics.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok())
}

#[test]
fn a_backup_is_whole_and_so_many_are_kept() {
    let world = World::new();
    std::fs::write(world.at("export/prod-notes.tar.age"), "somebody's").unwrap();
    std::fs::write(world.at("export/other-20270115T080000Z.tar.age"), "another cluster's").unwrap();
    std::fs::write(world.at("export/prod-20260101T000000Z.tar.age.part"), "cut off").unwrap();
    for n in 0..5 {
        if n == 4 {
            let pod = "spec:\n  containers:\n  - name: kube-apiserver\n    image: \"r.example:5000/kube-apiserver:v1.36.3\"\n";
            std::fs::write(world.at("root/etc/kubernetes/manifests/kube-apiserver.yaml"), pod).unwrap();
        }
        world.good();
        assert_eq!(world.left(), Vec::<String>::new());
    }
    let newest = ["20270115T080002Z", "20270115T080003Z", "20270115T080004Z"];
    let mut due = vec!["other-20270115T080000Z.tar.age".to_owned()];
    due.extend(newest.iter().flat_map(|n| [format!("prod-{n}.json"), format!("prod-{n}.tar.age")]));
    due.push("prod-notes.tar.age".to_owned());
    assert_eq!(world.export(), due);
    let sealed = std::fs::read(world.at("export/prod-20270115T080004Z.tar.age")).unwrap();
    let manifest = std::fs::read(world.at("export/prod-20270115T080003Z.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["version"], "v1.36.2", "the kubelet's, as long as there is no API server");
    let manifest = std::fs::read(world.at("export/prod-20270115T080004Z.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let (first, content) = sealed.split_at(sealed.iter().position(|b| *b == b'\n').unwrap() + 1);
    assert_eq!(first, b"for age1recipient\n");
    let sha256 = kadm_bootstrap::certificate::sha256;
    assert_eq!(manifest["sha256"], sha256(&sealed));
    assert_eq!(manifest["contentSha256"], sha256(content));
    assert_eq!(manifest["caSha256"], sha256(b"abc"));
    assert_eq!((&manifest["version"], &manifest["snapshot"]["totalKey"]), (&"v1.36.3".into(), &3.into()));
    // It is a manifest that `restore` reads.
    let read: kadm_bootstrap::backup::Manifest = serde_json::from_value(manifest).unwrap();
    assert_eq!(read.file, "prod-20270115T080004Z.tar.age");
    // Others cannot read what is saved; node-exporter, which is no root, reads the metrics.
    let mode = |p: &str| world.at(p).metadata().unwrap().mode() & 0o777;
    assert_eq!(mode("export/prod-20270115T080004Z.tar.age"), 0o600);
    assert_eq!(mode("root/var/lib/prometheus/node-exporter/kubeline-etcd-backup.prom"), 0o644);
    let metrics = world.metrics().unwrap();
    assert_eq!(value(&metrics, "kubeline_etcd_backup_success "), Some(1));
    assert!(value(&metrics, "kubeline_etcd_backup_timestamp_seconds ").is_some());
}

#[test]
fn a_failure_is_told_and_costs_no_backup() {
    let world = World::new();
    world.good();
    let (before, saved) = (world.export(), world.metrics().unwrap());
    let when = value(&saved, "kubeline_etcd_backup_timestamp_seconds ");
    for fault in ["no-etcd", "no-space", "spoilt", "bad", "no-age", "no-mount"] {
        world.set(fault, true);
        let output = world.run();
        assert!(!output.status.success(), "{fault}");
        assert_eq!(world.export(), before, "{fault}");
        assert_eq!(world.left(), Vec::<String>::new(), "{fault}");
        let metrics = world.metrics().unwrap();
        assert_eq!(value(&metrics, "kubeline_etcd_backup_success "), Some(0), "{fault}");
        assert_eq!(value(&metrics, "kubeline_etcd_backup_timestamp_seconds "), when, "{fault}");
        world.set(fault, false);
        world.good();
        std::fs::remove_dir_all(world.at("export")).unwrap();
        std::fs::create_dir(world.at("export")).unwrap();
        std::fs::write(world.at("clock"), "1800000000\n").unwrap();
        world.good();
        let metrics = world.metrics().unwrap();
        assert_eq!(value(&metrics, "kubeline_etcd_backup_success "), Some(1), "{fault}");
        std::fs::write(world.at("root/var/lib/prometheus/node-exporter/kubeline-etcd-backup.prom"), &saved)
            .unwrap();
    }
    // An answer that names no leader is no reason to think that another one saves it.
    std::fs::write(world.at("status"), "[]").unwrap();
    assert!(!world.run().status.success());
}

#[test]
fn one_member_saves_the_cluster() {
    let world = World::new();
    world.good();
    world.leads(false);
    world.good();
    assert_eq!(world.export().len(), 2);
    assert_eq!(world.metrics(), None, "who does not lead tells nothing");
    // Without node-exporter there is nobody to tell; a machine without etcd has nothing to save.
    world.leads(true);
    std::fs::remove_dir(world.at("root/var/lib/prometheus/node-exporter")).unwrap();
    world.good();
    std::fs::remove_file(world.at("root/etc/kubernetes/manifests/etcd.yaml")).unwrap();
    world.good();
    assert_eq!(world.export().len(), 4);
}

#[test]
fn shellcheck_finds_nothing() {
    let world = World::new();
    match Command::new("shellcheck").args(["-s", "sh"]).arg(&world.script).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(_) => eprintln!("skipped: shellcheck is not installed (apt-get install shellcheck)"),
    }
}
