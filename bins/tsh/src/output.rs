//! How results are printed: tables for people, JSON and YAML for programs. Owns the layout; text of remote origin is made safe here.

use std::io::{self, Write};

use anyhow::Context;
use remoteler_core::{printable, printable_json};
use serde::Serialize;

/// What a result is printed as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
    Yaml,
}

/// Prints `value` to standard output; as text, what `text` makes of it.
pub(crate) fn print<T: Serialize + ?Sized>(
    format: Format,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let printed = render(format, value, text)?;
    let mut stdout = io::stdout().lock();
    match stdout.write_all(printed.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever read has seen enough: `tsh ls | head -1`.
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("standard output cannot be written"),
    }
}

fn render<T: Serialize + ?Sized>(format: Format, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<String> {
    Ok(match format {
        Format::Text => text(value),
        Format::Json => json(value)?,
        Format::Yaml => {
            let yaml = serde_saphyr::to_string(&value).context("the result cannot be written as YAML")?;
            // In the style of JSON, which YAML reads, what would be shown to the terminal as it is.
            if yaml.lines().any(|line| printable(line) != line) {
                json(value)?
            } else {
                yaml.trim_end().to_owned() + "\n"
            }
        }
    })
}

fn json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<String> {
    Ok(printable_json(&serde_json::to_string_pretty(value)?) + "\n")
}

/// Rows under a header: aligned, without lines and colours, so that it can be read, grepped and cut. Looks as the tables of `tctl` do.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|&title| title.to_owned()).collect()] }
    }

    /// Adds a row; control characters in it are escaped (I72), and an empty cell becomes `-`, so that each row has all its columns.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cell = |cell: String| if cell.is_empty() { "-".to_owned() } else { printable(&cell) };
        self.rows.push(cells.into_iter().map(cell).collect());
    }

    pub(crate) fn into_text(self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let pad = width.saturating_sub(cell.chars().count()) + 2;
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', pad));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// An error and its causes in one line, none said twice.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let text = text.trim();
        if text.is_empty() || line.contains(text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(text);
    }
    safe(&line.lines().map(str::trim).collect::<Vec<_>>().join(" "))
}

/// Text of remote origin in one line, without what would control a terminal, and no longer than somebody reads.
pub(crate) fn safe(text: &str) -> String {
    match text.char_indices().nth(MOST) {
        Some((end, _)) => printable(text.get(..end).unwrap_or_default()) + " …",
        None => printable(text),
    }
}

/// Characters of one text of remote origin.
const MOST: usize = 8192;

/// A line on standard error. That nobody reads it is no failure.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A question on standard error, to be answered on the same line.
pub(crate) fn ask(question: &str) {
    let _ = write!(io::stderr(), "{question}").and_then(|()| io::stderr().flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_has_no_empty_cells_and_cannot_control_the_terminal() {
        let mut table = Table::new(&["NODE", "LABELS"]);
        table.row(["gw-17.lab".into(), "env=\u{1b}[2Jprod".into()]); // I72
        table.row(["é".into(), String::new()]);
        assert_eq!(table.into_text(), "NODE       LABELS\ngw-17.lab  env=\\u{1b}[2Jprod\né          -\n");
    }

    #[test]
    fn an_error_is_one_line_without_repetition() {
        let inner = anyhow::anyhow!("connection refused");
        let error = inner.context("p:3080 cannot be reached: connection refused").context("no login\nat all");
        assert_eq!(one_line(&error), "no login at all: p:3080 cannot be reached: connection refused");
    }

    #[test]
    fn a_text_without_end_is_cut() {
        assert_eq!(safe(&"é".repeat(MOST)), "é".repeat(MOST));
        assert_eq!(safe(&"é".repeat(MOST + 1)), "é".repeat(MOST) + " …");
        assert_eq!(one_line(&anyhow::anyhow!("a".repeat(1 << 20))).len(), MOST + " …".len());
    }

    // I72
    #[test]
    fn nothing_in_a_result_steers_a_terminal_in_any_format_and_it_reads_back() {
        let value = serde_json::json!([{ "name": "a\u{1b}[2J", "labels": { "note": "x\u{202e}y\u{9b}31m\nz\u{7f}" } }]);
        for format in [Format::Json, Format::Yaml] {
            let shown = render(format, &value, |_| String::new()).unwrap();
            assert!(shown.lines().all(|line| printable(line) == line), "{shown:?}");
            assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }

    #[test]
    fn lists_are_arrays_in_json_and_yaml() {
        let list = ["a", "b"];
        assert_eq!(render(Format::Json, &list[..], |_| String::new()).unwrap(), "[\n  \"a\",\n  \"b\"\n]\n");
        assert_eq!(render(Format::Yaml, &list[..], |_| String::new()).unwrap(), "- a\n- b\n");
    }
}
