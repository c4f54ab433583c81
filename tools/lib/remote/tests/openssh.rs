//! Against the real OpenSSH server, on a loopback port, with keys made for the run.
//!
//! Skipped, saying why, where there is no sshd or where its user may not be root on this machine.

// Helpers outside #[test] functions count as tests too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod sshd;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use remote::{Class, Command, Error, Host, RemoteFile, Target};
use sshd::{file, keygen, output, role, say, sshd, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn commands() {
    let Some(sshd) = sshd() else { return };
    let host = Host::connect(sshd.target()).await.unwrap();
    let odd = "a 'b' \"c\" $HOME `id` \\ *\n~";
    let output = host.ok(&Command::new("printf").args(["%s", odd])).await.unwrap();
    assert_eq!(output.text(), odd);
    let output = host.run(&Command::sh("cat; echo err >&2; exit 3").stdin("in")).await.unwrap();
    assert_eq!((output.exit, &output.stdout[..], &output.stderr[..]), (3, &b"in"[..], &b"err\n"[..]));
    assert_eq!(host.run(&Command::sh("kill -9 $$")).await.unwrap().exit, 137);
    assert_eq!(host.run(&Command::new("no-such-program")).await.unwrap().exit, 127);
    let env = Command::sh("printf %s \"$LC_ALL\"").env("LC_ALL", "C.UTF-8").sudo();
    assert_eq!(host.ok(&env).await.unwrap().text(), "C.UTF-8");
    // More input than a window, for a command that reads none of it.
    let output = host.run(&Command::new("true").stdin(vec![0; 8 << 20])).await.unwrap();
    assert!(output.success());
    let error =
        host.run(&Command::new("sleep").arg("60").timeout(Duration::from_millis(200))).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    let many = (0..40).map(|n| {
        let host = host.clone();
        tokio::spawn(async move { host.ok(&Command::new("echo").arg(n.to_string())).await })
    });
    for (n, one) in many.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(one.await.unwrap().unwrap().text().trim(), n.to_string());
    }
    host.close().await;
}

