//! What kubeadm says when it refuses: its complaints without the noise around them.
//!
//! They make a failure readable; of decisions, only whether the operator or a second run is wanted hangs on them.

use nom::Parser as _;
use nom::branch::alt;
use nom::bytes::complete::{tag, take_till, take_until1};
use nom::character::complete::{multispace0, space0};
use nom::combinator::{map, rest};
use nom::sequence::{delimited, preceded};
use nom::{IResult, multi};

/// One complaint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// A preflight check that failed: its name, as `ignorePreflightErrors` takes it, and what is wrong.
    Fatal(String, String),
    /// A preflight check that only warns.
    Warning(String, String),
    /// What kubeadm ended with.
    Error(String),
}

/// `[ERROR Port-6443]: Port 6443 is in use`
fn check(line: &str) -> IResult<&str, Complaint> {
    let fatal = map(preceded(tag("[ERROR "), named), |(name, why)| Complaint::Fatal(name, why));
    let warning = map(preceded(tag("[WARNING "), named), |(name, why)| Complaint::Warning(name, why));
    preceded(multispace0, alt((fatal, warning))).parse(line)
}

fn named(rest_of_line: &str) -> IResult<&str, (String, String)> {
    let name = delimited(space0, take_until1("]"), tag("]:"));
    map((name, preceded(space0, rest)), |(name, why): (&str, &str)| (name.to_owned(), why.trim().to_owned()))
        .parse(rest_of_line)
}

/// `error: what it ended with`, and klog's `W1120 ... file.go:105] text` is noise.
fn end(line: &str) -> IResult<&str, Complaint> {
    map(preceded((tag("error:"), space0), rest), |why: &str| Complaint::Error(why.trim().to_owned()))
        .parse(line)
}

fn line(text: &str) -> IResult<&str, Option<Complaint>> {
    let (left, one) = take_till(|c| c == '\n').parse(text)?;
    let left = left.strip_prefix('\n').unwrap_or(left);
    let complaint = alt((check, end)).parse(one).ok().map(|(_, c)| c);
    // Without progress the repetition would not end.
    if one.is_empty() && left.len() == text.len() {
        return Err(nom::Err::Error(nom::error::Error::new(text, nom::error::ErrorKind::Eof)));
    }
    Ok((left, complaint))
}

/// The complaints in what kubeadm wrote on standard error.
pub fn complaints(stderr: &str) -> Vec<Complaint> {
    let all: IResult<&str, Vec<Option<Complaint>>> = multi::many0(line).parse(stderr);
    all.map(|(_, lines)| lines.into_iter().flatten().collect()).unwrap_or_default()
}

/// What a failed kubeadm said, as causes of a failure; its last lines when nothing is known in it.
pub fn causes(stderr: &str) -> Vec<String> {
    let found: Vec<String> = complaints(stderr)
        .into_iter()
        .filter_map(|c| match c {
            Complaint::Fatal(name, why) => Some(format!("{name}: {why}")),
            Complaint::Error(why) => Some(why),
            Complaint::Warning(..) => None,
        })
        .collect();
    if !found.is_empty() {
        return found;
    }
    let lines: Vec<&str> = stderr.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].iter().map(|l| l.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_complaints() {
        let text = "W1120 22:52:07.820918 2824 x.go:105] [reset] noise\n\t[WARNING Swap]: swap is on\n[preflight] Some\n\
                    \t[ERROR Port-6443]: Port 6443 is in use\nerror: it failed\n\n";
        assert_eq!(
            complaints(text),
            [
                Complaint::Warning("Swap".into(), "swap is on".into()),
                Complaint::Fatal("Port-6443".into(), "Port 6443 is in use".into()),
                Complaint::Error("it failed".into()),
            ]
        );
        assert_eq!(causes(text), ["Port-6443: Port 6443 is in use", "it failed"]);
        assert_eq!(causes("a\n\nb\nc\nd\n"), ["b", "c", "d"]);
        assert_eq!(complaints(""), []);
    }
}
