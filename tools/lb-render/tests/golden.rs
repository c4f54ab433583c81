//! Golden cases: a document and what is there, to files and plans; and the real `haproxy -c` on the files.
//!
//! A case is a folder below `tests/golden`: `cluster.json`, perhaps `seen.json`, other files of the operator's;
//! expected are `plan.txt` or `teardown.txt` for a `seen.json`, and the folder `render`. `BLESS=1` writes
//! what is; review it with `git diff`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests fail loudly")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cluster_doc::Document;
use lb_render::seen::{FileSeen, Seen};
use lb_render::{LbRender, Want};
use stage::{Site, Tool as _};

fn cases() -> Vec<PathBuf> {
    laws::golden::cases(env!("CARGO_MANIFEST_DIR"))
}

/// The case's files in a folder of their own, secrets readable by their owner alone.
fn want(case: &Path) -> (Want, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    copy(case, dir.path());
    let site = Site::new(dir.path().into(), Arc::new(|_| None));
    let doc = Document::parse(std::fs::read(case.join("cluster.json")).unwrap()).unwrap();
    (lb_render::want::want(&doc, &site).unwrap(), dir)
}

fn copy(from: &Path, to: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// Seen data may say `{"ours": "wanted"}` for the file that is wanted, and `kubeline wanted` for what runs.
fn seen(case: &Path, want: &Want) -> Option<Seen> {
    let text = std::fs::read(case.join("seen.json")).ok()?;
    let mut seen: Seen = serde_json::from_slice(&text).unwrap();
    for (name, machine) in &mut seen.machines {
        let balancer = want.balancer(name).unwrap();
        if machine.config == FileSeen::Ours("wanted".into()) {
            machine.config = FileSeen::Ours(lb_render::config::digest(balancer.text.text.as_bytes()));
        }
        if let Some(running) = machine.running.as_mut().filter(|r| r.description == "kubeline wanted") {
            running.description = lb_render::config::mark(&balancer.text.digest);
        }
    }
    Some(seen)
}

#[test]
fn cases_give_what_is_expected() {
    let mut wrong = Vec::new();
    for case in cases() {
        let (want, _dir) = want(&case);
        let mut all: BTreeMap<String, String> = LbRender::render(&want)
            .unwrap()
            .unwrap()
            .into_iter()
            .map(|f| (format!("render/{}", f.path), String::from_utf8(f.content).unwrap()))
            .collect();
        if let Some(seen) = seen(&case, &want) {
            let plan = if case.ends_with("teardown") {
                LbRender::teardown(&want, &seen).text("lb-render")
            } else {
                LbRender::plan(&want, &seen).text("lb-render")
            };
            all.insert("plan.txt".into(), plan);
            if case.ends_with("drift") {
                let found = LbRender::check(&want, &seen);
                let lines: String = found.iter().map(|f| format!("{}: {}\n", f.what, f.message)).collect();
                all.insert("check.txt".into(), lines);
                let status = serde_json::to_string_pretty(&LbRender::status(&want, &seen)).unwrap();
                all.insert("status.json".into(), status + "\n");
            }
            // What only plans keeps no second copy of the same files.
            if !case.ends_with("pools") {
                all.retain(|name, _| !name.starts_with("render/"));
            }
        }
        wrong.extend(laws::golden::differences(&case, all));
    }
    assert!(wrong.is_empty(), "{wrong:#?}\nBLESS=1 writes them");
}

/// A certificate with its key, as HAProxy wants it.
fn certificate() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::new(vec!["kubernetes".into()]).unwrap().self_signed(&key).unwrap();
    (made.pem(), key.serialize_pem())
}

#[test]
fn the_real_haproxy_takes_them() {
    let haproxy =
        ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"].into_iter().find(|p| Path::new(p).exists());
    let Some(haproxy) = haproxy else {
        println!("skipped: haproxy is not installed (apt-get install haproxy)");
        return;
    };
    let (certificate, key) = certificate();
    for case in cases() {
        let (want, dir) = want(&case);
        // HAProxy reads what a configuration refers to: something real in the place of the case's own.
        let folder = dir.path().join("kubeline");
        for path in want.files.seen().keys() {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let with_key = path.parent().unwrap().ends_with("certs");
            let key = if with_key { key.as_str() } else { "" };
            std::fs::write(path, format!("{certificate}{key}")).unwrap();
        }
        for balancer in &want.balancers {
            let text = balancer.text.text.replace(lb_render::files::FOLDER, folder.to_str().unwrap());
            let file = dir.path().join("haproxy.cfg");
            std::fs::write(&file, text).unwrap();
            let said = Command::new(haproxy).arg("-c").arg("-f").arg(&file).output().unwrap();
            let told = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(said.status.success(), "{}: {told}", case.display());
            assert!(!told.contains("WARNING"), "{}: {told}", case.display());
        }
    }
}

#[test]
fn a_real_haproxy_tells_its_configuration_and_servers() {
    let haproxy = Path::new("/usr/sbin/haproxy");
    if !haproxy.exists() {
        println!("skipped: haproxy is not installed (apt-get install haproxy)");
        return;
    }
    let (want, dir) = want(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/machines"));
    let balancer = &want.balancers[0];
    let socket = dir.path().join("admin.sock").display().to_string();
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (api, stats) = (port(), port());
    let text: String = balancer
        .text
        .text
        .lines()
        .filter(|l| !["chroot", "user ", "group "].iter().any(|word| l.trim_start().starts_with(word)))
        .map(|l| l.replace(lb_render::config::SOCKET, &socket).replace("*:6443", &format!("127.0.0.1:{api}")))
        .map(|l| l.replace("192.0.2.11:8404", &format!("127.0.0.2:{stats}")))
        .map(|l| l.replace("127.0.0.1:8404", &format!("127.0.0.1:{stats}")) + "\n")
        .collect();
    let file = dir.path().join("haproxy.cfg");
    std::fs::write(&file, text).unwrap();
    let mut running = Command::new(haproxy).arg("-db").arg("-f").arg(&file).spawn().unwrap();
    let ask = |command: &str| {
        let args = ["-c", lb_render::runtime::SCRIPT, "sh", &socket, command];
        let said = Command::new("sh").args(args).output().unwrap();
        said.status.success().then(|| String::from_utf8(said.stdout).unwrap())
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let info = loop {
        match ask("show info") {
            Some(text) => break text,
            None => assert!(std::time::Instant::now() < deadline, "the socket does not answer"),
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let servers = lb_render::runtime::servers(&ask("show stat").unwrap());
    let monitor = std::net::TcpStream::connect(("127.0.0.1", stats)).and_then(|mut stream| {
        use std::io::{Read as _, Write as _};
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    });
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(
        lb_render::runtime::info(&info)["description"],
        lb_render::config::mark(&balancer.text.digest)
    );
    let names: Vec<String> = servers.iter().map(|s| format!("{}/{}", s.backend, s.server)).collect();
    assert_eq!(names, balancer.config.servers());
    assert!(monitor.unwrap().contains(" 200 OK"), "HAProxy answers for itself with no server up");
    assert!(ask("show info").is_none(), "a dead HAProxy does not answer");
}
