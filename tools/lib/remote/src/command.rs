//! A command as a value, and what came of it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::quote::{quote, quote_first};

/// How long a command may run when nobody says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// A command to run on a host: an argument list, never shell text.
///
/// Arguments are visible to every user of the host; secrets go to standard input, which no message and no
/// `Debug` prints.
#[derive(Clone)]
pub struct Command {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    sudo: bool,
    stdin: Vec<u8>,
    timeout: Duration,
    title: Option<String>,
}

impl Command {
    /// A command that runs one program.
    pub fn new(program: impl Into<String>) -> Command {
        Command {
            argv: vec![program.into()],
            env: Vec::new(),
            sudo: false,
            stdin: Vec::new(),
            timeout: DEFAULT_TIMEOUT,
            title: None,
        }
    }

    /// A command that runs a fixed script; its parameters are the arguments added afterwards, as `$1`, `$2`.
    pub fn sh(script: &'static str) -> Command {
        Command::new("sh").args(["-c", script, "sh"])
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Command {
        self.argv.push(arg.into());
        self
    }

    /// Adds several arguments.
    pub fn args<I, S>(mut self, args: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable through `env K=V`, as visible as an argument: no secrets.
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Command {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Runs the command as root: through `sudo -n --` unless the connection's user is root.
    pub fn sudo(mut self) -> Command {
        self.sudo = true;
        self
    }

    /// What the command reads on standard input; without it, that is at its end from the start.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Command {
        self.stdin = bytes.into();
        self
    }

    /// How long the command may run; five minutes when not set.
    pub fn timeout(mut self, timeout: Duration) -> Command {
        self.timeout = timeout;
        self
    }

    /// What errors call the command instead of its line, for one whose line is long.
    pub fn title(mut self, title: impl Into<String>) -> Command {
        self.title = Some(title.into());
        self
    }

    /// The line, quoted, that a person can paste into a shell on the host.
    pub fn line(&self) -> String {
        self.wire(false)
    }

    /// The line as it is sent, which for root has no sudo.
    pub(crate) fn wire(&self, as_root: bool) -> String {
        let mut words: Vec<Cow<'_, str>> = Vec::new();
        if self.sudo && !as_root {
            words.extend(["sudo".into(), "-n".into(), "--".into()]);
        }
        if !self.env.is_empty() {
            words.push("env".into());
            words.extend(self.env.iter().map(|(key, value)| Cow::Owned(format!("{key}={value}"))));
        }
        words.extend(self.argv.iter().map(|arg| Cow::Borrowed(arg.as_str())));
        let mut quoted = words.iter().enumerate();
        let first = quoted.next().map(|(_, word)| quote_first(word)).unwrap_or_default();
        quoted.fold(first, |line, (_, word)| line + " " + &quote(word))
    }

    pub(crate) fn called(&self, as_root: bool) -> String {
        self.title.clone().unwrap_or_else(|| self.wire(as_root))
    }

    pub(crate) fn input(&self) -> &[u8] {
        &self.stdin
    }

    pub(crate) fn limit(&self) -> Duration {
        self.timeout
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("line", &self.line())
            .field("stdin", &format_args!("{} bytes", self.stdin.len()))
            .field("timeout", &self.timeout)
            .finish()
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())
    }
}

/// What a command that ran to its end left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The exit code; 128 plus the signal's number when a signal ended it.
    pub exit: i32,
    /// All of standard output.
    pub stdout: Vec<u8>,
    /// All of standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether the exit code is 0.
    pub fn success(&self) -> bool {
        self.exit == 0
    }

    /// Standard output as text; what is no UTF-8 is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// Standard error as text; what is no UTF-8 is replaced.
    pub fn error_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }

    /// The last lines of standard error, or of standard output when the former is empty.
    pub fn tail(&self) -> String {
        const LINES: usize = 20;
        let text = match self.error_text() {
            text if text.trim().is_empty() => self.text(),
            text => text,
        };
        let lines: Vec<&str> = text.trim().lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_quoted_once() {
        let command = Command::new("printf").args(["%s\n", "a b"]).env("LC_ALL", "C").sudo();
        assert_eq!(command.line(), "sudo -n -- env LC_ALL=C printf '%s\n' 'a b'");
        assert_eq!(command.wire(true), "env LC_ALL=C printf '%s\n' 'a b'");
        assert_eq!(Command::sh("echo \"$1\"").arg("x").line(), "sh -c 'echo \"$1\"' sh x");
    }

    #[test]
    fn stdin_is_never_shown() {
        let command = Command::new("chpasswd").stdin("root:hunter2");
        assert!(!format!("{command:?} {command}").contains("hunter2"));
    }

    #[test]
    fn tail_falls_back_to_stdout() {
        let output = Output { exit: 1, stdout: b"Error: no\n".to_vec(), stderr: b" \n".to_vec() };
        assert_eq!(output.tail(), "Error: no");
        let many: String = (0..50).map(|n| format!("{n}\n")).collect();
        let output = Output { exit: 1, stdout: Vec::new(), stderr: many.into_bytes() };
        assert!(output.tail().starts_with("30\n") && output.tail().ends_with("49"));
    }
}
