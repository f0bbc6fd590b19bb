//! Just enough of Rust's grammar to tell code from words: comments and literals are blanked, so that a rule never
//! trips over a sentence, and the comments are handed out for the rules that read them.

/// One source file taken apart. `code` has the same length in lines as the source.
#[derive(Debug)]
pub(crate) struct Lexed {
    /// The source with comments and the insides of literals replaced by spaces; newlines stay where they were.
    pub(crate) code: String,
    /// Comment texts with the line they start on, counted from 1. A block comment gives one entry per line.
    pub(crate) comments: Vec<(usize, String)>,
}

impl Lexed {
    /// The line that a byte position of `code` lies on, counted from 1.
    pub(crate) fn line_at(&self, position: usize) -> usize {
        self.code.as_bytes()[..position].iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// Takes Rust source apart. Never fails: unfinished comments and literals end with the file.
pub(crate) fn lex(source: &str) -> Lexed {
    let mut lexer = Lexer {
        bytes: source.as_bytes(),
        position: 0,
        line: 1,
        code: Vec::with_capacity(source.len()),
        comments: Vec::new(),
    };
    lexer.run();
    let code = String::from_utf8_lossy(&lexer.code).into_owned();
    Lexed { code, comments: lexer.comments }
}

/// The position behind the brace that closes the one at `open`.
pub(crate) fn block_end(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0usize;
    for (offset, byte) in bytes[open..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return open + offset + 1;
                }
            }
            _ => {}
        }
    }
    bytes.len()
}

struct Lexer<'a> {
    bytes: &'a [u8],
    position: usize,
    line: usize,
    code: Vec<u8>,
    comments: Vec<(usize, String)>,
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(byte) = self.peek(0) {
            match byte {
                b'/' if self.peek(1) == Some(b'/') => self.line_comment(),
                b'/' if self.peek(1) == Some(b'*') => self.block_comment(),
                b'"' => self.string(),
                b'r' | b'b' | b'c' if !self.after_identifier() && self.literal_prefix().is_some() => {
                    self.prefixed_literal();
                }
                b'\'' => self.quote(),
                _ => self.keep(),
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.position + ahead).copied()
    }

    /// Copies one byte of code.
    fn keep(&mut self) {
        let byte = self.bytes[self.position];
        self.line += usize::from(byte == b'\n');
        self.code.push(byte);
        self.position += 1;
    }

    /// Replaces one byte by a space, unless it ends a line.
    fn blank(&mut self) {
        let byte = self.bytes[self.position];
        self.line += usize::from(byte == b'\n');
        self.code.push(if byte == b'\n' { b'\n' } else { b' ' });
        self.position += 1;
    }

    fn after_identifier(&self) -> bool {
        self.position
            .checked_sub(1)
            .is_some_and(|before| self.bytes[before] == b'_' || self.bytes[before].is_ascii_alphanumeric())
    }

    fn line_comment(&mut self) {
        let (start, line) = (self.position, self.line);
        while self.peek(0).is_some_and(|byte| byte != b'\n') {
            self.blank();
        }
        let text = String::from_utf8_lossy(&self.bytes[start..self.position]).into_owned();
        self.comments.push((line, text));
    }

    fn block_comment(&mut self) {
        let (start, line) = (self.position, self.line);
        let mut depth = 0;
        while self.peek(0).is_some() {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.blank();
                    self.blank();
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.blank();
                    self.blank();
                    if depth == 0 {
                        break;
                    }
                }
                _ => self.blank(),
            }
        }
        let text = String::from_utf8_lossy(&self.bytes[start..self.position]).into_owned();
        self.comments.extend(text.lines().enumerate().map(|(nth, words)| (line + nth, words.to_owned())));
    }

    fn string(&mut self) {
        self.keep();
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\\' if self.peek(1).is_some() => {
                    self.blank();
                    self.blank();
                }
                b'"' => return self.keep(),
                _ => self.blank(),
            }
        }
    }

    /// The length of a literal's prefix (`b`, `r#`, `br##`, ...) if one starts here, and its number of `#`.
    fn literal_prefix(&self) -> Option<(usize, usize, bool)> {
        let mut length = 1;
        let mut raw = self.peek(0) == Some(b'r');
        if !raw && self.peek(1) == Some(b'r') {
            raw = true;
            length = 2;
        }
        let mut hashes = 0;
        while raw && self.peek(length + hashes) == Some(b'#') {
            hashes += 1;
        }
        match self.peek(length + hashes) {
            Some(b'"') => Some((length + hashes, hashes, raw)),
            Some(b'\'') if !raw && self.peek(0) == Some(b'b') => Some((length, 0, false)),
            _ => None,
        }
    }

    fn prefixed_literal(&mut self) {
        let Some((length, hashes, raw)) = self.literal_prefix() else { return self.keep() };
        for _ in 0..length {
            self.keep();
        }
        if self.peek(0) == Some(b'\'') {
            return self.quote();
        }
        if !raw {
            return self.string();
        }
        self.keep();
        while let Some(byte) = self.peek(0) {
            let closes = byte == b'"' && (1..=hashes).all(|nth| self.peek(nth) == Some(b'#'));
            if closes {
                for _ in 0..=hashes {
                    self.keep();
                }
                return;
            }
            self.blank();
        }
    }

    /// A character literal is blanked, a lifetime is kept.
    fn quote(&mut self) {
        let is_character = match self.peek(1) {
            Some(b'\\') => true,
            Some(byte) if byte < 0x80 => self.peek(2) == Some(b'\''),
            Some(_) => true,
            None => false,
        };
        self.keep();
        if !is_character {
            return;
        }
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\\' if self.peek(1).is_some() => {
                    self.blank();
                    self.blank();
                }
                b'\'' => return self.keep(),
                _ => self.blank(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(source: &str) -> String {
        lex(source).code
    }

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        assert_eq!(code("a // todo!\nb"), "a         \nb");
        assert_eq!(code("a /* x /* y */ z\n */ b"), "a               \n    b");
        assert_eq!(code(r#"f("a\"b", c)"#), r#"f("    ", c)"#);
        assert_eq!(code("r#\"a\"b\"# c"), "r#\"   \"# c");
        assert_eq!(code("b\"x\" br\"y\" b'z'"), "b\" \" br\" \" b' '");
    }

    #[test]
    fn lifetimes_are_no_characters() {
        assert_eq!(code("&'a str; 'x'; '\\''; 'é'"), "&'a str; ' '; '  '; '  '");
        assert_eq!(code("for<'a> fn(&'a u8)"), "for<'a> fn(&'a u8)");
    }

    #[test]
    fn identifiers_that_end_like_prefixes_do_not_start_literals() {
        assert_eq!(code("attr\"x\""), "attr\" \"");
        assert_eq!(code("r#type + br"), "r#type + br");
    }

    #[test]
    fn comments_carry_their_lines() {
        let lexed = lex("// one\nx\n/* two\nthree */");
        let lines: Vec<usize> = lexed.comments.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 3, 4]);
        assert_eq!(lexed.line_at(lexed.code.find('x').unwrap()), 2);
    }
}
