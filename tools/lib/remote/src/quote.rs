//! Quoting for a POSIX shell.

/// Quotes one argument for a POSIX shell.
///
/// What needs no quotes stays as it is, so that a line reads like one that a person typed; the rest goes
/// into single quotes, in which only the single quote itself is special.
pub fn quote(arg: &str) -> String {
    if !arg.is_empty() && arg.bytes().all(is_plain) {
        return arg.to_owned();
    }
    force(arg)
}

/// Quotes the first word of a line, which the shell could also take for an assignment or a keyword.
pub(crate) fn quote_first(arg: &str) -> String {
    if arg.contains('=') || KEYWORDS.contains(&arg) { force(arg) } else { quote(arg) }
}

fn force(arg: &str) -> String {
    format!("'{}'", arg.replace('\'', r"'\''"))
}

// The words that stay one word in every place of a POSIX shell's line: no globbing, no tilde at the start,
// no braces, no history.
fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&b)
}

// The reserved words of POSIX.1-2024 (XCU 2.4) that are plain, and those that it lets a shell add.
const KEYWORDS: &[&str] = &[
    "case",
    "do",
    "done",
    "elif",
    "else",
    "esac",
    "fi",
    "for",
    "if",
    "in",
    "then",
    "until",
    "while",
    "function",
    "select",
    "namespace",
    "time",
    "coproc",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_typed() {
        assert_eq!(quote("/etc/haproxy/haproxy.cfg"), "/etc/haproxy/haproxy.cfg");
        assert_eq!(quote("--port=6443"), "--port=6443");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote("~root"), "'~root'");
        assert_eq!(quote("*"), "'*'");
    }

    #[test]
    fn first_word_is_a_command() {
        assert_eq!(quote_first("A=b"), "'A=b'");
        assert_eq!(quote_first("if"), "'if'");
        assert_eq!(quote_first("systemctl"), "systemctl");
    }
}
