//! Shows a built cluster to a person: machines, address, nodes, pods, topology, times.
#![allow(clippy::print_stdout, clippy::print_stderr)] // A program for people, outside the tools' contract.

mod kubernetes;
mod machines;
mod table;
mod topology;

use std::process::ExitCode;

const USAGE: &str = "pipeline-view machines|vip|svg DOCUMENT, nodes|pods KUBECONFIG, times FILE";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [what, path] = args.as_slice() else {
        eprintln!("usage: {USAGE}");
        return ExitCode::from(2);
    };
    let shown = match what.as_str() {
        "machines" => machines::machines(path),
        "vip" => machines::vip(path),
        "svg" => topology::svg(path),
        "nodes" => kubernetes::nodes(path),
        "pods" => kubernetes::pods(path),
        "times" => times(path),
        _ => Err(format!("usage: {USAGE}")),
    };
    match shown {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("pipeline-view: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The stages with the seconds that each took, from lines of `START END TOOL`.
fn times(path: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let mut rows = vec![vec!["STAGE".to_owned(), "SECONDS".to_owned()]];
    let mut total = 0.0;
    for line in text.lines() {
        let mut words = line.split(' ');
        let mut number = || words.next()?.replace(',', ".").parse::<f64>().ok();
        let (Some(start), Some(end), Some(tool)) = (number(), number(), words.next()) else {
            return Err(format!("{path}: no line of times: {line}"));
        };
        total += end - start;
        rows.push(vec![tool.to_owned(), format!("{:.2}", end - start)]);
    }
    rows.push(vec!["all".to_owned(), format!("{total:.2}")]);
    Ok(table::render(&rows))
}
