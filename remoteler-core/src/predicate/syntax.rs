//! From text to syntax: a recursive-descent parser over a bounded text, with bounded depth. Knows the grammar and no names.
//!
//! ```text
//! or      = and { "||" and }
//! and     = unary { "&&" unary }
//! unary   = "!" unary | compare
//! compare = operand [ ("==" | "!=") operand ]
//! operand = "(" or ")" | string | path [ "(" [ or { "," or } ] ")" ]
//! path    = name { "." name | "[" string "]" }
//! string  = '"' … '"' with \" and \\, or '`' … '`' as it is
//! ```

use super::{MAX_DEPTH, MAX_OCTETS, PredicateError};

/// What was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    Literal(String),
    /// `labels["env"]` is `labels`, `env`.
    Path(Vec<String>),
    /// The name with its dots.
    Call(String, Vec<Self>),
    Not(Box<Self>),
    Binary(Operator, Box<Self>, Box<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    And,
    Or,
    Equal,
    Unequal,
}

/// Parses a whole text.
pub(super) fn parse(text: &str) -> Result<Syntax, PredicateError> {
    if text.len() > MAX_OCTETS {
        return Err(PredicateError::TooLarge);
    }
    let mut parser = Parser { text, at: 0, depth: 0, links: 0 };
    let syntax = parser.or()?;
    parser.space();
    if parser.at < text.len() { Err(parser.expected("an operator or the end")) } else { Ok(syntax) }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// Operators of chains so far: each makes the tree one level deeper.
    links: usize,
}

impl Parser<'_> {
    fn or(&mut self) -> Result<Syntax, PredicateError> {
        self.deeper(|parser| parser.chain("||", Operator::Or, Self::and))
    }

    fn and(&mut self) -> Result<Syntax, PredicateError> {
        self.chain("&&", Operator::And, Self::unary)
    }

    fn chain(
        &mut self,
        sign: &str,
        operator: Operator,
        part: fn(&mut Self) -> Result<Syntax, PredicateError>,
    ) -> Result<Syntax, PredicateError> {
        let mut syntax = part(self)?;
        while self.takes(sign) {
            self.links += 1;
            if self.links > MAX_DEPTH {
                return Err(PredicateError::TooLarge);
            }
            syntax = Syntax::Binary(operator, Box::new(syntax), Box::new(part(self)?));
        }
        Ok(syntax)
    }

    fn unary(&mut self) -> Result<Syntax, PredicateError> {
        self.space();
        if self.rest().starts_with('!') && !self.rest().starts_with("!=") {
            self.at += 1;
            return self.deeper(|parser| Ok(Syntax::Not(Box::new(parser.unary()?))));
        }
        let one = self.operand()?;
        for (sign, operator) in [("==", Operator::Equal), ("!=", Operator::Unequal)] {
            if self.takes(sign) {
                return Ok(Syntax::Binary(operator, Box::new(one), Box::new(self.operand()?)));
            }
        }
        Ok(one)
    }

    fn operand(&mut self) -> Result<Syntax, PredicateError> {
        if self.takes("(") {
            let inside = self.or()?;
            return if self.takes(")") { Ok(inside) } else { Err(self.expected("')'")) };
        }
        if self.rest().starts_with(['"', '`']) {
            return Ok(Syntax::Literal(self.string()?));
        }
        let mut path = vec![self.name()?];
        let mut dotted = true;
        loop {
            if self.takes("[") {
                self.space();
                path.push(self.string()?);
                dotted = false;
                if !self.takes("]") {
                    return Err(self.expected("']'"));
                }
            } else if self.takes(".") {
                path.push(self.name()?);
            } else {
                break;
            }
        }
        if !dotted || !self.takes("(") {
            return Ok(Syntax::Path(path));
        }
        let mut arguments = Vec::new();
        while !self.takes(")") {
            if !arguments.is_empty() && !self.takes(",") {
                return Err(self.expected("',' or ')'"));
            }
            arguments.push(self.or()?);
        }
        Ok(Syntax::Call(path.join("."), arguments))
    }

    fn name(&mut self) -> Result<String, PredicateError> {
        self.space();
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let name = rest.get(..end).filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'));
        let name = name.ok_or_else(|| self.expected("a name, a text in quotes or '('"))?.to_owned();
        self.at += end;
        Ok(name)
    }

    fn string(&mut self) -> Result<String, PredicateError> {
        let mut characters = self.rest().char_indices();
        let Some((_, quote @ ('"' | '`'))) = characters.next() else {
            return Err(self.expected("a text in quotes"));
        };
        let mut text = String::new();
        while let Some((at, character)) = characters.next() {
            if character == quote {
                self.at += at + 1;
                return Ok(text);
            }
            if character != '\\' || quote == '`' {
                text.push(character);
                continue;
            }
            // Other letters keep their backslash: `\d` in an expression needs no second one.
            match characters.next() {
                Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                other => text.extend(['\\'].into_iter().chain(other.map(|(_, escaped)| escaped))),
            }
        }
        Err(self.expected("the closing quote of the text that begins here"))
    }

    /// Whether `sign` stands here, after spaces; it is behind us then.
    fn takes(&mut self, sign: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    fn deeper(
        &mut self,
        part: impl FnOnce(&mut Self) -> Result<Syntax, PredicateError>,
    ) -> Result<Syntax, PredicateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(PredicateError::TooLarge);
        }
        let syntax = part(self)?;
        self.depth -= 1;
        Ok(syntax)
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn expected(&self, expected: &'static str) -> PredicateError {
        let before = self.text.get(..self.at).unwrap_or_default();
        PredicateError::Syntax { expected, at: before.chars().count() + 1 }
    }
}
