//! The process: real streams, signals and exit code.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::{Edges, Exit, Prompt, Tool, run};

/// Runs a tool as this process.
pub fn start<T: Tool>() -> ExitCode {
    // A panic may carry a secret in its message: only the place is told.
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
        let _ = writeln!(
            std::io::stderr(),
            "{}: internal fault{place}; please report it with the command",
            T::NAME
        );
    }));
    trace();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::from(Exit::Internal.code()) };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async {
            let edges = edges();
            run::<T>(std::env::args_os().collect(), edges).await
        })
    }));
    // Tasks that still hang on a connection must not hold up the end.
    runtime.shutdown_background();
    ExitCode::from(outcome.unwrap_or(Exit::Internal).code())
}

/// What the libraries note of requests and commands goes to stderr when it is asked for: `-vv`, and all of it with
/// `-vvv`. Nobody but the process may set up tracing, so this is not part of `run`.
fn trace() {
    let verbose = |arg: std::ffi::OsString| match arg.to_str() {
        Some("--verbose") => 1,
        Some(flags) if flags.starts_with('-') && !flags.starts_with("--") => flags.matches('v').count(),
        _ => 0,
    };
    let filter = match std::env::args_os().map(verbose).sum::<usize>() {
        0 | 1 => return,
        2 => "warn,remote=debug,kube_apply=debug,pve_vm=debug,kube_client=off",
        _ => "debug,hyper_util=info,russh=info",
    };
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time();
    // A second one is refused, and changes nothing.
    let _ = subscriber.try_init();
}

fn edges() -> Edges {
    let (sender, interrupts) = watch::channel(0);
    tokio::spawn(async move {
        let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        let Ok(mut terminate) = terminate else { return };
        loop {
            tokio::select! {
                pressed = tokio::signal::ctrl_c() => if pressed.is_err() { return },
                _ = terminate.recv() => {}
            }
            sender.send_modify(|n| *n += 1);
        }
    });
    let stdin = std::io::stdin();
    let stderr = std::io::stderr();
    // Whether fd 0 is open at all is known only by asking the kernel; Rust opens /dev/null in its place, which
    // reads as empty input, and that is what a closed stream means here.
    Edges {
        stdin_is_terminal: stdin.is_terminal(),
        stdin: Some(Box::new(stdin)),
        stdout: Box::new(std::io::stdout()),
        stderr_is_terminal: stderr.is_terminal(),
        stderr: Arc::new(Mutex::new(stderr)),
        prompt: terminal_prompt(),
        env: Arc::new(|name| std::env::var(name).ok()),
        working_dir: std::env::current_dir().unwrap_or_default(),
        interrupts,
        crash_after: None,
        crashed: Arc::default(),
    }
}

/// Questions go to the terminal itself: standard input carries the document.
fn terminal_prompt() -> Option<Prompt> {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    Some(Arc::new(|question| {
        let mut terminal = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        terminal.write_all(question.as_bytes())?;
        let mut answer = String::new();
        BufReader::new(terminal).read_line(&mut answer)?;
        Ok(answer)
    }))
}
