//! An OpenSSH server of this test run, and this test binary again as a client of it.

#![allow(dead_code, unreachable_pub, reason = "each test file takes some of it")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use remote::{RemoteFile, Target};

const SSHD: &str = "/usr/sbin/sshd";
pub const ROLE: &str = "KUBELINE_TEST_ROLE";

pub struct Sshd {
    child: Child,
    pub port: u16,
    pub user: String,
    pub folder: tempfile::TempDir,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn output(program: &str, args: &[&str]) -> String {
    let output = Process::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub fn keygen(path: &Path) {
    output("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path.to_str().unwrap()]);
}

fn skip(why: &str) -> Option<Sshd> {
    eprintln!("skipped: {why}");
    None
}

pub fn sshd() -> Option<Sshd> {
    if !Path::new(SSHD).exists() {
        return skip("no /usr/sbin/sshd (Debian package openssh-server)");
    }
    let user = output("id", &["-un"]);
    if user == "root" {
        // sshd's privilege separation directory, which its service makes at boot.
        std::fs::create_dir_all("/run/sshd").unwrap();
    } else if !Process::new("sudo").args(["-n", "true"]).output().is_ok_and(|o| o.status.success()) {
        return skip("neither root nor sudo without a password");
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    keygen(&at("host"));
    keygen(&at("id"));
    std::fs::copy(at("id.pub"), at("authorized_keys")).unwrap();
    // Bound and let go: sshd takes no socket of ours and tells no port that it chose.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
         StrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\nAllowTcpForwarding yes\n",
        at("host").display(),
        at("authorized_keys").display(),
    );
    std::fs::write(at("config"), config).unwrap();
    let child = Process::new(SSHD)
        .args(["-D", "-e", "-f", at("config").to_str().unwrap()])
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(at("log")).unwrap())
        .spawn()
        .unwrap();
    let sshd = Sshd { child, port, user, folder };
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "sshd: {}", std::fs::read_to_string(sshd.at("log")).unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(sshd)
}

impl Sshd {
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn target(&self) -> Target {
        Target {
            port: self.port,
            identity_file: Some(self.at("id")),
            host_keys: vec![std::fs::read_to_string(self.at("host.pub")).unwrap()],
            ..Target::new("m1", "127.0.0.1", &self.user)
        }
    }

    // This test binary again, as a client that can be killed or given another environment.
    pub fn client(&self, role: &str) -> Process {
        let mut client = Process::new(std::env::current_exe().unwrap());
        client.args(["--exact", "client_process", "--nocapture"]);
        client.env(ROLE, role).env("FOLDER", self.folder.path()).env("PORT", self.port.to_string());
        client.env("SSH_USER", &self.user).env_remove("SSH_AUTH_SOCK");
        client.stdin(Stdio::piped()).stdout(Stdio::piped());
        client
    }
}

pub fn file(path: &Path, content: &str) -> RemoteFile {
    RemoteFile::new(path.to_str().unwrap(), content).owner(output("id", &["-u"]), output("id", &["-g"]))
}

pub fn say(what: &str) {
    println!("\nROLE: {what}");
    std::io::stdout().flush().unwrap();
}

pub fn wait_for(client: &mut Child, line: &str) {
    let lines = BufReader::new(client.stdout.as_mut().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|found| found == line), "the client ended early");
}

/// What this binary is as a client: nothing, unless a test started it as one.
pub fn role() -> Option<(String, Target, PathBuf)> {
    let role = std::env::var(ROLE).ok()?;
    let folder = PathBuf::from(std::env::var("FOLDER").unwrap());
    let target = Target {
        port: std::env::var("PORT").unwrap().parse().unwrap(),
        identity_file: Some(folder.join("id")),
        host_keys: vec![std::fs::read_to_string(folder.join("host.pub")).unwrap()],
        ..Target::new("m1", "127.0.0.1", std::env::var("SSH_USER").unwrap())
    };
    Some((role, target, folder))
}
