//! YAML both ways. The only module that knows which library does it.

use std::fmt;

use anyhow::{Context, anyhow};
use remoteler_core::{Resource, printable, printable_json};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

/// A value as one YAML document, with a newline at the end. In the style of JSON, which YAML reads, when it holds something that
/// the usual style would show to a terminal as it is.
pub(crate) fn document(value: &impl Serialize) -> anyhow::Result<String> {
    let text = serde_saphyr::to_string(value).context("the result has no YAML form")?;
    if text.lines().any(|line| printable(line) != line) {
        return Ok(printable_json(&serde_json::to_string_pretty(value)?) + "\n");
    }
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

/// All resource documents of a text, in their order. Empty documents are passed over.
///
/// # Errors
/// One line: what is wrong, in which line.
pub(crate) fn resources(text: &str) -> anyhow::Result<Vec<Resource>> {
    serde_saphyr::from_multiple(text).map_err(|cause| explained(&cause))
}

/// In which lines the fields of a document stand.
#[derive(Debug)]
pub(crate) enum Lines {
    /// Fields: name, line, what is below.
    Fields(Vec<(String, u64, Lines)>),
    /// List.
    List(Vec<Lines>),
    /// Text, number and the like.
    Leaf,
}

impl Lines {
    /// The line of the field at `path`; entries of lists are named by their number from 0.
    pub(crate) fn of(&self, path: &[String]) -> Option<u64> {
        let (first, rest) = path.split_first()?;
        match self {
            Self::Fields(fields) => {
                let (_, line, below) = fields.iter().find(|(name, ..)| name == first)?;
                if rest.is_empty() { Some(*line) } else { below.of(rest) }
            }
            Self::List(entries) => entries.get(first.parse::<usize>().ok()?)?.of(rest),
            Self::Leaf => None,
        }
    }
}

impl<'de> Deserialize<'de> for Lines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LinesVisitor)
    }
}

struct LinesVisitor;

impl<'de> Visitor<'de> for LinesVisitor {
    type Value = Lines;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lines, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let line = key.referenced.line();
            fields.push((key.value, line, map.next_value()?));
        }
        Ok(Lines::Fields(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Lines, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        Ok(Lines::List(entries))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Lines, E> {
        Ok(Lines::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Lines, E> {
        Ok(Lines::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Lines, E> {
        Ok(Lines::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Lines, E> {
        Ok(Lines::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Lines, E> {
        Ok(Lines::Leaf)
    }

    fn visit_unit<E>(self) -> Result<Lines, E> {
        Ok(Lines::Leaf)
    }

    fn visit_none<E>(self) -> Result<Lines, E> {
        Ok(Lines::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Lines, D::Error> {
        Lines::deserialize(deserializer)
    }
}

/// Where the fields of each document stand, in the order of [`resources`]; only for saying it: a text that does not parse has no lines.
pub(crate) fn lines(text: &str) -> Option<Vec<Lines>> {
    let documents: Vec<Lines> = serde_saphyr::from_multiple(text).ok()?;
    // Empty documents are passed over by `resources`, too.
    Some(documents.into_iter().filter(|document| matches!(document, Lines::Fields(_))).collect())
}

/// `remoteler.data_dir` of a daemon's config file. The rest of the file is the daemon's to check.
pub(crate) fn configured_data_dir(text: &str) -> anyhow::Result<Option<std::path::PathBuf>> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Config {
        remoteler: Common,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Common {
        data_dir: Option<std::path::PathBuf>,
    }
    Ok(if text.trim().is_empty() { None } else { from_str::<Config>(text)?.remoteler.data_dir })
}

fn from_str<T: DeserializeOwned>(text: &str) -> anyhow::Result<T> {
    serde_saphyr::from_str(text).map_err(|cause| explained(&cause))
}

fn explained(cause: &serde_saphyr::Error) -> anyhow::Error {
    let text = cause.without_snippet().to_string();
    let first = text.lines().next().unwrap_or_default();
    let first = first.split(" at line ").next().unwrap_or_default().trim_start_matches("error: ");
    match cause.location() {
        Some(location) => anyhow!("line {}: {first}", location.line()),
        None => anyhow!("{first}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn documents_of_one_file_are_read_in_order() {
        let text = "kind: role\nversion: v7\nmetadata: { name: a }\nspec: { allow: { logins: [\"{{internal.logins}}\"] } }\n---\nkind: user\nversion: v2\nmetadata: { name: b }\n";
        let read = resources(text).unwrap();
        assert_eq!(read.iter().map(|resource| resource.kind.as_str()).collect::<Vec<_>>(), ["role", "user"]);
        assert_eq!(read[0].spec, json!({ "allow": { "logins": ["{{internal.logins}}"] } }));
    }

    #[test]
    fn a_mistake_is_one_line_that_names_the_line_it_is_in() {
        let cause = resources("kind: role\nversion: v7\nmetadata: { name: a }\nspecs: {}\n").unwrap_err().to_string();
        assert!(cause.contains("line 4") && cause.contains("specs") && !cause.contains('\n'), "{cause}");
    }

    #[test]
    fn only_the_data_directory_of_a_config_matters() {
        let text =
            "version: v1\nremoteler:\n  data_dir: /srv/r\n  log: { output: stderr }\nproxy_service: { enabled: yes }\n";
        assert_eq!(configured_data_dir(text).unwrap(), Some("/srv/r".into()));
        assert_eq!(configured_data_dir("version: v1\n").unwrap(), None);
        assert_eq!(configured_data_dir("").unwrap(), None);
    }

    // I72
    #[test]
    fn nothing_in_a_document_steers_a_terminal_and_it_still_reads_back() {
        let spec = json!({ "a": "x\u{1b}[2Jy\u{9b}31m\u{202e}z\u{7f}", "b\u{9b}": "c\nd\u{2066}" });
        let resource = json!({ "kind": "role", "version": "v7", "metadata": { "name": "a" }, "spec": spec });
        let text = document(&resource).unwrap();
        assert!(text.lines().all(|line| printable(line) == line), "{text:?}");
        assert_eq!(serde_json::to_value(&resources(&text).unwrap()[0]).unwrap(), resource);
    }

    fn leaf() -> impl Strategy<Value = Value> {
        let tricky = prop::sample::select(vec![
            "yes",
            "no",
            "null",
            "~",
            "1",
            "1e3",
            "0x10",
            "*",
            "&a",
            "!b",
            "{{internal.logins}}",
            "^a.*$",
            "- x",
            "a: b",
            "#c",
            "",
            " ",
            "a\nb",
            "\u{1b}",
            "2026-01-01",
            "on",
            "'",
            "\"",
            "|",
            ">",
            "%",
            "@",
            "`",
            "?",
            "a:",
            "=",
            "<<",
        ]);
        prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            tricky.prop_map(Value::from),
            "[ -~]{0,20}".prop_map(Value::from),
        ]
    }

    proptest! {
        #[test]
        fn what_get_prints_create_reads_back_the_same(values in prop::collection::btree_map("[a-z*]{1,8}", leaf(), 0..6)) {
            let values = serde_json::to_value(values).unwrap();
            let resource = json!({ "kind": "role", "version": "v7", "metadata": { "name": "a" }, "spec": { "x": [values] } });
            let text = document(&resource).unwrap();
            let read = resources(&text).unwrap();
            prop_assert_eq!(serde_json::to_value(&read[0]).unwrap(), resource, "{}", text);
        }
    }
}
