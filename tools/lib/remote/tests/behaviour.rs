//! What the client does when a server misbehaves: an SSH server in this process plays each fault.

// Helpers outside #[test] functions count as tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use remote::{Class, Command, Error, Host, RemoteFile, Target};
use russh::keys::{Algorithm, HashAlg, PrivateKey, ssh_key::LineEnding};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey, run_stream};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Sig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    logins: AtomicUsize,
    executed: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

struct Server {
    port: u16,
    host_key: PrivateKey,
    seen: Arc<Seen>,
    folder: tempfile::TempDir,
}

struct Play {
    seen: Arc<Seen>,
    accept: bool,
    input: Vec<u8>,
    echo: Option<ChannelId>,
    live: BTreeSet<u32>,
}

fn key() -> PrivateKey {
    PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap()
}

async fn serve(accept: bool) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let host_key = key();
    let seen = Arc::new(Seen::default());
    let config = Arc::new(Config {
        keys: vec![host_key.clone()],
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::ZERO,
        ..Config::default()
    });
    let all = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            all.connections.fetch_add(1, Ordering::SeqCst);
            let play =
                Play { seen: Arc::clone(&all), accept, input: Vec::new(), echo: None, live: BTreeSet::new() };
            let config = Arc::clone(&config);
            tokio::spawn(async move {
                if let Ok(session) = run_stream(config, socket, play).await {
                    let _ = session.await;
                }
            });
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("id");
    key().write_openssh_file(&path, LineEnding::LF).unwrap();
    Server { port, host_key, seen, folder }
}

impl Server {
    fn target(&self) -> Target {
        Target {
            port: self.port,
            identity_file: Some(self.folder.path().join("id")),
            host_keys: vec![self.host_key.public_key().to_openssh().unwrap()],
            ..Target::new("m1", "127.0.0.1", "root")
        }
    }

    fn count(&self, of: impl Fn(&Seen) -> &AtomicUsize) -> usize {
        of(&self.seen).load(Ordering::SeqCst)
    }
}

