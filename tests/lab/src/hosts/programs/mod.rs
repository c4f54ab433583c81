//! What machines can run: a table from a program's name to its meaning.
//!
//! To add a program: write `fn name(ctx: &mut Ctx, args: &[String]) -> Output` in a module here and list it in
//! that module's `TABLE`. It calls [`Ctx::changes`] when it may change the machine, and [`Ctx::unknown`] for
//! every option that it does not know. Nothing says yes to what it does not do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::{Held, Host, Hosts, nfs, scripts, words};

pub mod apt;
pub mod apt_get;
pub mod cluster;
pub mod disks;
pub mod etcdctl;
pub mod files;
pub mod haproxy;
pub mod keepalived;
pub mod net;
mod reading;
pub mod system;
pub mod systemctl;

/// What a program leaves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Exit code.
    pub exit: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Exit 0 with this on standard output.
    pub fn ok(stdout: impl Into<Vec<u8>>) -> Output {
        Output { exit: 0, stdout: stdout.into(), stderr: Vec::new() }
    }

    /// Exit 0 and silence.
    pub fn quiet() -> Output {
        Output::default()
    }

    /// An exit code alone.
    pub fn code(exit: i32) -> Output {
        Output { exit, ..Output::default() }
    }

    /// An exit code with a line on standard error.
    pub fn fail(exit: i32, stderr: impl AsRef<str>) -> Output {
        let mut text = stderr.as_ref().to_string();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Output { exit, stdout: Vec::new(), stderr: text.into() }
    }

    /// Adds text on standard error.
    #[must_use]
    pub fn with_stderr(mut self, text: impl AsRef<str>) -> Output {
        self.stderr.extend_from_slice(text.as_ref().as_bytes());
        self
    }
}

/// Where standard input comes from.
pub enum Input {
    /// There is none.
    Empty,
    /// What the channel still delivers; the sender's end is the end of input.
    Live(mpsc::UnboundedReceiver<Bytes>),
}

/// One call of a program: where, as whom, with what input.
pub struct Ctx {
    /// All machines.
    pub hosts: Hosts,
    /// This machine.
    pub host: Arc<Host>,
    /// The effective user; `root` under sudo.
    pub user: String,
    /// Standard input, whole, for programs that read it ([`reads_stdin`]).
    pub stdin: Vec<u8>,
    /// True once the call may have changed the world.
    pub changing: bool,
    /// True once something was asked that the lab does not know.
    pub unknown: bool,
    /// The nominal time that the call takes beyond its own waits.
    pub delay: Duration,
    input: Input,
    output: Option<mpsc::UnboundedSender<Vec<u8>>>,
}

/// A program that is done at once.
pub type Quick = fn(&mut Ctx, &[String]) -> Output;
/// A program that waits for something.
pub type Slow = for<'a> fn(&'a mut Ctx, &'a [String]) -> BoxFuture<'a, Output>;

/// How a program is run.
#[derive(Clone, Copy)]
pub enum Run {
    /// Done at once.
    Quick(Quick),
    /// Waits.
    Slow(Slow),
}

/// A program: its name, the package it comes with (empty: the base system), and its meaning.
pub type Entry = (&'static str, &'static str, Run);

fn find(name: &str) -> Option<Entry> {
    let tables: [&[Entry]; 9] = [
        apt::TABLE,
        cluster::TABLE,
        disks::TABLE,
        files::TABLE,
        haproxy::TABLE,
        keepalived::TABLE,
        net::TABLE,
        system::TABLE,
        systemctl::TABLE,
    ];
    tables.into_iter().flatten().find(|(known, _, _)| *known == name).copied()
}

/// The short form of a command for journal and faults: without sudo, a script by its name.
pub fn request(argv: &[String]) -> String {
    let mut rest = argv;
    while let Some((first, tail)) = rest.split_first() {
        match first.as_str() {
            "sudo" => rest = tail,
            "-n" | "--" if rest.len() < argv.len() => rest = tail,
            _ => break,
        }
    }
    if let [sh, c, script, tail @ ..] = rest
        && sh == "sh"
        && c == "-c"
        && let Some(name) = words::marker(script)
    {
        let args = tail.get(1..).unwrap_or_default().join(" ");
        return format!("{name} {args}").trim_end().to_string();
    }
    rest.join(" ")
}

impl Ctx {
    /// A call on a machine.
    pub fn new(
        hosts: Hosts,
        host: Arc<Host>,
        user: String,
        input: Input,
        output: Option<mpsc::UnboundedSender<Vec<u8>>>,
    ) -> Ctx {
        Ctx {
            hosts,
            host,
            user,
            stdin: Vec::new(),
            changing: false,
            unknown: false,
            delay: Duration::ZERO,
            input,
            output,
        }
    }

