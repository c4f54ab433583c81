//! What keepalived says of itself: the file that it writes when it is sent SIGUSR1, read.

use nom::bytes::complete::{tag, take_until};
use nom::character::complete::{not_line_ending, space1};
use nom::combinator::rest;
use nom::sequence::{preceded, separated_pair};
use nom::{IResult, Parser as _};
use remote::{Command, Error, Host};
use serde::{Deserialize, Serialize};

/// Has keepalived tell its state (keepalived(8), SIGUSR1) and prints what it says of its instances.
///
/// * Standard output: the section `VRRP Topology` of the file that it writes.
/// * Exit: 0 told; 69 it does not run; 75 it does not tell within three seconds.
///
/// The file is looked for below the process's own root: its unit may have a /tmp of its own. What lies there already may
/// be anybody's, and is removed; two who ask at once wait for one another.
pub const SCRIPT: &str = r#"# kubeline: vip-keepalive-state v1
set -eu
pid=$(systemctl show -p MainPID --value keepalived.service)
[ "${pid:-0}" != 0 ] || exit 69
mkdir -p /run/kubeline
exec 9</run/kubeline
flock -w 5 9 || exit 75
tmp=/proc/$pid/root/tmp
rm -f "$tmp/keepalived.data" "$tmp/keepalived_parent.data"
kill -USR1 "$pid"
n=0
until [ -O "$tmp/keepalived.data" ] && grep -q '^------< Interfaces' "$tmp/keepalived.data"; do
  n=$((n + 1))
  [ "$n" -lt 100 ] || exit 75
  sleep 0.03
done
sed -n '/^------< VRRP Topology/,/^------< VRRP Sockpool/p' "$tmp/keepalived.data"
rm -f "$tmp/keepalived.data" "$tmp/keepalived_parent.data"
"#;

/// An instance as keepalived runs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Vrrp {
    /// `MASTER`, `BACKUP` or `FAULT`.
    pub state: String,
    /// The priority that it was configured with.
    pub priority: u8,
    /// The priority after its checks.
    pub effective: u8,
}

/// Asks the keepalived of a machine; `None` when it does not run, or does not tell.
///
/// # Errors
/// Transport trouble.
pub async fn ask(host: &Host) -> Result<Option<Vrrp>, Error> {
    let said = host.run(&Command::sh(SCRIPT).sudo()).await?;
    Ok(if said.success() { read(&said.text()) } else { None })
}

/// Reads the first instance of the file.
pub fn read(text: &str) -> Option<Vrrp> {
    let (_, instance) = instance(text).ok()?;
    // Another instance, or the next section, begins with less white space than what belongs to this one.
    let own = instance.lines().skip(1).take_while(|line| line.starts_with("   "));
    let mut found = Vrrp::default();
    let mut told = 0;
    for (key, value) in own.filter_map(|line| Some(pair(line).ok()?.1)) {
        let number = || value.parse().unwrap_or_default();
        match key {
            // 2.3 says more after the word in some states.
            "State" => found.state = value.split(' ').next().unwrap_or_default().to_owned(),
            "Priority" => found.priority = number(),
            "Effective priority" => found.effective = number(),
            _ => continue,
        }
        told += 1;
    }
    (told == 3).then_some(found)
}

fn instance(text: &str) -> IResult<&str, &str> {
    preceded(take_until(" VRRP Instance = "), rest).parse(text)
}

/// `   Key = value`.
fn pair(line: &str) -> IResult<&str, (&str, &str)> {
    let key = take_until(" = ");
    preceded(space1, separated_pair(key, tag(" = "), not_line_ending)).parse(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What keepalived 2.2.7 wrote, without what is not read.
    const TOLD: &str = "------< VRRP Topology >------\n VRRP Instance = kubeline\n   VRRP Version = 3\n   State = MASTER\n\
        \x20  Flags:\n     Using unicast\n   Wantstate = MASTER\n   Number of config faults = 0\n   Interface = d0\n\
        \x20  Using src_ip = 10.77.0.1 (from configuration)\n   Virtual Router ID = 30\n   Priority = 150\n\
        \x20  Effective priority = 150\n   Total priority = 150\n   Advert interval = 200 milli-sec\n\
        \x20  Virtual IP (1):\n     10.77.0.10 dev d0 scope global set\n   Unicast Peer :\n     10.77.0.2 min_ttl 0 max_ttl 255\n\
        ------< VRRP Sockpool >------\n";

    #[test]
    fn reads_what_a_real_one_wrote() {
        let told = Vrrp { state: "MASTER".into(), priority: 150, effective: 150 };
        assert_eq!(read(TOLD), Some(told));
    }

    #[test]
    fn reads_one_instance_and_all_of_it() {
        let two = TOLD.replace("------< VRRP Sockpool", " VRRP Instance = other\n   State = FAULT\n------<");
        assert_eq!(read(&two).unwrap().state, "MASTER");
        let fault = TOLD
            .replace("State = MASTER\n", "State = FAULT - since 3 s\n")
            .replace("ctive priority = 150", "ctive priority = 0");
        let told = Vrrp { state: "FAULT".into(), priority: 150, effective: 0 };
        assert_eq!(read(&fault), Some(told));
        let half = TOLD.split("   Effective").next().unwrap();
        assert_eq!(read(half), None, "a file that was cut short tells nothing");
        assert_eq!(read(""), None);
    }
}
