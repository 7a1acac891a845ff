//! How results look: text for people, JSON and YAML for programs. Commands make a [`Report`]; nothing here prints.

use std::fmt::Write;

use clap::ValueEnum;
use remoteler_core::{Resource, printable, printable_json};
use serde::Serialize;
use serde_json::Value;

use crate::yaml;

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// An array for lists, an object for one thing
    Json,
    /// The same, as YAML
    Yaml,
}

/// What a command found or did.
#[derive(Debug)]
pub(crate) struct Report {
    text: String,
    shape: Shape,
    failure: Option<String>,
}

#[derive(Debug)]
enum Shape {
    /// One thing or a list.
    Value(Value),
    /// A resource, its fields in the usual order.
    Document(Box<Resource>),
    /// Resources: in YAML one document after another, as `create` reads them.
    Documents(Vec<Resource>),
    /// The command printed what there is to see itself.
    Nothing,
}

impl Report {
    /// A result with its text for people, which ends in a newline.
    pub(crate) fn new(text: impl Into<String>, value: &impl Serialize) -> anyhow::Result<Self> {
        Ok(Self { text: text.into(), shape: Shape::Value(serde_json::to_value(value)?), failure: None })
    }

    /// Nothing more than the command printed itself.
    pub(crate) const fn nothing() -> Self {
        Self { text: String::new(), shape: Shape::Nothing, failure: None }
    }

    /// One resource.
    pub(crate) fn document(text: impl Into<String>, document: Resource) -> Self {
        Self { text: text.into(), shape: Shape::Document(Box::new(document)), failure: None }
    }

    /// A list of resources.
    pub(crate) fn documents(text: impl Into<String>, documents: Vec<Resource>) -> Self {
        Self { text: text.into(), shape: Shape::Documents(documents), failure: None }
    }

    /// The same, of a command that found what makes it fail: it is printed, and the exit code is 1.
    pub(crate) fn failed(self, reason: String) -> Self {
        Self { failure: Some(reason), ..self }
    }

    /// Why the command fails, if it does.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// What is to be printed.
    pub(crate) fn render(&self, format: Format) -> anyhow::Result<String> {
        match (format, &self.shape) {
            (Format::Text, _) | (_, Shape::Nothing) => Ok(self.text.clone()),
            (Format::Json, Shape::Value(value)) => json(value),
            (Format::Json, Shape::Document(document)) => json(document),
            (Format::Json, Shape::Documents(documents)) => json(documents),
            (Format::Yaml, Shape::Value(value)) => yaml::document(value),
            (Format::Yaml, Shape::Document(document)) => yaml::document(document),
            (Format::Yaml, Shape::Documents(documents)) => {
                let texts = documents.iter().map(yaml::document).collect::<anyhow::Result<Vec<_>>>()?;
                Ok(texts.join("---\n"))
            }
        }
    }
}

fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(printable_json(&serde_json::to_string_pretty(value)?) + "\n")
}

/// Columns for people: aligned, without lines and colours, so that it can be read, grepped and cut. Looks as the tables of `tsh` do.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned).to_vec()] }
    }

    /// Adds a row; an empty cell becomes `-`, so that each row has all its columns.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        let cell = |cell: String| if cell.is_empty() { "-".to_owned() } else { printable(&cell) };
        self.rows.push(cells.map(cell).to_vec());
    }

    /// The text, ending in a newline.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width_of = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width_of).collect();
        let mut text = String::new();
        for row in &self.rows {
            let line = row.iter().zip(&widths).fold(String::new(), |mut line, (cell, width)| {
                // Writing to a string does not fail.
                let _ = write!(line, "{cell:width$}  ");
                line
            });
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// One `name: value` a line, aligned.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len() + 1).max().unwrap_or(0);
    fields.iter().map(|(name, value)| format!("{:width$}  {}\n", format!("{name}:"), printable(value))).collect()
}

/// Several things in one cell, without spaces, so that a line can be cut into its columns.
pub(crate) fn joined<T: ToString>(things: impl IntoIterator<Item = T>) -> String {
    things.into_iter().map(|thing| thing.to_string()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_is_aligned_and_has_no_empty_cells() {
        let mut table = Table::new(["NAME", "ROLES"]);
        table.row(["ann".into(), "access".into()]);
        table.row(["bartholomew".into(), String::new()]);
        assert_eq!(table.render(), "NAME         ROLES\nann          access\nbartholomew  -\n");
    }

    // I72
    #[test]
    fn a_cell_cannot_make_a_second_row() {
        let mut table = Table::new(["Name"]);
        table.row(["a\nroot\u{1b}[1m".into()]);
        assert_eq!(table.render(), "Name\na\\nroot\\u{1b}[1m\n");
    }

    #[test]
    fn a_list_is_an_array_in_json_and_documents_follow_each_other_in_yaml() {
        let document = |kind| json!({ "kind": kind, "version": "v7", "metadata": { "name": "a" }, "spec": {} });
        let values = [document("role"), document("user")];
        let documents = values.iter().map(|value| serde_json::from_value(value.clone()).unwrap()).collect();
        let report = Report::documents("text\n", documents);
        assert_eq!(report.render(Format::Text).unwrap(), "text\n");
        let yaml = |kind| format!("kind: {kind}\nversion: v7\nmetadata:\n  name: a\nspec: {{}}\n");
        assert_eq!(report.render(Format::Yaml).unwrap(), format!("{}---\n{}", yaml("role"), yaml("user")));
        let json: Value = serde_json::from_str(&report.render(Format::Json).unwrap()).unwrap();
        assert_eq!(json, json!(values));
    }
}