impl Play {
    fn gone(&mut self, channel: ChannelId) {
        if self.live.remove(&channel.into()) {
            self.seen.open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Handler for Play {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        self.seen.logins.fetch_add(1, Ordering::SeqCst);
        Ok(if self.accept { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.live.insert(channel.id().into());
        let open = self.seen.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.most_open.fetch_max(open, Ordering::SeqCst);
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.gone(channel);
        Ok(())
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], s: &mut Session) -> Result<(), russh::Error> {
        if self.echo == Some(channel) {
            self.input.extend_from_slice(data);
            s.data(channel, data.to_vec())?;
        }
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, s: &mut Session) -> Result<(), russh::Error> {
        if self.echo == Some(channel) {
            s.exit_status_request(channel, 0)?;
            s.eof(channel)?;
            s.close(channel)?;
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        line: &[u8],
        s: &mut Session,
    ) -> Result<(), russh::Error> {
        self.seen.executed.fetch_add(1, Ordering::SeqCst);
        match std::str::from_utf8(line).unwrap() {
            "refuse" => return s.channel_failure(channel),
            "drop" => return Err(russh::Error::Disconnect),
            "cut" => {
                s.channel_success(channel)?;
                s.data(channel, &b"half"[..])?;
                self.gone(channel);
                return s.close(channel);
            }
            "hang" => return s.channel_success(channel),
            "cat" => {
                self.echo = Some(channel);
                return s.channel_success(channel);
            }
            "late" => {
                // The exit status may overtake the last of the output.
                s.channel_success(channel)?;
                s.exit_status_request(channel, 0)?;
                s.data(channel, &b"late"[..])?;
                s.eof(channel)?;
            }
            "killed" => {
                s.channel_success(channel)?;
                s.exit_signal_request(channel, Sig::KILL, false, "", "")?;
                s.eof(channel)?;
            }
            line if line.contains("# kubeline: lock v1") => {
                s.channel_success(channel)?;
                s.data(channel, &b"ann on adm1\n"[..])?;
                s.exit_status_request(channel, 84)?;
                s.eof(channel)?;
            }
            line if line.contains("# kubeline: write v1") => {
                s.channel_success(channel)?;
                s.exit_status_request(channel, 83)?;
                s.eof(channel)?;
            }
            _ => {
                s.channel_success(channel)?;
                s.data(channel, &b"out"[..])?;
                s.extended_data(channel, 1, &b"no such unit"[..])?;
                s.exit_status_request(channel, 7)?;
                s.eof(channel)?;
            }
        }
        self.gone(channel);
        s.close(channel)
    }
}

fn run(name: &str) -> Command {
    Command::new(name)
}

#[tokio::test]
async fn exit_codes_are_values_and_streams_are_apart() {
    let server = serve(true).await;
    let host = Host::connect(server.target()).await.unwrap();
    let output = host.run(&run("fail")).await.unwrap();
    assert_eq!((output.exit, &output.stdout[..], &output.stderr[..]), (7, &b"out"[..], &b"no such unit"[..]));
    assert_eq!(host.run(&run("killed")).await.unwrap().exit, 137);
    assert_eq!(host.run(&run("late")).await.unwrap().stdout, b"late");
    let error = host.ok(&run("systemctl").args(["reload", "a b"])).await.unwrap_err();
    assert_eq!(error.class(), Class::Precondition);
    assert_eq!(error.to_string(), "exit code 7 on m1 from: systemctl reload 'a b'\nno such unit");
    assert_eq!(server.count(|s| &s.connections), 1);
}

#[tokio::test]
async fn large_input_comes_back() {
    let server = serve(true).await;
    let host = Host::connect(server.target()).await.unwrap();
    let input: Vec<u8> = (0..5_000_000_u32).map(|n| n as u8).collect();
    let output = host.run(&run("cat").stdin(input.clone())).await.unwrap();
    assert!(output.success() && output.stdout == input);
}

#[tokio::test]
async fn a_changed_key_is_refused_before_anything_is_sent() {
    let server = serve(true).await;
    let old = key();
    let mut target = server.target();
    target.host_keys = vec![old.public_key().to_openssh().unwrap()];
    let error = Host::connect(target).await.unwrap_err();
    let found = server.host_key.public_key().fingerprint(HashAlg::Sha256).to_string();
    let expected = old.public_key().fingerprint(HashAlg::Sha256).to_string();
    assert!(matches!(error, Error::HostKeyChanged { .. }), "{error}");
    assert!(error.to_string().contains(&found) && error.to_string().contains(&expected), "{error}");
    assert_eq!(error.class(), Class::Precondition);
    assert!(error.hint().is_some());
    assert_eq!(server.count(|s| &s.logins), 0);
}

#[tokio::test]
async fn an_unknown_key_is_refused_unless_it_may_be_recorded() {
    let server = serve(true).await;
    let path = server.folder.path().join("known_hosts");
    let mut target = Target { host_keys: Vec::new(), known_hosts: Some(path.clone()), ..server.target() };
    let error = Host::connect(target.clone()).await.unwrap_err();
    assert!(matches!(error, Error::HostKeyUnknown { .. }), "{error}");
    assert_eq!(server.count(|s| &s.logins), 0);
    target.accept_new = true;
    Host::connect(target.clone()).await.unwrap();
    target.accept_new = false;
    Host::connect(target).await.unwrap();
    let line = std::fs::read_to_string(&path).unwrap();
    assert!(line.starts_with(&format!("[127.0.0.1]:{} ssh-ed25519 ", server.port)), "{line}");
}

#[tokio::test]
async fn a_drop_in_mid_command_is_lost_and_the_next_command_reconnects() {
    let server = serve(true).await;
    let host = Host::connect(server.target()).await.unwrap();
    for name in ["drop", "cut"] {
        let error = host.run(&run(name)).await.unwrap_err();
        assert!(matches!(&error, Error::Lost { host, doing } if host == "m1" && doing == name), "{error}");
        assert_eq!(error.class(), Class::Transient);
        assert_eq!(host.run(&run("fail")).await.unwrap().exit, 7);
    }
    assert_eq!(server.count(|s| &s.executed), 4, "nothing was run twice");
    assert_eq!(server.count(|s| &s.connections), 2, "a channel that closes is no lost connection");
}

#[tokio::test]
async fn a_command_that_hangs_times_out_and_its_channel_closes() {
    let server = serve(true).await;
    let host = Host::connect(server.target()).await.unwrap();
    let begin = Instant::now();
    let error = host.run(&run("hang").timeout(Duration::from_millis(100))).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert_eq!(error.to_string(), "not done on m1 after 100ms: hang");
    assert!(begin.elapsed() < Duration::from_secs(5));
    // More of them than sessions are allowed: each has to give its place back.
    let hang = run("hang").timeout(Duration::from_millis(20));
    for _ in 0..20 {
        host.run(&hang).await.unwrap_err();
    }
    assert_eq!(host.run(&run("fail")).await.unwrap().exit, 7);
    assert!(server.count(|s| &s.most_open) <= 8, "{}", server.count(|s| &s.most_open));
    assert_eq!(server.count(|s| &s.connections), 1);
}

#[tokio::test]
async fn many_commands_share_one_connection_and_few_channels() {
    let server = serve(true).await;
    let host = Host::connect(server.target()).await.unwrap();
    let all = (0..100).map(|_| {
        let host = host.clone();
        tokio::spawn(async move { host.run(&run("fail")).await.unwrap().exit })
    });
    for one in all.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap(), 7);
    }
    assert_eq!(server.count(|s| &s.connections), 1);
    assert!(server.count(|s| &s.most_open) <= 8, "{}", server.count(|s| &s.most_open));
}

#[tokio::test]
async fn a_refused_log_in_says_what_was_tried() {
    let server = serve(false).await;
    let error = Host::connect(server.target()).await.unwrap_err();
    match &error {
        Error::Auth { user, tried, .. } => {
            assert_eq!(user, "root");
            assert!(tried[0].starts_with("key file SHA256:"), "{tried:?}");
        }
        other => panic!("{other}"),
    }
    assert_eq!(error.class(), Class::Precondition);
}

#[tokio::test]
async fn a_key_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let server = serve(true).await;
    let target = server.target();
    let path = target.identity_file.clone().unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let error = Host::connect(target).await.unwrap_err();
    assert!(matches!(error, Error::KeyFileOpen { mode: 0o644, .. }), "{error}");
    assert_eq!(error.hint().unwrap(), format!("chmod 600 {}", path.display()));
    assert_eq!(server.count(|s| &s.connections), 0);
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let target = Target { port: free, ..Target::new("m1", "127.0.0.1", "root") };
    let error = Host::connect(target).await.unwrap_err();
    assert_eq!(error.class(), Class::Unreachable, "{error}");
    assert_eq!(error.to_string(), format!("cannot reach m1 at 127.0.0.1:{free}"));
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn a_port_that_says_nothing_or_nonsense() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target {
        port: silent.local_addr().unwrap().port(),
        connect_timeout: Duration::from_millis(200),
        ..Target::new("m1", "127.0.0.1", "root")
    };
    assert_eq!(Host::connect(target.clone()).await.unwrap_err().class(), Class::Unreachable);

    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target =
        Target { port: web.local_addr().unwrap().port(), connect_timeout: Duration::from_secs(5), ..target };
    tokio::spawn(async move {
        let (mut socket, _) = web.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = socket.read(&mut [0; 64]).await;
    });
    let error = Host::connect(target).await.unwrap_err();
    assert!(matches!(error, Error::Handshake { .. } | Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn what_the_scripts_answer_is_understood() {
    let server = serve(true).await;
    let host = Host::connect(server.target()).await.unwrap();
    match host.lock("me").await.unwrap_err() {
        Error::Locked { host, holder } => assert_eq!((&host[..], &holder[..]), ("m1", "ann on adm1")),
        other => panic!("{other}"),
    }
    let error = host.write(&RemoteFile::new("/etc/motd", "x")).await.unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "a content cut short is no success: {error}");
    let error = host.run(&run("refuse")).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    let error = host.write(&RemoteFile::new("etc/motd", "x")).await.unwrap_err();
    assert_eq!(error.class(), Class::Internal, "{error}");
    let error = host.run(&run("echo").arg("a\0b")).await.unwrap_err();
    assert_eq!(error.class(), Class::Internal, "{error}");
}

#[tokio::test]
async fn futures_move_between_threads() {
    fn movable<T: Send>(future: T) -> T {
        future
    }
    let server = serve(true).await;
    let host = movable(Host::connect(server.target())).await.unwrap();
    let file = RemoteFile::new("/x", "");
    drop((movable(host.write(&file)), movable(host.read("/x")), movable(host.lock("me"))));
    drop((movable(host.dial("localhost", 1)), movable(host.remove("/x"))));
    movable(host.close()).await;
}
