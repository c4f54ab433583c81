//! Our lines in /etc/fstab: a comment that is ours, and the mount after it. All other lines stay as they are.

/// What leads our lines.
const MARK: &str = "# Managed by kubeline (nfs-provision):";

/// The source that the table has for a mount point, whoever wrote it.
pub fn source_of<'t>(table: &'t str, mount: &str) -> Option<&'t str> {
    table.lines().filter(|line| !line.trim_start().starts_with('#')).find_map(|line| {
        let mut fields = line.split_whitespace();
        let source = fields.next()?;
        (fields.next()? == mount).then_some(source)
    })
}

/// The table with our mount in it.
///
/// A machine boots without the disk (nofail); what is exported then is held back by the server itself (mp=).
pub fn with(table: &str, source: &str, mount: &str, fstype: &str) -> String {
    let mut text = table.trim_end_matches('\n').to_owned();
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&format!(
        "{MARK} {mount}\n{source} {mount} {fstype} defaults,noatime,nofail,x-systemd.device-timeout=30s 0 2\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_lines_stay() {
        let table = "PARTUUID=1-01 / ext4 rw 0 1\n# LABEL=x /srv/nfs ext4\n";
        assert_eq!(source_of(table, "/srv/nfs"), None);
        let with = with(table, "LABEL=data", "/srv/nfs", "ext4");
        assert!(with.starts_with(table) && with.ends_with(" 0 2\n"), "{with}");
        assert_eq!(source_of(&with, "/srv/nfs"), Some("LABEL=data"));
    }
}
