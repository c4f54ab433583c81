//! The host's lock: held by a process that lives with its channel.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use russh::ChannelMsg;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::command::{Command, Output};
use crate::error::Error;
use crate::held::Held;
use crate::host::Host;
use crate::scripts;
use crate::session::Session;

/// How long taking the lock may take.
const TAKING: Duration = Duration::from_secs(30);
/// How often the host hears that we live; a quarter of its patience.
const BEAT: Duration = Duration::from_secs(scripts::LOCK_PATIENCE / 4);
/// How long a release is waited for.
const RELEASING: Duration = Duration::from_secs(5);

/// The host's lock, for as long as this value lives.
///
/// When it goes, by [`Lock::release`], by drop or by the end of the process, the host frees it. When the
/// connection breaks, the lock is lost, and the host runs no more commands for us until this value is gone.
#[derive(Debug)]
pub struct Lock {
    held: Arc<Held>,
    stop: oneshot::Sender<()>,
    keeper: JoinHandle<()>,
}

impl Host {
    /// Takes the host's lock, or says who has it.
    ///
    /// `holder` is what a second operator reads: who, from where, doing what.
    ///
    /// # Errors
    /// `Locked` with the other holder, and those of [`Host::ok`].
    pub async fn lock(&self, holder: &str) -> Result<Lock, Error> {
        let holder: String = holder.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let command =
            Command::sh(scripts::LOCK).arg(&holder).sudo().timeout(TAKING).title("take the host's lock");
        let line = command.wire(self.0.target.is_root());
        let mut session = self.session(None).await?;
        let called = || command.called(self.0.target.is_root());
        match tokio::time::timeout(TAKING, self.take(&mut session, &line, &command)).await {
            Ok(taken) => taken?,
            Err(_) => {
                let host = self.name().to_owned();
                return Err(Error::TimedOut { host, line: called(), after: TAKING });
            }
        }
        let held = Arc::new(Held::default());
        *self.0.held.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&held);
        let (stop, stopped) = oneshot::channel();
        let keeper = tokio::spawn(keep(session, stopped, Arc::downgrade(&held)));
        Ok(Lock { held, stop, keeper })
    }

    // Until the script says that it holds the lock, or ends.
    async fn take(&self, session: &mut Session, line: &str, command: &Command) -> Result<(), Error> {
        let lost = || self.lost(command.called(self.0.target.is_root()));
        let Session { read, write: Some(write), .. } = session else { return Err(lost()) };
        write.exec(true, line).await.map_err(|_| lost())?;
        let mut output = Output::default();
        let mut exit = None;
        let mut ended = false;
        loop {
            match read.wait().await {
                Some(ChannelMsg::Data { data }) => output.stdout.extend_from_slice(&data),
                Some(ChannelMsg::ExtendedData { data, ext: 1 }) => output.stderr.extend_from_slice(&data),
                Some(ChannelMsg::ExitStatus { exit_status }) => exit = i32::try_from(exit_status).ok(),
                Some(ChannelMsg::Eof | ChannelMsg::Close) => ended = true,
                Some(ChannelMsg::Failure) => {
                    let what = "to run the lock's command".to_owned();
                    return Err(Error::Refused { host: self.name().to_owned(), what });
                }
                Some(_) => {}
                None => return Err(lost()),
            }
            if exit.is_none() && output.text().lines().any(|line| line == scripts::HELD) {
                return Ok(());
            }
            match exit {
                Some(scripts::TAKEN) if ended => {
                    let holder = match output.text().trim() {
                        "" => "somebody who did not leave a name".to_owned(),
                        name => name.to_owned(),
                    };
                    return Err(Error::Locked { host: self.name().to_owned(), holder });
                }
                Some(exit) if ended => {
                    output.exit = exit;
                    return Err(self.bad_exit(command, &output));
                }
                _ => {}
            }
        }
    }
}

impl Lock {
    /// Whether the lock still stands, as far as this side can know.
    pub fn is_held(&self) -> bool {
        !self.held.is_lost()
    }

    /// Frees the lock and waits until the host has done so.
    pub async fn release(self) {
        let Lock { held, stop, keeper } = self;
        drop(stop);
        if tokio::time::timeout(RELEASING, keeper).await.is_err() {
            tracing::debug!("the host did not confirm the lock's release");
        }
        drop(held);
    }
}

// Keeps the channel alive until the lock's value is gone or the channel is.
async fn keep(mut session: Session, mut stopped: oneshot::Receiver<()>, held: std::sync::Weak<Held>) {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let Session { read, write: Some(write), .. } = &mut session else { return };
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            _ = beat.tick() => {
                if write.data(&b"."[..]).await.is_err() {
                    break;
                }
            }
            message = read.wait() => match message {
                Some(ChannelMsg::Data { .. } | ChannelMsg::ExtendedData { .. } | ChannelMsg::WindowAdjusted { .. }) => {}
                Some(ChannelMsg::Success) => {}
                _ => break,
            },
        }
    }
    if let Some(held) = held.upgrade() {
        held.lose();
    }
    let gone = async {
        let _ = write.eof().await;
        while let Some(message) = read.wait().await {
            if matches!(
                message,
                ChannelMsg::ExitStatus { .. } | ChannelMsg::ExitSignal { .. } | ChannelMsg::Close
            ) {
                break;
            }
        }
    };
    if tokio::time::timeout(RELEASING, gone).await.is_err() {
        tracing::debug!("the lock's process did not end in time");
    }
}
