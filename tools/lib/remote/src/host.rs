//! A host: one connection that every command shares.

use std::io::Read;
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use russh::client::Msg;
use russh::{Channel, ChannelOpenFailure, Disconnect};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use crate::command::{Command, Output};
use crate::error::Error;
use crate::held::Held;
use crate::hostkeys::plain;
use crate::link::{self, Link, Through, Tunnel};
use crate::session::Session;
use crate::target::{Target, address};

/// How many commands run at once; sshd's MaxSessions is 10, and the lock takes one more.
const SESSIONS: usize = 8;
/// How long until a server whose sessions are all taken is asked again.
const FULL: Duration = Duration::from_millis(20);
/// How much a command may print, in bytes, on one of its streams.
const OUTPUT_LIMIT: usize = 32 << 20;

/// A machine that commands run on.
///
/// Clones share one connection. It is made anew when it was lost, unless a lock went with it.
#[derive(Clone)]
pub struct Host(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) target: Target,
    jump: Option<Host>,
    link: Mutex<Option<Arc<Link>>>,
    slots: Arc<Semaphore>,
    pub(crate) held: StdMutex<Weak<Held>>,
}

impl Host {
    /// Connects and logs in.
    ///
    /// # Errors
    /// `Unreachable`, one of the `HostKey` errors, `Auth`, or what is wrong with a file that the target names.
    pub async fn connect(mut target: Target) -> Result<Host, Error> {
        let jump = match target.jump.take() {
            Some(jump) => Some(Box::pin(Host::connect(*jump)).await?),
            None => None,
        };
        Host::open(target, jump).await
    }

    /// Connects through a host that is connected already, so that many targets share one way in.
    ///
    /// # Errors
    /// As for [`Host::connect`]; the target's own `jump` is not used.
    pub async fn connect_through(mut target: Target, jump: &Host) -> Result<Host, Error> {
        target.jump = None;
        Host::open(target, Some(jump.clone())).await
    }

    async fn open(target: Target, jump: Option<Host>) -> Result<Host, Error> {
        let host = Host(Arc::new(Inner {
            target,
            jump,
            link: Mutex::new(None),
            slots: Arc::new(Semaphore::new(SESSIONS)),
            held: StdMutex::new(Weak::new()),
        }));
        host.link().await?;
        Ok(host)
    }

    /// The machine's name.
    pub fn name(&self) -> &str {
        &self.0.target.name
    }

    /// The host key that the machine proved to have, as `ssh-ed25519 AAAA...` without a comment: what was only known
    /// by its fingerprint is known whole after the first connection.
    ///
    /// # Errors
    /// Those of [`Host::connect`] when the connection had to be made anew.
    pub async fn host_key(&self) -> Result<String, Error> {
        Ok(self.link().await?.shown.get().map(plain).unwrap_or_default())
    }

    /// Runs a command to its end; an exit code that is not 0 is a value.
    ///
    /// # Errors
    /// `Lost` when the connection broke in mid command, `TimedOut`, `TooLarge` for more than 32 MiB of output,
    /// `LockLost`, and those of [`Host::connect`] when the connection had to be made anew.
    pub async fn run(&self, command: &Command) -> Result<Output, Error> {
        let mut stdout = Vec::new();
        let mut keep = |bytes: &[u8]| {
            stdout.extend_from_slice(bytes);
            self.bounded(command, stdout.len())
        };
        // From when it runs: the wait for a session is not its own.
        let limit = async { tokio::time::sleep(command.limit()).await };
        let output = self.exchange(command, &mut command.input(), &mut keep, limit).await?;
        Ok(Output { stdout, ..output })
    }

