//! A service whose configuration is ours: new files are swapped in, and back when it does not run with them.

use remote::{Command, Host, RemoteFile};
use stage::Failure;

use crate::failure;

/// A daemon that systemd runs.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Its unit, without `.service`.
    pub unit: &'static str,
    /// What people call it.
    pub called: &'static str,
}

impl Service {
    /// A command of systemctl's on its unit.
    pub fn systemctl(&self, verb: &str) -> Command {
        Command::new("systemctl").args([verb, self.unit]).sudo()
    }

    /// Makes it start at boot.
    ///
    /// # Errors
    /// systemctl's own words.
    pub async fn enable(&self, host: &Host) -> Result<(), Failure> {
        let done = host.ok(&self.systemctl("enable")).await;
        done.map(drop).map_err(|e| failure(format!("cannot enable {} on {}", self.unit, host.name()), &e))
    }

    /// Stops it, now and at boot.
    ///
    /// # Errors
    /// systemctl's own words.
    pub async fn disable(&self, host: &Host) -> Result<(), Failure> {
        let stop = Command::new("systemctl").args(["disable", "--now", self.unit]).sudo();
        let done = host.ok(&stop).await;
        done.map(drop).map_err(|e| failure(format!("cannot stop {} on {}", self.unit, host.name()), &e))
    }

    /// The last lines of its log.
    async fn journal(&self, host: &Host) -> String {
        let tail = ["-u", self.unit, "-n", "10", "--no-pager", "-o", "cat"];
        match host.run(&Command::new("journalctl").args(tail).sudo()).await {
            Ok(output) => output.text().trim().to_owned(),
            Err(e) => format!("its log cannot be read: {e}"),
        }
    }

    /// Swaps files in, reloads or starts the service, and sees with `proven` that it runs with them. `config` is the
    /// one without which it does not run. Otherwise all that was there is put back and read again.
    ///
    /// # Errors
    /// Exit 4 with the daemon's own words once the old files are back; exit 5 when the machine was lost meanwhile:
    /// then the next run finds out what it runs with.
    pub async fn swap(
        &self,
        host: &Host,
        files: &[RemoteFile],
        config: &str,
        proven: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        let doing = || format!("cannot load the configuration of {}", host.name());
        let transport = |e: remote::Error| failure(doing(), &e);
        let mut before = Vec::new();
        for file in files {
            before.push((file, host.read(&file.path).await.map_err(transport)?));
        }
        for file in files {
            host.write(file).await.map_err(transport)?;
        }
        let reloaded = host.run(&self.systemctl("reload-or-restart")).await.map_err(transport)?;
        let proven = match reloaded.success() {
            true => proven.await,
            false => Err(Failure::precondition(doing()).because(reloaded.tail())),
        };
        let Err(wrong) = proven else { return Ok(()) };
        let log = self.journal(host).await;
        self.restore(host, before, config).await?;
        let mut told = Failure::precondition(format!(
            "{} on {} does not run with its new configuration; the old one was put back",
            self.called,
            host.name()
        ));
        told.causes.push(wrong.doing);
        told.causes.extend(wrong.causes);
        Err(told.because(log).hint(format!("ssh {} sudo journalctl -u {}", host.name(), self.unit)))
    }

    /// Puts back what was there. The service is reloaded with it, or stopped when there was no configuration.
    async fn restore(
        &self,
        host: &Host,
        before: Vec<(&RemoteFile, Option<Vec<u8>>)>,
        config: &str,
    ) -> Result<(), Failure> {
        let doing = || format!("cannot put the old configuration of {} back", host.name());
        let transport = |e: remote::Error| failure(doing(), &e);
        let ran = before.iter().any(|(file, content)| file.path == config && content.is_some());
        for (file, content) in before {
            match content {
                Some(content) => {
                    let file = RemoteFile { content, ..file.clone() };
                    host.write(&file).await.map_err(transport)?;
                }
                None => {
                    host.remove(&file.path).await.map_err(transport)?;
                }
            }
        }
        let verb = if ran { "reload-or-restart" } else { "stop" };
        // The old one may not have run either: the failure that is being told matters more.
        let again = host.run(&self.systemctl(verb)).await.map_err(transport)?;
        tracing::debug!(host = host.name(), exit = again.exit, "{verb} with the old configuration");
        Ok(())
    }
}
