//! Files of any size, sent to and fetched from the real OpenSSH server.

// Helpers outside #[test] functions count as tests too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod sshd;

use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use remote::{Content, Error, Host, Meter};
use sshd::{role, say, sshd, wait_for};

/// Bytes without end but one, each other than its neighbours; fails at `breaks`.
struct Stream {
    at: u64,
    end: u64,
    breaks: u64,
}

impl Stream {
    fn of(end: u64) -> Stream {
        Stream { at: 0, end, breaks: u64::MAX }
    }

    fn content(end: u64) -> Content {
        Content::of(&mut Stream::of(end)).unwrap()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.breaks {
            return Err(io::Error::other("the disk broke"));
        }
        let length = buffer.len().min((self.end - self.at) as usize);
        for byte in &mut buffer[..length] {
            *byte = (self.at % 251) as u8;
            self.at += 1;
        }
        Ok(length)
    }
}

const SIZE: u64 = 3_000_001;

#[tokio::test]
async fn what_is_sent_is_what_is_fetched() {
    let Some(sshd) = sshd() else { return };
    let host = Host::connect(sshd.target()).await.unwrap();
    let path = sshd.at("it's/new/file");
    let text = path.to_str().unwrap();
    let content = Stream::content(SIZE);
    assert!(!host.fetch(text, &content, &mut |_| Ok(())).await.unwrap(), "there is none yet");
    assert!(host.send(text, 0o600, &content, &mut Stream::of(SIZE)).await.unwrap());
    let there = path.metadata().unwrap();
    assert_eq!((there.len(), there.permissions().mode() & 0o7777, there.uid()), (SIZE, 0o600, 0));
    assert_eq!(path.parent().unwrap().metadata().unwrap().permissions().mode() & 0o7777, 0o700);
    let mut meter = Meter::default();
    assert!(
        host.fetch(text, &content, &mut |bytes| {
            meter.update(bytes);
            Ok(())
        })
        .await
        .unwrap()
    );
    assert_eq!(meter.content(), content);
    // There already: more than a window of it, which the other side does not read.
    assert!(!host.send(text, 0o600, &content, &mut Stream::of(SIZE)).await.unwrap());
    assert_eq!(path.metadata().unwrap().ino(), there.ino());
    assert!(host.send(text, 0o640, &content, &mut Stream::of(SIZE)).await.unwrap(), "another mode");
    // Empty is a size like any other.
    let empty = Stream::content(0);
    assert!(host.send(text, 0o600, &empty, &mut Stream::of(0)).await.unwrap());
    assert!(host.fetch(text, &empty, &mut |_| panic!("there is nothing")).await.unwrap());
    let folder = sshd.folder.path().to_str().unwrap();
    for result in [
        host.send(folder, 0o600, &empty, &mut Stream::of(0)).await,
        host.fetch(folder, &empty, &mut |_| Ok(())).await,
    ] {
        assert!(matches!(result, Err(Error::Directory { .. })), "{result:?}");
    }
}

/// Whatever breaks off, the file is as it was, and nothing lies beside it.
#[tokio::test]
async fn what_is_not_whole_does_not_arrive() {
    let Some(sshd) = sshd() else { return };
    let host = Host::connect(sshd.target()).await.unwrap();
    let path = sshd.at("data/file");
    let text = path.to_str().unwrap();
    let (old, new) = (Stream::content(10), Stream::content(SIZE));
    assert!(host.send(text, 0o600, &old, &mut Stream::of(10)).await.unwrap());
    let alone = async || {
        let names = || std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while names() > 1 {
            assert!(std::time::Instant::now() < end, "something is left beside the file");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(path.metadata().unwrap().len(), 10);
    };
    let cut = host.send(text, 0o600, &new, &mut Stream { breaks: SIZE / 2, ..Stream::of(SIZE) }).await;
    assert!(matches!(&cut, Err(Error::Here { .. })), "{cut:?}");
    alone().await;
    for other in [SIZE - 1, SIZE + 1] {
        let short = host.send(text, 0o600, &new, &mut Stream::of(other)).await;
        assert!(matches!(&short, Err(Error::Damaged { .. })), "{short:?}");
        alone().await;
    }
    let lie = Content { sha256: old.sha256.clone(), ..new.clone() };
    let changed = host.send(text, 0o600, &lie, &mut Stream::of(SIZE)).await;
    assert!(matches!(&changed, Err(Error::Damaged { .. })), "{changed:?}");
    alone().await;
    // A client that is killed in the middle.
    let mut client = sshd.client("half").spawn().unwrap();
    wait_for(&mut client, "ROLE: half");
    client.kill().unwrap();
    client.wait().unwrap();
    alone().await;
    // Fetched: shorter, longer and other than announced, and a sink that is full.
    for wrong in [Stream::content(9), Stream::content(11), Content { sha256: new.sha256, ..old.clone() }] {
        let result = host.fetch(text, &wrong, &mut |_| Ok(())).await;
        assert!(matches!(&result, Err(Error::Damaged { .. })), "{result:?}");
    }
    let full = host.fetch(text, &old, &mut |_| Err(io::Error::other("no space"))).await;
    assert!(matches!(&full, Err(Error::Here { .. })), "{full:?}");
    alone().await;
}

/// A process that streams much more than it may hold.
#[tokio::test]
async fn memory_is_bounded() {
    let Some(sshd) = sshd() else { return };
    let mut client = sshd.client("much").spawn().unwrap();
    wait_for(&mut client, "ROLE: bounded");
    client.wait().unwrap();
}

/// How much the other client streams, in bytes, and how much memory it may ever have had, in KiB.
const MUCH: (u64, u64) = (192 << 20, 64 << 10);

#[tokio::test]
async fn client_process() {
    let Some((role, target, folder)) = role() else { return };
    let host = Host::connect(target).await.unwrap();
    if role == "half" {
        let mut said = 0;
        let path = folder.join("data/file");
        let content = Stream::content(SIZE);
        let mut from = Stream::of(u64::MAX);
        let mut slow = Slow(|| {
            said += 1;
            if said == 20 {
                say("half");
            }
            from.read(&mut [0; 1]).map(drop)
        });
        let _ = host.send(path.to_str().unwrap(), 0o600, &content, &mut slow).await;
        return;
    }
    let path = folder.join("much");
    let content = Stream::content(MUCH.0);
    host.send(path.to_str().unwrap(), 0o600, &content, &mut Stream::of(MUCH.0)).await.unwrap();
    host.fetch(path.to_str().unwrap(), &content, &mut |_| Ok(())).await.unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak =
        status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    let peak: u64 = peak.unwrap();
    eprintln!("{} MiB there and back: {} MiB of memory at most", MUCH.0 >> 20, peak >> 10);
    assert!(peak < MUCH.1, "{peak} KiB");
    say("bounded");
}

/// A byte now and then, without end.
struct Slow<F>(F);

impl<F: FnMut() -> io::Result<()>> Read for Slow<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        std::thread::sleep(std::time::Duration::from_millis(5));
        (self.0)()?;
        buffer[0] = 1;
        Ok(1)
    }
}