    /// The machine. Let go of it before other machines are touched.
    pub fn machine(&self) -> Held<'_> {
        self.host.machine()
    }

    /// True when the call runs as root.
    pub fn root(&self) -> bool {
        self.user == "root"
    }

    /// Notes that the call may change the world.
    pub fn changes(&mut self) {
        self.changing = true;
    }

    /// Lets nominal time pass before the answer.
    pub fn takes(&mut self, seconds: f64) {
        self.delay += Duration::from_secs_f64(seconds);
    }

    /// Refuses what the lab does not know: exit 127, and the journal says so.
    pub fn refuse(&mut self, text: impl AsRef<str>, exit: i32) -> Output {
        self.unknown = true;
        Output::fail(exit, text)
    }

    /// Refuses options or a form of a program that the lab does not know.
    pub fn unknown(&mut self, program: &str, args: &[String]) -> Output {
        self.refuse(format!("{program}: the lab does not know: {program} {}", args.join(" ")), 127)
    }

    /// Writes to standard output while the call still runs.
    pub fn print(&self, data: impl Into<Vec<u8>>) {
        if let Some(output) = &self.output {
            let _ = output.send(data.into());
        }
    }

    /// The next piece of standard input; `None` at its end.
    pub async fn read(&mut self) -> Option<Bytes> {
        match &mut self.input {
            Input::Empty => None,
            Input::Live(input) => input.recv().await,
        }
    }

    /// Runs an argument list as the present user, with all waits.
    pub async fn call(&mut self, argv: &[String]) -> Output {
        let output = Box::pin(self.dispatch(argv)).await;
        let delay = std::mem::take(&mut self.delay);
        if !delay.is_zero() {
            let clock = self.hosts.world().clock;
            if self.changing {
                self.hosts.settle();
            }
            clock.wait(delay).await;
        }
        output
    }

    async fn dispatch(&mut self, argv: &[String]) -> Output {
        let Some((first, args)) = argv.split_first() else { return Output::quiet() };
        match first.as_str() {
            "sudo" => return self.sudo(args).await,
            "env" => {
                let skip = args.iter().take_while(|a| a.contains('=')).count();
                return Box::pin(self.dispatch(&args[skip..])).await;
            }
            "nice" | "nohup" | "exec" => return Box::pin(self.dispatch(args)).await,
            "timeout" => return self.timeout(args).await,
            "sh" | "bash" => return self.shell(first, args).await,
            _ => {}
        }
        let name = ["/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/"]
            .iter()
            .find_map(|dir| first.strip_prefix(dir))
            .unwrap_or(first)
            .to_string();
        if first.contains('/') && (name == *first || find(&name).is_none()) {
            return self.file(first, args).await;
        }
        let Some((_, package, run)) = find(&name) else {
            return self.refuse(format!("sh: 1: {first}: not found"), 127);
        };
        if !package.is_empty() && !self.machine().packages.provides(package) {
            return Output::fail(127, format!("sh: 1: {first}: not found"));
        }
        if files::TABLE.iter().any(|(known, _, _)| *known == name)
            && let Some(output) = self.over_nfs(run, &name, args).await
        {
            return output;
        }
        self.run(run, &name, args).await
    }

    /// Runs a program on files there where they really are, when they lie below an NFS mount.
    async fn over_nfs(&mut self, run: Run, name: &str, args: &[String]) -> Option<Output> {
        let found = args.iter().filter(|a| a.starts_with('/')).find_map(|a| nfs::remote(self, a))?;
        let path = args
            .iter()
            .find(|a| a.starts_with('/') && nfs::remote(self, a).is_some())
            .cloned()
            .unwrap_or_default();
        let remote = match found {
            Ok(remote) => remote,
            Err(text) => return Some(Output::fail(1, format!("{name}: cannot access '{path}': {text}"))),
        };
        let reads = ["cat", "ls", "readlink", "sha256sum", "stat", "test"].contains(&name);
        if remote.read_only && !reads {
            return Some(Output::fail(1, format!("{name}: cannot touch '{path}': Read-only file system")));
        }
        let moved: Vec<String> = args
            .iter()
            .map(|a| match nfs::remote(self, a).filter(|_| a.starts_with('/')) {
                Some(Ok(there)) => there.path,
                _ => a.clone(),
            })
            .collect();
        let host = std::mem::replace(&mut self.host, remote.host);
        let user = std::mem::replace(&mut self.user, remote.user);
        let output = self.run(run, name, &moved).await;
        self.host = host;
        self.user = user;
        Some(output)
    }

    async fn run(&mut self, run: Run, name: &str, args: &[String]) -> Output {
        if reads_stdin(name, args) {
            self.read_all().await;
        }
        match run {
            Run::Quick(quick) => quick(self, args),
            Run::Slow(slow) => slow(self, args).await,
        }
    }

    async fn read_all(&mut self) {
        while let Some(data) = self.read().await {
            self.stdin.extend_from_slice(&data);
        }
    }

    async fn sudo(&mut self, args: &[String]) -> Output {
        let mut rest = args;
        let mut user = "root".to_string();
        while let Some((first, tail)) = rest.split_first() {
            match first.as_str() {
                "-n" | "-H" | "--non-interactive" => rest = tail,
                "--" => {
                    rest = tail;
                    break;
                }
                "-u" => {
                    let Some((name, tail)) = tail.split_first() else { return self.unknown("sudo", args) };
                    let known = self.machine().boot.user.clone();
                    let Some(account) = files::account(name.trim_start_matches('#'), &known) else {
                        return Output::fail(1, format!("sudo: unknown user {name}"));
                    };
                    user = account;
                    rest = tail;
                }
                option if option.starts_with('-') => return self.unknown("sudo", args),
                _ => break,
            }
        }
        let before = std::mem::replace(&mut self.user, user);
        let mut output = Box::pin(self.dispatch(rest)).await;
        self.user = before;
        // sudo looks for the program itself: sudo(8) says "command not found" and exits 1.
        if output.exit == 127 && !self.unknown && output.stdout.is_empty() {
            let name = rest.first().cloned().unwrap_or_default();
            output = Output::fail(1, format!("sudo: {name}: command not found"));
        }
        output
    }

    async fn timeout(&mut self, args: &[String]) -> Output {
        let skip = args.iter().take_while(|a| a.starts_with('-')).count();
        let Some((limit, rest)) = args[skip..].split_first() else { return self.unknown("timeout", args) };
        let number = limit.trim_end_matches(['s', 'm', 'h']);
        let unit = match limit.chars().last() {
            Some('m') => 60.0,
            Some('h') => 3600.0,
            _ => 1.0,
        };
        let Ok(seconds) = number.parse::<f64>() else { return self.unknown("timeout", args) };
        let real = self
            .hosts
            .world()
            .clock
            .real(Duration::from_secs_f64(seconds * unit))
            .max(Duration::from_secs(2));
        match tokio::time::timeout(real, Box::pin(self.dispatch(rest))).await {
            Ok(output) => output,
            Err(_) => Output::code(124),
        }
    }

    async fn shell(&mut self, shell: &str, args: &[String]) -> Output {
        match args {
            [c, script, tail @ ..] if c == "-c" => {
                let Some(name) = words::marker(script).map(str::to_string) else {
                    return self.refuse(format!("{shell}: the lab runs no shell: {script}"), 127);
                };
                let args: Vec<String> = tail.iter().skip(1).cloned().collect();
                self.script(&name, &args).await
            }
            [path, tail @ ..] if path.starts_with('/') => self.file(path, tail).await,
            _ => self.unknown(shell, args),
        }
    }

    /// Runs a script that was installed as a file, by its marker.
    async fn file(&mut self, path: &str, args: &[String]) -> Output {
        let text = {
            let machine = self.machine();
            match machine.fs.node(path) {
                Err(_) => return Output::fail(127, format!("sh: 1: {path}: not found")),
                Ok(node) if node.mode & 0o111 == 0 => {
                    return Output::fail(126, format!("sh: 1: {path}: Permission denied"));
                }
                Ok(_) => machine.fs.text(path),
            }
        };
        match words::marker(&text).map(str::to_string) {
            Some(name) => self.script(&name, args).await,
            None => self.refuse(format!("sh: 1: {path}: the lab knows no such script"), 127),
        }
    }

    /// Runs a known script by name and version, such as `write v1`.
    pub async fn script(&mut self, name: &str, args: &[String]) -> Output {
        let Some((_, stdin, run)) = scripts::find(name) else {
            return self.refuse(format!("sh: 1: the lab does not know the script {name}"), 127);
        };
        if stdin {
            self.read_all().await;
        }
        match run {
            Run::Quick(quick) => quick(self, args),
            Run::Slow(slow) => slow(self, args).await,
        }
    }
}

fn reads_stdin(name: &str, args: &[String]) -> bool {
    match name {
        "tee" | "chpasswd" => true,
        "cat" | "sha256sum" | "wc" => args.iter().all(|a| a.starts_with('-')),
        _ => args.iter().any(|a| a == "/dev/stdin" || a == "-"),
    }
}

/// Splits `-ab --long=x value` style arguments: flags and values that begin with `-`, and the rest.
pub fn options(args: &[String]) -> (Vec<&str>, Vec<&str>) {
    let mut flags = Vec::new();
    let mut rest = Vec::new();
    let mut plain = false;
    for arg in args {
        match arg.as_str() {
            "--" if !plain => plain = true,
            arg if !plain && arg.len() > 1 && arg.starts_with('-') => flags.push(arg),
            arg => rest.push(arg),
        }
    }
    (flags, rest)
}
