//! kadm-bootstrap against a real etcd: members seen as they are, backups that hold, and a cluster made again from one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cluster_doc::KubeVersion;
use hosts::etcd::{self, DAMAGE, EXPORT, Pki, asked, ctl, manifest, put};
use hosts::{Machine, Site, alone, until};
use kadm_bootstrap::files::{self, Saved};
use kadm_bootstrap::seen::MemberSeen;
use kadm_bootstrap::source::Source;
use kadm_bootstrap::{backup, restore, roll, state, wal};
use remote::{Command, Host, RemoteFile, Target};

/// How long etcd may take for anything that it does by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// The tool's own connection to a machine.
async fn host(site: &Site, machine: &Machine) -> Host {
    let target = Target {
        identity_file: Some(site.dir.join("id")),
        host_keys: vec![machine.host_key.clone()],
        ..Target::new(&machine.name, machine.address.to_string(), "kubeline")
    };
    Host::connect(target).await.unwrap()
}

async fn members(host: &Host) -> Vec<MemberSeen> {
    kadm_bootstrap::etcd::members(host).await.unwrap_or_else(|why| panic!("{}: {why}", host.name()))
}

/// Name, learner, healthy of each.
fn told(members: &[MemberSeen]) -> Vec<(&str, bool, bool)> {
    members.iter().map(|m| (m.name.as_str(), m.learner, m.healthy)).collect()
}

/// Waits until the tool sees the members so.
async fn seen(host: &Host, due: &[(&str, bool, bool)]) -> Vec<MemberSeen> {
    let mut last = Err(String::new());
    let found = until("the members", PATIENCE, async || {
        last = kadm_bootstrap::etcd::members(host).await;
        last.as_ref().is_ok_and(|members| told(members) == due)
    });
    let found = found.await;
    assert!(found.is_ok(), "not {due:?} but {last:?}");
    last.unwrap()
}

/// What `kubeadm join` does with etcd: a learner, its static pod, its promotion once it has caught up.
async fn join(helper: &Machine, machine: &Machine, cluster: &[&Machine]) {
    let peer = format!("--peer-urls=https://{}:2380", machine.address);
    // Within five seconds of another's start etcd refuses; kubeadm asks again too.
    until("the learner", PATIENCE, async || {
        ctl(helper, &["member", "add", &machine.name, "--learner", &peer])
            .await
            .is_ok_and(|said| said.status.success())
    })
    .await
    .unwrap();
    manifest(machine, cluster, true).unwrap();
    promote(helper, machine).await;
}

async fn promote(helper: &Machine, machine: &Machine) {
    let peer = format!("https://{}:2380", machine.address);
    let list = asked(helper, &["member", "list"]).await.unwrap();
    let id = list.lines().find(|l| l.contains(&peer)).unwrap().split(',').next().unwrap().to_owned();
    until("the promotion", PATIENCE, async || {
        ctl(helper, &["member", "promote", &id]).await.is_ok_and(|said| said.status.success())
    })
    .await
    .unwrap();
}

async fn logged(machine: &Machine, words: &str) {
    let found =
        until(words, PATIENCE, async || etcd::log(machine).await.is_ok_and(|log| log.contains(words)));
    if let Err(why) = found.await {
        let log = etcd::log(machine).await.unwrap();
        panic!("{}: {why}\n{}", machine.name, log.lines().rev().take(30).collect::<Vec<_>>().join("\n"));
    }
}