    /// Runs a command with standard input from `from` and standard output to `to`, until `limit` ends.
    ///
    /// # Errors
    /// Those of [`Host::run`], `Here`, and those of `to`.
    pub(crate) async fn exchange(
        &self,
        command: &Command,
        from: &mut (dyn Read + Send),
        to: &mut (dyn FnMut(&[u8]) -> Result<(), Error> + Send),
        limit: impl Future<Output = ()> + Send,
    ) -> Result<Output, Error> {
        let as_root = self.0.target.is_root();
        let line = command.wire(as_root);
        self.sendable(&line)?;
        let slot = Arc::clone(&self.0.slots).acquire_owned().await.ok();
        let mut session = self.session(slot).await?;
        tracing::debug!(host = self.name(), "{line}");
        let ended = tokio::select! {
            result = self.converse(&mut session, &line, command, from, to) => Some(result),
            () = limit => None,
        };
        ended.unwrap_or_else(|| {
            session.terminate();
            Err(Error::TimedOut {
                host: self.name().to_owned(),
                line: command.called(as_root),
                after: command.limit(),
            })
        })
    }

    pub(crate) fn bounded(&self, command: &Command, length: usize) -> Result<(), Error> {
        if length <= OUTPUT_LIMIT {
            return Ok(());
        }
        let what = format!("the output of {}", command.called(self.0.target.is_root()));
        Err(Error::TooLarge { host: self.name().to_owned(), what, limit: OUTPUT_LIMIT as u64 })
    }

    /// Runs a command that has to succeed.
    ///
    /// # Errors
    /// `Command` for an exit code that is not 0, and those of [`Host::run`].
    pub async fn ok(&self, command: &Command) -> Result<Output, Error> {
        let output = self.run(command).await?;
        if output.success() { Ok(output) } else { Err(self.bad_exit(command, &output)) }
    }

    /// Opens a TCP connection from the host, as it sees the name.
    ///
    /// # Errors
    /// `Unreachable` when nobody answers there, `Refused` when the SSH server forwards nothing.
    pub async fn dial(&self, host: &str, port: u16) -> Result<Tunnel, Error> {
        let (link, channel) = self.open_channel(Purpose::Tcp(host, port)).await.map_err(|e| match e {
            OpenError::Refused(ChannelOpenFailure::ConnectFailed) => Error::Unreachable {
                host: address(host, port),
                address: format!("{} through {}", address(host, port), self.name()),
                source: "the SSH server could not connect".into(),
            },
            OpenError::Refused(reason) => Error::Refused {
                host: self.name().to_owned(),
                what: format!("a connection to {} ({reason:?})", address(host, port)),
            },
            OpenError::Other(e) => e,
        })?;
        Ok(Tunnel::new(channel.into_stream(), link))
    }

    /// Ends the connection; a lock goes with it.
    pub async fn close(&self) {
        if let Some(link) = self.0.link.lock().await.take() {
            let bye = link.handle.disconnect(Disconnect::ByApplication, "done", "en");
            if tokio::time::timeout(Duration::from_secs(1), bye).await.is_err() {
                tracing::debug!(host = self.name(), "the connection did not end in time");
            }
        }
    }

    /// Refuses what no command line can carry: sshd hands it to the shell as a C string.
    pub(crate) fn sendable(&self, line: &str) -> Result<(), Error> {
        if line.contains('\0') {
            let why = "an argument has a NUL byte".to_owned();
            return Err(Error::Unsendable { host: self.name().to_owned(), why });
        }
        Ok(())
    }

    pub(crate) fn bad_exit(&self, command: &Command, output: &Output) -> Error {
        Error::Command {
            host: self.name().to_owned(),
            line: command.called(self.0.target.is_root()),
            exit: output.exit,
            stderr: output.tail(),
        }
    }

    pub(crate) fn lost(&self, doing: String) -> Error {
        Error::Lost { host: self.name().to_owned(), doing }
    }

