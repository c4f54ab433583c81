//! Where a place of the document stands in its text.

use crate::Pointer;
use crate::pointer::Step;

/// Line and column, from 1, of the value at `pointer`; of its nearest parent when it is not there.
///
/// The text is known to be valid JSON, so a light scan is enough; it runs only when something is refused.
pub(crate) fn position(text: &str, pointer: &Pointer) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut at = skip_space(bytes, 0);
    for step in pointer.steps() {
        match enter(bytes, at, step) {
            Some(next) => at = next,
            None => break,
        }
    }
    (at < bytes.len()).then(|| line_and_column(&bytes[..at]))
}

/// Line and column of the place after these bytes; a column counts characters.
pub(crate) fn line_and_column(before: &[u8]) -> (usize, usize) {
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
    let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
    (line, column)
}

fn enter(bytes: &[u8], at: usize, step: &Step) -> Option<usize> {
    let open = *bytes.get(at)?;
    let mut at = skip_space(bytes, at + 1);
    let mut index = 0;
    loop {
        match (*bytes.get(at)?, step) {
            (b'}' | b']', _) => return None,
            (_, Step::Index(wanted)) if open == b'[' => {
                if index == *wanted {
                    return Some(at);
                }
                index += 1;
            }
            (b'"', Step::Key(wanted)) if open == b'{' => {
                let end = skip_string(bytes, at);
                let key: String = serde_json::from_slice(&bytes[at..end]).ok()?;
                at = skip_space(bytes, skip_space(bytes, end) + 1);
                if key == *wanted {
                    return Some(at);
                }
            }
            _ => return None,
        }
        at = skip_space(bytes, skip_value(bytes, at));
        if bytes.get(at) == Some(&b',') {
            at = skip_space(bytes, at + 1);
        }
    }
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

fn skip_string(bytes: &[u8], mut at: usize) -> usize {
    at += 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn skip_value(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = skip_string(bytes, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return if depth == 0 { at } else { at + 1 },
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_values() {
        let text = "{\n  \"a\": [1, {\"b\\n\": \"x,]\"}],\n  \"c\": {\"d\": true}\n}";
        let root = Pointer::root();
        assert_eq!(position(text, &root), Some((1, 1)));
        assert_eq!(position(text, &root.key("a").index(1).key("b\n")), Some((2, 20)));
        assert_eq!(position(text, &root.key("c").key("d")), Some((3, 14)));
        assert_eq!(position(text, &root.key("c").key("none")), Some((3, 8)));
        assert_eq!(position(text, &root.key("a").index(7)), Some((2, 8)));
    }
}
