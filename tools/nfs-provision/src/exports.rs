//! The table of exports: our file, and what the server says is in force.

use std::fmt::Write as _;

use nom::IResult;
use nom::Parser as _;
use nom::branch::alt;
use nom::bytes::complete::{is_not, tag, take_while1};
use nom::character::complete::{char, line_ending, space0, space1};
use nom::combinator::{all_consuming, opt, recognize};
use nom::multi::{many0, many1, separated_list1};
use nom::sequence::{delimited, preceded, terminated};
use sha2::{Digest as _, Sha256};

/// Our file; exportfs reads every file of that folder whose name ends so (exports(5)).
pub const PATH: &str = "/etc/exports.d/kubeline.exports";
/// How our file begins.
pub const HEADER: &str = "# Managed by kubeline (nfs-provision). Changes here are overwritten.";

/// A folder, and who may mount it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The folder.
    pub path: String,
    /// Its mode.
    pub mode: u32,
    /// Addresses of the machines that may.
    pub clients: Vec<String>,
    /// The mount that must be there, or nothing is exported.
    pub mount: Option<String>,
}

/// Our file for these exports.
///
/// Root stays root, because the provisioner makes folders as root and containers change owners; so only listed
/// addresses are clients. A folder keeps its handle (fsid) when its disk moves.
pub fn file(exports: &[Export]) -> String {
    let mut text = format!("{HEADER}\n");
    for Export { path, clients, mount, .. } in exports {
        let mount = mount.as_ref().map(|mount| format!(",mp={mount}")).unwrap_or_default();
        let options = format!("rw,sync,no_subtree_check,no_root_squash,sec=sys,fsid={}{mount}", fsid(path));
        let _ = write!(text, "{path}");
        for client in clients {
            let _ = write!(text, " {client}({options})");
        }
        text.push('\n');
    }
    text
}

/// A handle for a folder, the same for ever: the digest of its path in the form of a UUID.
fn fsid(path: &str) -> String {
    let digest = Sha256::digest(path);
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// One client of one folder, as `exportfs -v` says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct InForce {
    /// The folder.
    pub path: String,
    /// The client.
    pub client: String,
    /// The options.
    pub options: Vec<String>,
}

/// Reads what `exportfs -v` prints: a folder, on the same or the next line a client with its options in brackets.
///
/// # Errors
/// The text that could not be read.
pub fn in_force(text: &str) -> Result<Vec<InForce>, String> {
    match all_consuming(terminated(many0(entry), blank)).parse(text) {
        Ok((_, all)) => Ok(all),
        Err(error) => Err(format!("exportfs -v said something unknown: {error}")),
    }
}

fn blank(text: &str) -> IResult<&str, ()> {
    many0(alt((line_ending, space1))).map(drop).parse(text)
}

fn entry(text: &str) -> IResult<&str, InForce> {
    let (rest, _) = blank(text)?;
    let (rest, path) = alt((delimited(char('"'), is_not("\""), char('"')), path)).parse(rest)?;
    let gap = (space0, opt((line_ending, space1)));
    let (rest, client) = preceded(gap, is_not("( \t\r\n")).parse(rest)?;
    let option = recognize(many1(alt((take_while1(|c: char| !",()\n".contains(c)), tag(":")))));
    let (rest, options) = delimited(char('('), separated_list1(char(','), option), char(')')).parse(rest)?;
    let options = options.into_iter().map(str::to_owned).collect();
    Ok((rest, InForce { path: path.to_owned(), client: client.to_owned(), options }))
}

fn path(text: &str) -> IResult<&str, &str> {
    recognize((char('/'), opt(is_not(" \t\r\n")))).parse(text)
}

/// The clients of our exports that are not in force as they should be: `path client`.
pub fn lacking(exports: &[Export], table: &[InForce]) -> Vec<String> {
    let mut lacking = Vec::new();
    for export in exports {
        for client in &export.clients {
            let there = table.iter().any(|one| {
                let has = |option: &str| one.options.iter().any(|o| o == option);
                one.path == export.path && one.client == *client && has("rw") && has("no_root_squash")
            });
            if !there {
                lacking.push(format!("{} to {client}", export.path));
            }
        }
    }
    lacking
}

#[cfg(test)]
mod tests {
    use super::*;

    // The form of nfs-utils 2.8: a long path stands on a line of its own.
    const TABLE: &str = "/srv/nfs/k8s-prod\n\t\t10.30.0.31(sync,wdelay,hide,no_subtree_check,fsid=1,sec=sys,rw,secure,no_root_squash,no_all_squash)\n/srv/nfs/k8s-prod\n\t\t10.30.0.32(sync,wdelay,hide,no_subtree_check,fsid=1,sec=sys,ro,secure,root_squash,no_all_squash)\n/short        \t<world>(sync,wdelay,hide,no_subtree_check,sec=sys:krb5,rw,secure,root_squash)\n";

    fn prod() -> Export {
        Export {
            path: "/srv/nfs/k8s-prod".into(),
            mode: 0o755,
            clients: vec!["10.30.0.31".into(), "10.30.0.32".into()],
            mount: Some("/srv/nfs".into()),
        }
    }

    #[test]
    fn the_table_is_read() {
        let table = in_force(TABLE).unwrap();
        assert_eq!(table.len(), 3);
        assert_eq!((table[2].path.as_str(), table[2].client.as_str()), ("/short", "<world>"));
        assert!(table[2].options.contains(&"sec=sys:krb5".to_owned()));
        assert_eq!(lacking(&[prod()], &table), ["/srv/nfs/k8s-prod to 10.30.0.32"]);
        assert_eq!(in_force("").unwrap(), []);
        assert!(in_force("exportfs: what?\n").is_err());
    }

    #[test]
    fn our_file_has_no_space_before_options() {
        let text = file(&[prod()]);
        let lines = text.strip_prefix(HEADER).unwrap();
        assert!(!lines.contains(" ("), "{text}");
        assert!(text.contains("mp=/srv/nfs)"));
        assert_eq!(text, file(&[prod()]));
    }
}