#[tokio::test]
async fn files() {
    let Some(sshd) = sshd() else { return };
    let host = Host::connect(sshd.target()).await.unwrap();
    let path = sshd.at("etc/app.d/it's here.conf");
    let text = path.to_str().unwrap();
    assert_eq!(host.read(text).await.unwrap(), None);
    let first = file(&path, "one\n");
    assert!(host.write(&first).await.unwrap());
    assert_eq!(host.read(text).await.unwrap().as_deref(), Some(&b"one\n"[..]));
    let inode = path.metadata().unwrap().ino();
    assert!(!host.write(&first).await.unwrap(), "the same: nothing is written");
    assert_eq!(path.metadata().unwrap().ino(), inode);
    // Content, then mode: each alone is a difference.
    assert!(host.write(&file(&path, "two\n")).await.unwrap());
    assert_ne!(path.metadata().unwrap().ino(), inode);
    assert!(host.write(&file(&path, "two\n").mode(0o600)).await.unwrap());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(!host.write(&file(&path, "two\n").mode(0o600)).await.unwrap());
    let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "no temporary file is left: {names:?}");

    let large: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
    let big = RemoteFile { content: large.clone(), ..file(&path, "") };
    assert!(host.write(&big).await.unwrap());
    assert_eq!(host.read(text).await.unwrap(), Some(large));
    assert!(host.write(&file(&path, "")).await.unwrap());
    assert_eq!(host.read(text).await.unwrap(), Some(Vec::new()));

    // A link is replaced, and what it points to stays.
    let (link, aim) = (sshd.at("link"), sshd.at("aim"));
    std::fs::write(&aim, "aim").unwrap();
    std::os::unix::fs::symlink(&aim, &link).unwrap();
    assert!(host.write(&file(&link, "new")).await.unwrap());
    assert!(link.symlink_metadata().unwrap().is_file());
    assert_eq!(std::fs::read_to_string(&aim).unwrap(), "aim");

    let folder = sshd.folder.path().to_str().unwrap();
    let refused = [
        host.read(folder).await.map(drop),
        host.write(&file(sshd.folder.path(), "x")).await.map(drop),
        host.remove(folder).await.map(drop),
    ];
    for result in refused {
        assert!(matches!(result, Err(Error::Directory { .. })), "{result:?}");
    }
    let nobody = file(&path, "x").owner("no-such-user", "no-such-group");
    let error = host.write(&nobody).await.unwrap_err();
    assert!(matches!(&error, Error::Command { line, .. } if line == &format!("write {text}")), "{error}");
    assert_eq!(host.read(text).await.unwrap(), Some(Vec::new()), "a write that fails changes nothing");
    assert!(host.remove(text).await.unwrap());
    assert!(!host.remove(text).await.unwrap());
    host.ok(&Command::new("truncate").args(["-s", "17M", text]).sudo()).await.unwrap();
    assert!(matches!(host.read(text).await, Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn one_lock_a_host() {
    let Some(sshd) = sshd() else { return };
    let host = Host::connect(sshd.target()).await.unwrap();
    let other = Host::connect(sshd.target()).await.unwrap();
    let lock = host.lock("ann on adm1: lb-render\napply").await.unwrap();
    match other.lock("bob").await.unwrap_err() {
        Error::Locked { holder, .. } => assert_eq!(holder, "ann on adm1: lb-render apply"),
        error => panic!("{error}"),
    }
    assert!(lock.is_held());
    lock.release().await;
    let lock = other.lock("bob").await.unwrap();
    // Dropped: free by the time that the next one has waited a moment.
    drop(lock);
    host.lock("ann").await.unwrap().release().await;

    // A client that is killed leaves no lock.
    let mut client = sshd.client("lock").spawn().unwrap();
    wait_for(&mut client, "ROLE: locked");
    assert!(matches!(host.lock("ann").await, Err(Error::Locked { holder, .. }) if holder == "client"));
    client.kill().unwrap();
    client.wait().unwrap();
    let lock = host.lock("ann").await.unwrap();

    // A lock that went with its connection stops the commands that rely on it.
    host.close().await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while lock.is_held() {
        assert!(Instant::now() < deadline, "the lock's loss goes unnoticed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let error = host.run(&Command::new("true")).await.unwrap_err();
    assert!(matches!(error, Error::LockLost { .. }) && error.class() == Class::Transient, "{error}");
    drop(lock);
    host.ok(&Command::new("true")).await.unwrap();
}

#[tokio::test]
async fn jump_and_dial() {
    let (Some(bastion), Some(inner)) = (sshd(), sshd()) else { return };
    let mut target = inner.target();
    target.jump = Some(Box::new(Target { name: "bastion".to_owned(), ..bastion.target() }));
    let host = Host::connect(target.clone()).await.unwrap();
    let connection = host.ok(&Command::sh("echo $SSH_CONNECTION")).await.unwrap();
    assert!(connection.text().trim().ends_with(&inner.port.to_string()));
    let via = Host::connect(bastion.target()).await.unwrap();
    Host::connect_through(inner.target(), &via).await.unwrap().ok(&Command::new("true")).await.unwrap();

    let echo = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = echo.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut socket, _) = echo.accept().await.unwrap();
        let (mut read, mut write) = socket.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut tunnel = host.dial("127.0.0.1", port).await.unwrap();
    tunnel.write_all(b"GET /readyz").await.unwrap();
    tunnel.shutdown().await.unwrap();
    let mut back = String::new();
    tunnel.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "GET /readyz");
    let error = host.dial("127.0.0.1", 1).await.err().unwrap();
    assert_eq!(error.class(), Class::Unreachable, "{error}");

    // The jump host's key is checked as well, under its own name.
    let wrong = std::fs::read_to_string(inner.at("host.pub")).unwrap();
    target.jump.as_mut().unwrap().host_keys = vec![wrong];
    let error = Host::connect(target).await.unwrap_err();
    assert!(matches!(&error, Error::HostKeyChanged { host, .. } if host == "bastion"), "{error}");
}

#[tokio::test]
async fn known_hosts_as_openssh_writes_it() {
    let Some(sshd) = sshd() else { return };
    let known = sshd.at("known_hosts");
    let key = std::fs::read_to_string(sshd.at("host.pub")).unwrap();
    std::fs::write(&known, format!("[127.0.0.1]:{} {key}", sshd.port)).unwrap();
    output("ssh-keygen", &["-q", "-H", "-f", known.to_str().unwrap()]);
    assert!(std::fs::read_to_string(&known).unwrap().starts_with("|1|"));
    let target = Target { host_keys: Vec::new(), known_hosts: Some(known), ..sshd.target() };
    Host::connect(target).await.unwrap().ok(&Command::new("true")).await.unwrap();
    let shown = output("ssh-keygen", &["-lf", sshd.at("host.pub").to_str().unwrap()]);
    let unknown = Target { host_keys: Vec::new(), ..sshd.target() };
    match Host::connect(unknown).await.unwrap_err() {
        Error::HostKeyUnknown { found, .. } => assert_eq!(Some(&found[..]), shown.split(' ').nth(1)),
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn the_agent_signs() {
    let Some(sshd) = sshd() else { return };
    if Process::new("ssh-agent").arg("-h").stderr(Stdio::null()).output().is_err() {
        eprintln!("skipped: no ssh-agent (Debian package openssh-client)");
        return;
    }
    let socket = sshd.at("agent");
    let mut agent = Process::new("ssh-agent")
        .args(["-D", "-a", socket.to_str().unwrap()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        assert!(Instant::now() < deadline, "ssh-agent does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    // More keys than sshd listens to (MaxAuthTries is 6): the one that is named has to go first.
    for n in 0..8 {
        keygen(&sshd.at(&format!("other{n}")));
    }
    let add = |name: &str| {
        let add = Process::new("ssh-add").arg(sshd.at(name)).env("SSH_AUTH_SOCK", &socket).output().unwrap();
        assert!(add.status.success(), "{}", String::from_utf8_lossy(&add.stderr));
    };
    let logs_in = |role: &str| {
        let out = sshd.client(role).env("SSH_AUTH_SOCK", &socket).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    add("other0");
    assert!(logs_in("agent").contains("ROLE: does not let"), "a key that the host does not know");
    add("id");
    assert!(logs_in("agent").contains("ROLE: in"), "the right key is the second");
    (1..8).for_each(|n| add(&format!("other{n}")));
    output("ssh-keygen", &["-q", "-p", "-P", "", "-N", "secret", "-f", sshd.at("id").to_str().unwrap()]);
    assert!(logs_in("passphrase").contains("ROLE: in"), "the file names the key that the agent holds");
    agent.kill().unwrap();
    agent.wait().unwrap();
}

/// The client that other tests start as a process of its own; alone it has nothing to do.
#[tokio::test]
async fn client_process() {
    let Some((role, mut target, _)) = role() else { return };
    if role == "agent" {
        target.identity_file = None;
    }
    let host = match Host::connect(target).await {
        Ok(host) => host,
        Err(Error::Auth { .. }) => return say("does not let us in"),
        Err(error) => panic!("{error}"),
    };
    if role != "lock" {
        host.ok(&Command::new("true")).await.unwrap();
        return say("in");
    }
    let _lock = host.lock("client").await.unwrap();
    say("locked");
    // Until it is killed.
    std::future::pending::<()>().await;
}
