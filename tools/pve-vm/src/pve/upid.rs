//! The name of a task: `UPID:NODE:PID:PSTART:STARTTIME:TYPE:ID:USER:` (pve-common, PVE/UPID.pm).

use std::fmt;

use nom::bytes::complete::{tag, take_while, take_while1};
use nom::character::complete::{char, hex_digit1};
use nom::combinator::{all_consuming, verify};
use nom::sequence::terminated;
use nom::{IResult, Parser as _};

/// A task's name, and the parts of it that a client needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upid {
    text: String,
    /// The Proxmox node that runs the task, which need not be the one that was asked.
    pub node: String,
    /// The kind of task, such as `qmclone`.
    pub kind: String,
    /// What it works on; the source's id for a clone.
    pub id: String,
}

fn word(input: &str) -> IResult<&str, &str> {
    take_while1(|c: char| !c.is_whitespace() && c != ':' && c != '/').parse(input)
}

fn name(input: &str) -> IResult<&str, &str> {
    let node = take_while1(|c: char| c.is_ascii_alphanumeric() || c == '-');
    verify(node, |n: &str| !n.starts_with('-') && !n.ends_with('-')).parse(input)
}

fn hex<'a>(digits: std::ops::RangeInclusive<usize>) -> impl Fn(&'a str) -> IResult<&'a str, &'a str> {
    move |input| terminated(verify(hex_digit1, |h: &str| digits.contains(&h.len())), char(':')).parse(input)
}

fn upid(input: &str) -> IResult<&str, (&str, &str, &str)> {
    let (rest, _) = tag("UPID:").parse(input)?;
    let (rest, node) = terminated(name, char(':')).parse(rest)?;
    let (rest, _) = (hex(8..=8), hex(8..=9), hex(8..=8)).parse(rest)?;
    let (rest, kind) = terminated(word, char(':')).parse(rest)?;
    let id = take_while(|c: char| !c.is_whitespace() && c != ':' && c != '/');
    let (rest, id) = terminated(id, char(':')).parse(rest)?;
    let (rest, _user) = terminated(word, char(':')).parse(rest)?;
    Ok((rest, (node, kind, id)))
}

impl Upid {
    /// Reads a task's name; `None` for anything else.
    pub fn parse(text: &str) -> Option<Upid> {
        let (_, (node, kind, id)) = all_consuming(upid).parse(text).ok()?;
        Some(Upid { text: text.to_owned(), node: node.to_owned(), kind: kind.to_owned(), id: id.to_owned() })
    }
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_grammar_allows() {
        let text = "UPID:pve1:0003A5F1:01C3D4E5:68A1B2C3:qmclone:9000:pve-vm@pve!k8s:";
        let upid = Upid::parse(text).unwrap();
        assert_eq!((upid.node.as_str(), upid.kind.as_str(), upid.id.as_str()), ("pve1", "qmclone", "9000"));
        assert_eq!(upid.to_string(), text);
        let anonymous = Upid::parse("UPID:n-1:0003A5F1:101C3D4E5:68A1B2C3:vzdump::root@pam:").unwrap();
        assert_eq!(anonymous.id, "");
    }

    #[test]
    fn refuses_the_rest() {
        for wrong in [
            "",
            "OK",
            "UPID:pve1:3A5F1:01C3D4E5:68A1B2C3:qmclone:9000:root@pam:",
            "UPID:-pve1:0003A5F1:01C3D4E5:68A1B2C3:qmclone:9000:root@pam:",
            "UPID:pve1:0003A5F1:01C3D4E5:68A1B2C3:qmclone:9000:root@pam",
            "UPID:pve1:0003A5F1:01C3D4E5:68A1B2C3::9000:root@pam:",
            "UPID:pve1:0003A5F1:01C3D4E5:68A1B2C3:qmclone:9/0:root@pam:",
        ] {
            assert_eq!(Upid::parse(wrong), None, "{wrong}");
        }
    }
}
