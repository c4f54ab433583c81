//! HAProxy's runtime socket: how it is asked, and its replies read.

use std::collections::BTreeMap;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_until, take_while};
use nom::character::complete::{char, line_ending, not_line_ending};
use nom::combinator::{map, opt};
use nom::multi::{many0, separated_list0, separated_list1};
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser as _};
use remote::{Command, Error, Host};
use serde::{Deserialize, Serialize};

use crate::config::SOCKET;

/// Sends one command to HAProxy's runtime socket and prints the reply.
///
/// * `$1` the socket's path, `$2` the command.
/// * Exit: 0 answered; anything else: nobody listens there.
///
/// Perl, because Debian's perl-base is essential and has IO::Socket::UNIX, while socat is a package more.
pub const SCRIPT: &str = r#"# kubeline: lb-render-socket v1
exec perl -MIO::Socket::UNIX -e '
alarm 5;
my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "connect to $ARGV[0]: $!\n";
print $s "$ARGV[1]\n"; $s->flush; $s->shutdown(1);
print while <$s>;
' "$1" "$2"
"#;

/// Asks the socket; `None` when nobody answers.
///
/// # Errors
/// Transport trouble.
pub async fn ask(host: &Host, command: &str) -> Result<Option<String>, Error> {
    let script = Command::sh(SCRIPT).args([SOCKET, command]).sudo().title(format!("HAProxy: {command}"));
    let output = host.run(&script).await?;
    Ok(output.success().then(|| output.text().into_owned()))
}

/// A server as HAProxy sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerState {
    /// Its backend.
    pub backend: String,
    /// Its name.
    pub server: String,
    /// HAProxy's word, such as `UP`, `DOWN 1/2` or `MAINT`.
    pub status: String,
    /// The outcome of the last check, such as `L7OK` or `L4CON`; empty before the first.
    #[serde(default)]
    pub check: String,
}

impl ServerState {
    /// True when connections may go there.
    pub fn is_up(&self) -> bool {
        self.status.starts_with("UP") || self.status == "no check"
    }
}

/// `show info`: keys and values.
pub fn info(text: &str) -> BTreeMap<String, String> {
    let parsed: IResult<&str, Vec<(&str, &str)>> = many0(info_line).parse(text);
    let lines = parsed.map(|(_, lines)| lines).unwrap_or_default();
    lines.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn info_line(text: &str) -> IResult<&str, (&str, &str)> {
    let (rest, _) = many0(line_ending).parse(text)?;
    let (rest, key) = take_until(":").parse(rest)?;
    let (rest, value) = preceded((char(':'), opt(char(' '))), not_line_ending).parse(rest)?;
    let (rest, _) = opt(line_ending).parse(rest)?;
    Ok((rest, (key, value)))
}

/// `show stat`: the servers, in HAProxy's order. Columns are found by name, for each release adds some.
pub fn servers(text: &str) -> Vec<ServerState> {
    let Ok((rest, header)) = header(text) else { return Vec::new() };
    let rows: IResult<&str, Vec<Vec<String>>> = many0(terminated(row, many0(line_ending))).parse(rest);
    let rows = rows.map(|(_, rows)| rows).unwrap_or_default();
    let column = |name: &str| header.iter().position(|h| *h == name);
    let cell = |row: &[String], at: Option<usize>| at.and_then(|at| row.get(at)).cloned().unwrap_or_default();
    let (backend, server, status, check, kind) =
        (column("pxname"), column("svname"), column("status"), column("check_status"), column("type"));
    // Type 2 is a server (HAProxy's management guide, "CSV format", field 32).
    rows.iter()
        .filter(|row| cell(row, kind) == "2")
        .map(|row| ServerState {
            backend: cell(row, backend),
            server: cell(row, server),
            status: cell(row, status),
            check: cell(row, check).trim_start_matches("* ").to_owned(),
        })
        .collect()
}

fn header(text: &str) -> IResult<&str, Vec<&str>> {
    let (rest, _) = (many0(line_ending), tag("# ")).parse(text)?;
    let name = take_while(|c: char| c != ',' && c != '\n' && c != '\r');
    terminated(separated_list1(char(','), name), line_ending).parse(rest)
}

/// One row; a row that has nothing in its first cell ends the table.
fn row(text: &str) -> IResult<&str, Vec<String>> {
    let plain = map(take_while(|c: char| c != ',' && c != '\n' && c != '\r'), str::to_owned);
    let quoted =
        map(delimited(char('"'), many0(alt((map(tag("\"\""), |_| "\""), inner))), char('"')), |parts| {
            parts.concat()
        });
    let (rest, cells) = separated_list0(char(','), alt((quoted, plain))).parse(text)?;
    if cells.first().is_none_or(String::is_empty) {
        return Err(nom::Err::Error(nom::error::Error::new(text, nom::error::ErrorKind::Eof)));
    }
    Ok((rest, cells))
}

fn inner(text: &str) -> IResult<&str, &str> {
    nom::bytes::complete::take_while1(|c: char| c != '"').parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_table_of_servers() {
        let text = "# pxname,svname,status,check_status,type,last_chk,\n\
            api,FRONTEND,OPEN,,0,,\n\
            api,cp1,UP,L7OK,2,\"it said \"\"ok\"\", twice\",\n\
            api,cp2,DOWN 1/2,* L4CON,2,,\n\
            api,BACKEND,UP,,1,,\n\n";
        let all = servers(text);
        assert_eq!(all.len(), 2);
        assert!(all[0].is_up() && all[0].check == "L7OK");
        assert_eq!(
            (all[1].server.as_str(), all[1].status.as_str(), all[1].check.as_str(), all[1].is_up()),
            ("cp2", "DOWN 1/2", "L4CON", false)
        );
        assert!(servers("").is_empty() && servers("Permission denied\n").is_empty());
    }

    #[test]
    fn reads_info() {
        let all =
            info("Name: HAProxy\nVersion: 3.0.11\nnode: lb-1\ndescription: kubeline 12ab\nStopping: 0\n\n");
        assert_eq!(all["description"], "kubeline 12ab");
        assert_eq!(all["Stopping"], "0");
    }

    #[test]
    fn reads_what_a_real_one_said() {
        let facts = std::env::var_os("KUBELINE_FACTS").map(std::path::PathBuf::from).or_else(|| {
            let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
            here.ancestors().map(|a| a.join("shared/facts")).find(|p| p.is_dir())
        });
        let Some(facts) = facts else {
            println!("skipped: no folder of recorded facts (KUBELINE_FACTS)");
            return;
        };
        let read = |name: &str| std::fs::read_to_string(facts.join("kubeadm").join(name)).unwrap();
        let all = servers(&read("haproxy-show-stat.stdout"));
        let names: Vec<&str> = all.iter().map(|s| s.server.as_str()).collect();
        assert_eq!(names, ["cp1", "cp2", "cp3"]);
        assert!(all[0].is_up() && !all[2].is_up(), "{all:?}");
        assert_eq!(servers(&read("haproxy-show-stat-maint.stdout"))[1].status, "MAINT");
        assert_eq!(info(&read("haproxy-show-info.stdout"))["Version"], "3.0.11-1+deb13u3");
    }
}