fn error(said: &std::process::Output) -> String {
    assert!(!said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    String::from_utf8_lossy(&said.stderr).into_owned()
}

async fn wiped(machine: &Machine) {
    etcd::stop(machine).await.unwrap();
    machine.ok(&["rm", "-rf", "/var/lib/etcd/member"]).await.unwrap();
}

#[test]
fn members_are_seen_as_they_are() {
    alone("members_are_seen_as_they_are", 3, async |site| {
        let pki = Pki::new().unwrap();
        for machine in &site.machines {
            pki.hand_out(machine).unwrap();
            pki.certify(machine).unwrap();
            etcd::prepare(machine).await.unwrap();
        }
        let [one, two, three] = site.machines.as_slice() else { panic!() };
        let (h1, h2, h3) = (host(&site, one).await, host(&site, two).await, host(&site, three).await);
        let none = kadm_bootstrap::etcd::members(&h1).await.unwrap_err();
        assert_eq!(none, "no container of etcd runs");
        manifest(one, &[one], false).unwrap();
        seen(&h1, &[("lb-1", false, true)]).await;

        // A learner that has not started has no name; the tool knows it by its peer address.
        let peer = |m: &Machine| format!("--peer-urls=https://{}:2380", m.address);
        asked(one, &["member", "add", &two.name, "--learner", &peer(two)]).await.unwrap();
        let unstarted = seen(&h1, &[("", true, false), ("lb-1", false, true)]).await;
        assert_eq!(unstarted[0].peers, ["https://10.99.0.12:2380"]);
        let too_many = error(&ctl(one, &["member", "add", "x", "--learner", &peer(three)]).await.unwrap());
        assert!(too_many.contains("etcdserver: too many learner members in cluster"), "{too_many}");
        let again = error(&ctl(one, &["member", "add", "x", "--learner", &peer(two)]).await.unwrap());
        // An id is made of the address and the second: within that one it is the id that is there already.
        let either = ["etcdserver: Peer URLs already exists", "etcdserver: member ID already exist"];
        assert!(either.iter().any(|t| again.contains(t)), "{again}");
        manifest(two, &[one, two], true).unwrap();
        let learner = seen(&h1, &[("lb-1", false, true), ("lb-2", true, false)]).await;
        assert!(state::may_go(&learner, learner[1].id));
        promote(one, two).await;
        seen(&h1, &[("lb-1", false, true), ("lb-2", false, true)]).await;
        join(one, three, &[one, two, three]).await;
        let whole = seen(&h2, &[("lb-1", false, true), ("lb-2", false, true), ("lb-3", false, true)]).await;
        assert!(whole.iter().all(|m| state::may_go(&whole, m.id)));
        // Its own account of its disk.
        let metrics = h1.ok(&Command::sh(wal::SCRIPT).sudo()).await.unwrap();
        let wal = wal::read(&metrics.text()).unwrap();
        assert!(wal.count > 5 && wal.p99 > 0, "{wal:?}");

        // One without its data that takes its old place: its leader believes that it has what it had.
        wiped(three).await;
        three.ok(&["systemctl", "start", "kubelet"]).await.unwrap();
        logged(three, "tocommit(").await;
        let log = etcd::log(three).await.unwrap();
        assert!(log.contains("Was the raft log corrupted, truncated, or lost?"), "{log}");
        etcd::stop(three).await.unwrap();

        // One is down: the tool's rule on who may go is etcd's own.
        let down = seen(&h1, &[("lb-1", false, true), ("lb-2", false, true), ("lb-3", false, false)]).await;
        assert_eq!(down.iter().map(|m| state::may_go(&down, m.id)).collect::<Vec<_>>(), [false, false, true]);
        let refused = kadm_bootstrap::etcd::remove(&h1, down[1].id).await.unwrap_err();
        assert!(refused.contains("etcdserver: unhealthy cluster"), "{refused}");
        kadm_bootstrap::etcd::remove(&h1, down[2].id).await.unwrap();
        let two_left = seen(&h1, &[("lb-1", false, true), ("lb-2", false, true)]).await;
        let gone = kadm_bootstrap::etcd::remove(&h1, down[2].id).await.unwrap_err();
        assert!(gone.contains("etcdserver: member not found"), "{gone}");

        // What was removed does not come back, neither into this cluster nor, with `existing`, as one of its own.
        wiped(three).await;
        three.ok(&["systemctl", "start", "kubelet"]).await.unwrap();
        logged(three, "error validating peerURLs").await;
        logged(three, "member count is unequal").await;
        manifest(three, &[three], true).unwrap();
        logged(three, "could not retrieve cluster information from the given URLs").await;
        // With `new`, as kubeadm's init writes it, it does: that is why the tool has it written otherwise.
        manifest(three, &[three], false).unwrap();
        seen(&h3, &[("lb-3", false, true)]).await;
        assert_eq!(told(&members(&h1).await), [("lb-1", false, true), ("lb-2", false, true)]);
        etcd::stop(three).await.unwrap();

        // The quorum is lost: an answer in bounded time, and no removal. What there is can be saved all the same.
        etcd::stop(two).await.unwrap();
        let asked_at = Instant::now();
        let (lost, saved) = futures::join!(
            kadm_bootstrap::etcd::members(&h1),
            roll::snapshot(&h1, "/var/lib/kubeline/etcd-before-1.36.2.db"),
        );
        let lost = lost.unwrap_err();
        // Now that its leader has stepped down: what it was asked for before that may still happen later.
        let kept = kadm_bootstrap::etcd::remove(&h1, two_left[1].id).await.unwrap_err();
        assert!(lost.contains("context deadline exceeded"), "{lost}");
        assert!(kept.contains("Error: "), "{kept}");
        assert!(asked_at.elapsed() < Duration::from_secs(20), "{:?}", asked_at.elapsed());
        saved.unwrap_or_else(|why| panic!("a snapshot wants no quorum: {why:?}"));
        two.ok(&["systemctl", "start", "kubelet"]).await.unwrap();
        let whole = seen(&h1, &[("lb-1", false, true), ("lb-2", false, true)]).await;

        // One that was removed while it ran: not within five seconds of the start of another.
        let early = kadm_bootstrap::etcd::remove(&h1, whole[1].id).await.unwrap_err();
        assert!(early.contains("etcdserver: unhealthy cluster"), "{early}");
        until("the removal", PATIENCE, async || kadm_bootstrap::etcd::remove(&h1, whole[1].id).await.is_ok())
            .await
            .unwrap();
        seen(&h1, &[("lb-1", false, true)]).await;
        logged(two, "the member has been permanently removed from the cluster").await;
        assert!(kadm_bootstrap::etcd::members(&h2).await.is_err());
    });
}

/// An age identity in a file of the operator's, and its recipient.
fn identity(site: &Site) -> (PathBuf, String) {
    use age::secrecy::ExposeSecret as _;
    use std::os::unix::fs::PermissionsExt as _;
    let key = age::x25519::Identity::generate();
    let path = site.dir.join("age.key");
    std::fs::write(&path, key.to_string().expose_secret()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    (path, key.to_public().to_string())
}

/// Installs the timer's files as the tool renders them, and what they need of Debian.
async fn timer(machine: &Machine, host: &Host, recipient: &str) {
    machine.ok(&["apt-get", "update", "-q"]).await.unwrap();
    machine.ok(&["apt-get", "install", "-y", "-q", "age"]).await.unwrap();
    machine.ok(&["mkdir", "-p", "/var/lib/prometheus/node-exporter"]).await.unwrap();
    let saved = Saved {
        cluster: "real".into(),
        recipient: recipient.into(),
        server: "10.99.0.1".into(),
        export: EXPORT.into(),
        schedule: "*-*-* 03:00:00".into(),
        keep: 2,
    };
    let version = KubeVersion::parse("1.36.2").unwrap();
    let files = files::render(version, "registry.k8s.io", &Source::Present, Some(&saved)).unwrap();
    for (path, file) in &files.backup {
        host.write(&RemoteFile::new(path, file.content.clone())).await.unwrap();
    }
    machine.ok(&["systemctl", "daemon-reload"]).await.unwrap();
    machine.ok(&["systemctl", "enable", "--now", files::TIMER_UNIT]).await.unwrap();
    let next = machine.ok(&["systemctl", "show", "-p", "NextElapseUSecRealtime", files::TIMER_UNIT]).await;
    assert!(next.unwrap().contains(" 03:00:00 "), "the timer has no next time");
}

/// Runs the timer's service to its end; whether it ended well.
async fn save(machine: &Machine) -> bool {
    machine.run(&["systemctl", "start", "kubeline-etcd-backup.service"]).await.unwrap().status.success()
}

fn names(machine: &Machine, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(machine.file(folder)).into_iter().flatten();
    let mut all: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

fn success(machine: &Machine) -> Option<String> {
    let path = machine.file("/var/lib/prometheus/node-exporter/kubeline-etcd-backup.prom");
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|l| l.strip_prefix("kubeline_etcd_backup_success ")).map(str::to_owned)
}

/// etcd's revision, as it tells it of itself.
async fn revision(machine: &Machine) -> u64 {
    let said = asked(machine, &["endpoint", "status", "-w", "json"]).await.unwrap();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    said[0]["Status"]["header"]["revision"].as_u64().unwrap()
}

/// Nothing of a snapshot stays where etcd has its data, nor of what was packed beside it.
fn clean(machine: &Machine) {
    assert_eq!(names(machine, "/var/lib/etcd"), ["member"], "{}", machine.name);
    let left = names(machine, "/var/lib/kubeline");
    let left: Vec<_> =
        left.iter().filter(|n| n.starts_with("backup.") || n.starts_with("restore.")).collect();
    assert!(left.is_empty(), "{}: {left:?}", machine.name);
}

#[test]
fn a_backup_holds_and_is_restored() {
    alone("a_backup_holds_and_is_restored", 3, async |site| {
        let pki = Pki::new().unwrap();
        let [one, two, three] = site.machines.as_slice() else { panic!() };
        for machine in [one, two] {
            pki.hand_out(machine).unwrap();
            pki.certify(machine).unwrap();
        }
        for machine in &site.machines {
            etcd::prepare(machine).await.unwrap();
        }
        let (h1, h2, h3) = (host(&site, one).await, host(&site, two).await, host(&site, three).await);
        manifest(one, &[one], false).unwrap();
        seen(&h1, &[("lb-1", false, true)]).await;
        join(one, two, &[one, two]).await;
        seen(&h1, &[("lb-1", false, true), ("lb-2", false, true)]).await;
        for n in 0..40 {
            let (key, value) = (format!("/registry/configmaps/{n}"), format!("value-{n}-").repeat(500));
            asked(one, &["put", &key, &value]).await.unwrap();
        }

        // Before an upgrade: saved and verified, earlier ones gone.
        put(one, "/var/lib/kubeline/etcd-before-1.35.9.db", "old", 0o600).unwrap();
        let before = "/var/lib/kubeline/etcd-before-1.36.2.db";
        roll::snapshot(&h1, before).await.unwrap();
        assert_eq!(names(one, "/var/lib/kubeline"), ["etcd-before-1.36.2.db"]);
        clean(one);
        let good = std::fs::read(one.file(before)).unwrap();
        // One that a disk spoils is no snapshot, however it is spoilt; the one before stays.
        for (how, damage) in [
            ("cut", r#"truncate -s 100000 "$1""#),
            ("cut at its end", r#"truncate -s -1 "$1""#),
            ("emptied", r#"truncate -s 0 "$1""#),
            ("changed in a value", r#"sed -i 's/value-17-value/value-17-eulav/' "$1""#),
        ] {
            put(one, DAMAGE, damage, 0o755).unwrap();
            let refused = roll::snapshot(&h1, before).await;
            let ran =
                h1.run(&Command::sh(backup::BACKUP).arg("/var/lib/kubeline/b.tar").sudo()).await.unwrap();
            std::fs::remove_file(one.file(DAMAGE)).unwrap();
            let why = match refused {
                Ok(()) => panic!("{how}: taken for a snapshot"),
                Err(why) => format!("{why:?}"),
            };
            let said = "it does not match the SHA-256 at its end";
            assert!(why.contains(said), "{how}: {why}");
            assert!(!ran.success() && ran.tail().contains(said), "{how}: {}", ran.tail());
            assert!(std::fs::read(one.file(before)).unwrap() == good, "{how}: the good one is gone");
            assert!(!one.file("/var/lib/kubeline/b.tar").exists(), "{how}");
            clean(one);
        }

        // The operator's own backup.
        let ran = h1.run(&Command::sh(backup::BACKUP).arg("/var/lib/kubeline/b.tar").sudo()).await.unwrap();
        assert!(ran.success(), "{}", ran.tail());
        let text = ran.text();
        let status = text.lines().rev().nth(1).unwrap();
        let status = kadm_bootstrap::etcd::snapshot_status(status.as_bytes()).unwrap();
        assert_eq!((status.total_key >= 40, status.revision), (true, revision(one).await));
        let inside = one.ok(&["tar", "-tf", "/var/lib/kubeline/b.tar"]).await.unwrap();
        for file in ["snapshot.db", "pki/ca.key", "pki/etcd/ca.key", "pki/front-proxy-ca.key", "pki/sa.key"] {
            assert!(inside.lines().any(|l| l == file), "{file} in {inside}");
        }
        clean(one);

        // The timer: one of the members saves, the one that leads.
        let (key, recipient) = identity(&site);
        futures::join!(timer(one, &h1, &recipient), timer(two, &h2, &recipient));
        assert!(save(one).await && save(two).await);
        let exports = [names(one, EXPORT), names(two, EXPORT)];
        let [leader, follower] = if exports[0].is_empty() { [two, one] } else { [one, two] };
        assert_eq!((names(leader, EXPORT).len(), names(follower, EXPORT).len()), (2, 0), "{exports:?}");
        assert_eq!((success(leader).as_deref(), success(follower)), (Some("1"), None));
        clean(leader);
        put(leader, DAMAGE, r#"sed -i 's/value-17-value/value-17-eulav/' "$1""#, 0o755).unwrap();
        assert!(!save(leader).await, "the timer took a spoilt snapshot for one");
        std::fs::remove_file(leader.file(DAMAGE)).unwrap();
        assert_eq!((names(leader, EXPORT).len(), success(leader).as_deref()), (2, Some("0")));
        clean(leader);
        let name = names(leader, EXPORT).into_iter().find(|n| n.ends_with(".tar.age")).unwrap();
        for name in names(leader, EXPORT) {
            std::fs::copy(leader.file(EXPORT).join(&name), site.dir.join(&name)).unwrap();
        }
        let (found, content) = backup::looked_at(site.dir.join(&name), key.clone()).unwrap();
        assert_eq!(found.manifest.snapshot.revision, revision(one).await);
        let ca = pki.shared()[0].1.lines().filter(|l| !l.starts_with('-')).collect::<String>();
        let ca = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, ca).unwrap();
        assert_eq!(found.manifest.ca_sha256, kadm_bootstrap::certificate::sha256(&ca));

        // What came after it is lost; what was before is not.
        asked(one, &["put", "/registry/later", "lost"]).await.unwrap();
        let last = revision(one).await;
        aside(one, &h1, &["etcd-aside"]).await;
        aside(two, &h2, &["etcd-aside"]).await;
        restore::aside(&h2).await.unwrap();
        assert_eq!(asides(two), ["etcd-aside"], "nothing was there to put aside");

        // Another digest, another image: nothing is in place.
        unpack(&h3, three, &found, &content, "0".repeat(64).as_str(), etcd::IMAGE).await.unwrap_err();
        assert!(!three.file("/etc/kubernetes/pki/ca.key").exists());
        let none = unpack(&h3, three, &found, &content, &content.sha256, "registry.k8s.io/etcd:0").await;
        assert!(none.unwrap_err().contains("failed to pull"));
        assert!(!three.file("/var/lib/etcd/member").exists());
        // A run that was cut off by a power failure left its container.
        three.ok(&["mkdir", "-p", "/run/containers/kubeline-restore"]).await.unwrap();
        unpack(&h3, three, &found, &content, &content.sha256, etcd::IMAGE).await.unwrap();
        clean(three);
        for (file, content, mode) in pki.shared() {
            let path = three.file(&format!("/etc/kubernetes/pki/{file}"));
            assert_eq!(&std::fs::read_to_string(&path).unwrap(), content, "{file}");
            let is = std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap()) & 0o777;
            assert_eq!((is, file), (*mode, file));
        }

        // kubeadm's init makes the certificates and the static pod, which never begins a cluster.
        pki.certify(three).unwrap();
        manifest(three, &[three], true).unwrap();
        seen(&h3, &[("lb-3", false, true)]).await;
        let all = asked(three, &["get", "/registry/configmaps/", "--prefix", "--keys-only"]).await.unwrap();
        assert_eq!(all.lines().filter(|l| !l.is_empty()).count(), 40);
        let one_value =
            asked(three, &["get", "/registry/configmaps/17", "--print-value-only"]).await.unwrap();
        assert_eq!(one_value.trim(), "value-17-".repeat(500));
        assert_eq!(asked(three, &["get", "/registry/later"]).await.unwrap(), "");
        // No watch goes on from before: its events would be others'.
        assert!(revision(three).await > last + 900_000_000);
        let from = (last + 1).to_string();
        let watched = ctl(three, &["watch", "--rev", &from, "/registry/", "--prefix"]).await.unwrap();
        let said = String::from_utf8_lossy(&[watched.stdout, watched.stderr].concat()).into_owned();
        assert!(said.contains("required revision has been compacted"), "{said}");

        // The others join it like any other cluster.
        one.ok(&["systemctl", "start", "kubelet"]).await.unwrap();
        join(three, one, &[one, three]).await;
        seen(&h3, &[("lb-1", false, true), ("lb-3", false, true)]).await;
        assert_eq!(revision(one).await, revision(three).await);
        aside(one, &h1, &["etcd-aside", "etcd-aside-2"]).await;
    });
}

fn asides(machine: &Machine) -> Vec<String> {
    names(machine, "/var/lib/kubeline").into_iter().filter(|n| n.starts_with("etcd-aside")).collect()
}

/// Puts etcd's data aside; then there are these.
async fn aside(machine: &Machine, host: &Host, due: &[&str]) {
    restore::aside(host).await.unwrap();
    assert_eq!(asides(machine), due);
    let newest = format!("/var/lib/kubeline/{}", due.last().unwrap());
    assert!(machine.file(&newest).join("snap/db").is_file());
    assert_eq!(names(machine, "/var/lib/etcd"), Vec::<String>::new());
    assert!(!machine.run(&["systemctl", "is-active", "etcd"]).await.unwrap().status.success());
    // As kubeadm's reset does.
    machine.ok(&["rm", "-f", "/etc/kubernetes/manifests/etcd.yaml"]).await.unwrap();
}

/// Sends what is in a backup and unpacks it, as `restore` does.
async fn unpack(
    host: &Host,
    machine: &Machine,
    found: &backup::Found,
    content: &remote::Content,
    sha256: &str,
    image: &str,
) -> Result<(), String> {
    let tar = "/var/lib/kubeline/restore.tar";
    host.send(tar, 0o600, content, &mut backup::open(found).unwrap()).await.unwrap();
    let peer = format!("https://{}:2380", machine.address);
    let command = Command::sh(restore::UNPACK)
        .args([tar, sha256, &machine.name, &peer, image])
        .sudo()
        .timeout(Duration::from_secs(60));
    let output = host.run(&command).await.unwrap();
    assert!(!machine.file(tar).exists() && names(machine, "/var/lib/kubeline").is_empty());
    if output.success() { Ok(()) } else { Err(format!("exit {}: {}", output.exit, output.tail())) }
}
