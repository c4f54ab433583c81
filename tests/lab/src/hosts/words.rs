//! A command line of the exec channel, split into words as a POSIX shell would.
//!
//! The lab has no shell: it takes plain words and quotes, and refuses everything that a shell would expand,
//! so that a tool which relies on a shell by accident fails here.

/// Splits a line into words.
///
/// # Errors
/// Names what a shell would have interpreted: an operator, an expansion, an unfinished quote.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(inner) => word.push(inner),
                        None => return Err("Unterminated quoted string".into()),
                    }
                }
            }
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                Some(next) => word.get_or_insert_default().push(next),
                None => return Err("a backslash at the end of the line".into()),
            },
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '$' | '`' | '*' | '?' | '[' | '\n' => {
                return Err(format!("an unquoted {c:?}"));
            }
            '#' | '~' if word.is_none() => return Err(format!("a word that begins with {c:?}")),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    loop {
        match chars.next() {
            Some('"') => return Ok(()),
            Some('\\') => match chars.next() {
                Some(c @ ('$' | '`' | '"' | '\\')) => word.push(c),
                Some('\n') => {}
                Some(c) => word.extend(['\\', c]),
                None => return Err("Unterminated quoted string".into()),
            },
            Some(c @ ('$' | '`')) => return Err(format!("an expansion with {c:?}")),
            Some(c) => word.push(c),
            None => return Err("Unterminated quoted string".into()),
        }
    }
}

/// The name and version in a script's marker line, such as `write v1` in `# kubeline: write v1`.
///
/// A script that was installed as a file may begin with an interpreter line.
pub fn marker(script: &str) -> Option<&str> {
    script.lines().take(3).find_map(|line| line.trim().strip_prefix("# kubeline: ")).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_make_words() {
        assert_eq!(
            split(r#"sudo -n -- cat 'a b' "c d"e \'f"#).unwrap(),
            ["sudo", "-n", "--", "cat", "a b", "c de", "'f"]
        );
        assert_eq!(
            split("sh -c '# kubeline: x v1\necho' sh ''").unwrap(),
            ["sh", "-c", "# kubeline: x v1\necho", "sh", ""]
        );
        assert_eq!(split(r"'it'\''s'").unwrap(), ["it's"]);
    }

    #[test]
    fn what_a_shell_would_expand_is_refused() {
        for line in ["a | b", "echo $HOME", "a; b", "ls *", "echo \"$x\"", "'open", "a > b", "~/x"] {
            assert!(split(line).is_err(), "{line}");
        }
    }

    #[test]
    fn markers() {
        assert_eq!(marker("# kubeline: write v1\nset -eu"), Some("write v1"));
        assert_eq!(marker("#!/bin/sh\n# kubeline: lb-check v2\n"), Some("lb-check v2"));
        assert_eq!(marker("echo"), None);
    }
}
