//! The verbs and flags that all tools share; clap alone, no meaning.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Flags of every verb.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Read the document from FILE instead of standard input
    #[arg(short, long, value_name = "FILE", global = true, help_heading = "Common options")]
    pub file: Option<PathBuf>,
    /// Take `status` from FILE, an earlier run's output, when there is such a file
    #[arg(long, value_name = "FILE", global = true, help_heading = "Common options")]
    pub status: Option<PathBuf>,
    /// Write to FILE instead of standard output, atomically
    #[arg(short, long, value_name = "FILE", global = true, help_heading = "Common options")]
    pub output: Option<PathBuf>,
    /// Say more on stderr; twice for every request and command
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = "Common options")]
    pub verbose: u8,
    /// The form of messages on stderr
    #[arg(long, value_name = "FORM", default_value = "text", global = true, help_heading = "Common options")]
    pub log: LogForm,
    /// Show progress bars on stderr
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true, help_heading = "Common options")]
    pub progress: When,
    /// Give up after this time, such as 90s, 30m or 2h
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = span, global = true, help_heading = "Common options")]
    pub timeout: std::time::Duration,
    /// How much runs side by side; 8, or where the work is done elsewhere, as much as is sound there
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), global = true, help_heading = "Common options")]
    pub jobs: Option<u16>,
    /// Append a line of JSON to FILE for each step started, done or failed
    #[arg(long, value_name = "FILE", global = true, help_heading = "Common options")]
    pub events: Option<PathBuf>,
    /// Accept the SSH key of a machine seen for the first time, and record it
    #[arg(long, global = true, help_heading = "Common options")]
    pub accept_new_host_keys: bool,
}

/// The form of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// Sentences
    Text,
    /// One JSON object a line
    Json,
}

/// When progress bars are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What to do; apply when left out.
#[derive(Subcommand, Clone, Debug)]
pub enum Verb<V: Subcommand> {
    /// Make it so, and write the document with what was done (the default)
    Apply {
        /// Do exactly the plan saved in FILE; refused when the world has moved since
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
    },
    /// Show what apply would do, and why; touches nothing
    Plan {
        /// Write the plan as JSON
        #[arg(long)]
        json: bool,
        /// Save the plan to FILE, for apply --plan
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
    /// Check the whole document, offline
    Lint,
    /// Print one value of the document, for scripts
    Get {
        /// Where it is (RFC 6901), such as /metadata/name
        #[arg(value_name = "POINTER")]
        pointer: String,
    },
    /// Compare the live state with the document; exit 6 when something is off
    Check {
        /// Write the findings as JSON
        #[arg(long)]
        json: bool,
        /// Write the findings to FILE for node-exporter's textfile collector
        #[arg(long, value_name = "FILE")]
        metrics: Option<PathBuf>,
    },
    /// Write what apply would install, to standard output or a directory
    Render {
        /// Only files whose path begins so, such as a machine's name
        #[arg(value_name = "PREFIX")]
        only: Option<String>,
        /// Write one file each below DIR
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Undo what apply did; asks first
    Destroy(crate::Consent),
    /// The tool's own verbs
    #[command(flatten)]
    Own(V),
    /// Print the JSON Schema of the sections that are read
    Schema,
    /// Print a completion script
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
}

/// The whole command line of a tool.
#[derive(clap::Parser, Clone, Debug)]
#[command(version, disable_help_subcommand = true)]
pub struct Cli<F: Args, V: Subcommand> {
    /// What to do.
    #[command(subcommand)]
    pub verb: Option<Verb<V>>,
    /// The tool's own flags.
    #[command(flatten)]
    pub own: F,
    /// Flags of every verb.
    #[command(flatten)]
    pub common: Common,
}

fn span(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || "write a number and s, m or h, such as 90s or 30m".to_owned();
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    match number.checked_mul(unit) {
        Some(seconds @ 1..=604_800) => Ok(std::time::Duration::from_secs(seconds)),
        _ => Err("write a time from 1s to 168h".to_owned()),
    }
}
