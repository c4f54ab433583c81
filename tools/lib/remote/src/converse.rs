//! One command on one session, from its input to its exit code.

use std::io::Read;

use russh::{ChannelMsg, Sig};

use crate::command::{Command, Output};
use crate::error::Error;
use crate::host::Host;
use crate::session::Session;

/// How much of its input a command is sent at once, in bytes.
const PIECE: usize = 64 << 10;

impl Host {
    /// Runs a line to its end, with standard output to `to`; the output that is returned has none.
    pub(crate) async fn converse(
        &self,
        session: &mut Session,
        line: &str,
        command: &Command,
        from: &mut (dyn Read + Send),
        to: &mut (dyn FnMut(&[u8]) -> Result<(), Error> + Send),
    ) -> Result<Output, Error> {
        let called = || command.called(self.0.target.is_root());
        let Session { read, write: Some(write), .. } = session else { return Err(self.lost(called())) };
        write.exec(true, line).await.map_err(|_| self.lost(called()))?;
        let feed = async {
            let mut piece = vec![0; PIECE];
            loop {
                let length = from.read(&mut piece)?;
                let Some(filled) = piece.get(..length).filter(|p| !p.is_empty()) else { break };
                // A command may end without having read its input: that is no error.
                if write.data(filled).await.is_err() {
                    return Ok(());
                }
            }
            let _ = write.eof().await;
            Ok(())
        };
        tokio::pin!(feed);
        let mut fed = false;
        let mut output = Output::default();
        let mut exit = None;
        let mut ended = false;
        loop {
            let message = tokio::select! {
                end = &mut feed, if !fed => {
                    end.map_err(|source| self.here(called(), source))?;
                    fed = true;
                    continue;
                }
                message = read.wait() => message,
            };
            match message {
                Some(ChannelMsg::Data { data }) => to(&data)?,
                Some(ChannelMsg::ExtendedData { data, ext: 1 }) => {
                    output.stderr.extend_from_slice(&data);
                    self.bounded(command, output.stderr.len())?;
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    exit = Some(i32::try_from(exit_status).unwrap_or(i32::MAX));
                }
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => exit = Some(128 + number(&signal_name)),
                Some(ChannelMsg::Eof) => ended = true,
                Some(ChannelMsg::Failure) => {
                    let what = format!("to run: {}", called());
                    return Err(Error::Refused { host: self.name().to_owned(), what });
                }
                // After the close nothing comes any more, so it stands for the end of the output too.
                Some(ChannelMsg::Close) => match exit {
                    Some(_) => ended = true,
                    None => return Err(self.lost(called())),
                },
                Some(_) => {}
                None => return Err(self.lost(called())),
            }
            if let (Some(exit), true) = (exit, ended) {
                output.exit = exit;
                return Ok(output);
            }
        }
    }
}

// The numbers of Linux, which signal(7) gives; RFC 4254 section 6.10 has only names.
fn number(signal: &Sig) -> i32 {
    match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        Sig::Custom(_) => 0,
    }
}