    /// The lock that is held on this host, if any.
    pub(crate) fn held(&self) -> Option<Arc<Held>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    // The connection, made anew when it is gone.
    async fn link(&self) -> Result<Arc<Link>, Error> {
        let mut slot = self.0.link.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| !link.handle.is_closed()) {
            return Ok(Arc::clone(link));
        }
        // What was observed under the lock may be stale by now: the caller has to know.
        if self.held().is_some() {
            return Err(Error::LockLost { host: self.name().to_owned() });
        }
        let target = &self.0.target;
        let way = self.0.jump.clone().map(|jump| through(jump, target.host.clone(), target.port));
        let link = Arc::new(link::open(target, way).await?);
        *slot = Some(Arc::clone(&link));
        Ok(link)
    }

    async fn forget(&self, dead: &Arc<Link>) {
        let mut slot = self.0.link.lock().await;
        if slot.as_ref().is_some_and(|link| Arc::ptr_eq(link, dead)) {
            *slot = None;
        }
    }

    /// A new session channel, on which nothing has run yet.
    pub(crate) async fn session(&self, slot: Option<OwnedSemaphorePermit>) -> Result<Session, Error> {
        if self.held().is_some_and(|held| held.is_lost()) {
            return Err(Error::LockLost { host: self.name().to_owned() });
        }
        let deadline = Instant::now() + self.0.target.connect_timeout;
        let (link, channel) = loop {
            match self.open_channel(Purpose::Commands).await {
                Ok(opened) => break opened,
                // sshd counts a session until it has seen to the close of its channel, which may be after it
                // has read the next open: nothing has run yet, so asking again is safe.
                Err(OpenError::Refused(
                    ChannelOpenFailure::ConnectFailed | ChannelOpenFailure::ResourceShortage,
                )) if Instant::now() < deadline => {
                    tokio::time::sleep(FULL).await;
                }
                Err(OpenError::Refused(reason)) => {
                    let what = format!("a session ({reason:?})");
                    return Err(Error::Refused { host: self.name().to_owned(), what });
                }
                Err(OpenError::Other(e)) => return Err(e),
            }
        };
        let (read, write) = channel.split();
        Ok(Session { read, write: Some(write), link, slot })
    }

    // Opening does nothing on the host yet, so a connection that turns out to be dead is replaced, once.
    async fn open_channel(&self, purpose: Purpose<'_>) -> Result<(Arc<Link>, Channel<Msg>), OpenError> {
        let mut last = None;
        for _ in 0..2 {
            let link = self.link().await.map_err(OpenError::Other)?;
            let source: Box<dyn std::error::Error + Send + Sync> =
                match tokio::time::timeout(self.0.target.connect_timeout, purpose.open(&link)).await {
                    Ok(Ok(channel)) => return Ok((link, channel)),
                    Ok(Err(russh::Error::ChannelOpenFailure(reason))) => {
                        return Err(OpenError::Refused(reason));
                    }
                    Ok(Err(e)) => Box::new(e),
                    Err(e) => Box::new(e),
                };
            self.forget(&link).await;
            last = Some(source);
        }
        Err(OpenError::Other(Error::Unreachable {
            host: self.name().to_owned(),
            address: self.0.target.address(),
            source: last.unwrap_or_else(|| "no channel".into()),
        }))
    }
}

// The type is written out: what a host does to connect is also what its jump host does.
fn through(jump: Host, host: String, port: u16) -> Through {
    Box::pin(async move { jump.dial(&host, port).await })
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Host").field(&self.0.target.name).finish()
    }
}

// What a channel is for.
enum Purpose<'a> {
    Commands,
    Tcp(&'a str, u16),
}

impl Purpose<'_> {
    async fn open(&self, link: &Link) -> Result<Channel<Msg>, russh::Error> {
        match self {
            Purpose::Commands => link.handle.channel_open_session().await,
            Purpose::Tcp(host, port) => {
                link.handle.channel_open_direct_tcpip(*host, u32::from(*port), "127.0.0.1", 0).await
            }
        }
    }
}

enum OpenError {
    Refused(ChannelOpenFailure),
    Other(Error),
}
