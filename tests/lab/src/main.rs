//! The lab by hand: starts the simulated world, or talks to one that runs.
#![allow(clippy::print_stdout, clippy::print_stderr)] // A program for people, outside the tools' contract.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use lab::pve::Generation;
use lab::{Clock, Config, Lab, Subnet, control};

/// A simulated Proxmox cluster, its machines and the Kubernetes on them, on loopback addresses.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Where the lab keeps its files: document, CA, token, keys
    #[arg(long, value_name = "DIR", default_value = "out/lab", global = true)]
    dir: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Start it, and serve until Ctrl-C (the default)
    Serve {
        /// How much of a real latency passes: 1 is life, 0.1 ten times as quick
        #[arg(long, value_name = "SCALE", default_value_t = 0.0)]
        latency: f64,
        /// The loopback network, as 127.X.Y; a free one unless given
        #[arg(long, value_name = "NET")]
        net: Option<String>,
        /// The cluster's name in the document
        #[arg(long, value_name = "NAME", default_value = "demo")]
        name: String,
        /// Simulate Proxmox VE 8 rather than 9
        #[arg(long)]
        pve8: bool,
    },
    /// Show what a running lab holds
    Status,
    /// Show the requests that a running lab has seen
    Journal {
        /// Only those that may have changed something
        #[arg(long)]
        changing: bool,
        /// From this position on
        #[arg(long, value_name = "N", default_value_t = 0)]
        since: usize,
    },
    /// Switch a Proxmox node off
    NodeOff {
        /// Its name
        name: String,
    },
    /// Switch a Proxmox node on again
    NodeOn {
        /// Its name
        name: String,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Serve {
        latency: 0.0,
        net: None,
        name: "demo".into(),
        pve8: false,
    }) {
        Command::Serve { latency, net, name, pve8 } => serve(&cli.dir, latency, net.as_deref(), name, pve8),
        Command::Status => ask(&cli.dir, "GET", "/status"),
        Command::Journal { changing, since } => {
            ask(&cli.dir, "GET", &format!("/journal?changing={changing}&since={since}"))
        }
        Command::NodeOff { name } => ask(&cli.dir, "POST", &format!("/node/off?name={name}")),
        Command::NodeOn { name } => ask(&cli.dir, "POST", &format!("/node/on?name={name}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("lab: {e}");
            ExitCode::FAILURE
        }
    }
}

fn serve(dir: &Path, latency: f64, net: Option<&str>, name: String, pve8: bool) -> std::io::Result<()> {
    let parts: Option<Vec<u8>> = net.map(|n| n.split('.').filter_map(|p| p.parse().ok()).collect());
    let net = match parts.as_deref() {
        None => None,
        Some([127, x, y]) => Some(Subnet::fixed(*x, *y)),
        Some(_) => {
            return Err(std::io::Error::other("--net is no loopback network; write for example 127.30.0"));
        }
    };
    std::fs::create_dir_all(dir)?;
    let config = Config {
        net,
        clock: Clock::scaled(latency),
        generation: if pve8 { Generation::V8 } else { Generation::V9 },
        name,
        ..Config::quick(&std::fs::canonicalize(dir)?)
    };
    tokio::runtime::Runtime::new()?.block_on(async {
        let lab = Arc::new(Lab::start(config).await?);
        let address = control::serve(lab.clone()).await?;
        println!("lab: serving; the document is {}", lab.dir().join("cluster.json").display());
        println!("lab: control at http://{address}/status; Ctrl-C ends it");
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            end = tokio::signal::ctrl_c() => end?,
            _ = terminate.recv() => {}
        }
        // A control file without a lab behind it would only mislead.
        std::fs::remove_file(lab.dir().join("control"))
    })
}

/// One request to a running lab; its answer goes to standard output.
fn ask(dir: &Path, method: &str, path: &str) -> std::io::Result<()> {
    let address = std::fs::read_to_string(dir.join("control")).map_err(|_| {
        std::io::Error::other(format!("no lab runs with its files in {}; start one with: lab", dir.display()))
    })?;
    let mut stream = TcpStream::connect(address.trim())?;
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: lab\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    println!("{body}");
    if head.contains(" 200 ") {
        Ok(())
    } else {
        Err(std::io::Error::other(head.lines().next().unwrap_or("no answer").to_owned()))
    }
}
