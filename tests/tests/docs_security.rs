//! `docs/security.md` and the tree say the same: each invariant stands in the table, with exactly the tests that are marked as
//! showing it. A mark is a comment `// I12` or `// I12, I16` in a test or right above it.
//!
//! When marks have changed, `REMOTELER_UPDATE_DOCS=1 cargo test -p remoteler-tests --test docs_security` writes the last column anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Invariants are numbered from 1 to this.
const LAST: u32 = 80;
/// What stands in the table where no test is marked.
const NOT_SHOWN: &str = "not yet shown";

/// Tests by the invariant they show, each as `path: name`.
type Marks = BTreeMap<u32, BTreeSet<String>>;

#[test]
fn every_invariant_stands_in_the_table_once() {
    let numbers: Vec<_> = rows(&table()).into_iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=LAST).collect::<Vec<_>>());
}

#[test]
fn the_table_names_exactly_the_tests_that_are_marked_in_the_tree() {
    let marks = marks_of_tree();
    let unknown: Vec<_> = marks.keys().filter(|number| !(1..=LAST).contains(*number)).collect();
    assert!(unknown.is_empty(), "marks of invariants that do not exist: {unknown:?}");
    let text = table();
    if std::env::var_os("REMOTELER_UPDATE_DOCS").is_some() {
        fs::write(path_of_table(), updated(&text, &marks)).expect("docs/security.md can be written");
        return;
    }
    let mut wrong = Vec::new();
    for row in rows(&text) {
        let expected = shown_by(&marks, row.number);
        if row.shown_by != expected {
            wrong.push(format!("I{}: the table says\n  {}\nthe tree says\n  {expected}", row.number, row.shown_by));
        }
    }
    assert!(wrong.is_empty(), "docs/security.md and the marks differ; see this file's head\n{}", wrong.join("\n"));
}

#[test]
fn a_mark_belongs_to_the_test_around_or_below_it() {
    let source = "\
fn helper() { /* no test */ }
// I1 in a sentence is no mark
// I2, I3
#[test]
fn below() {
    assert!(true); // I4
}
// I5: why this is so
fn not_a_test() {
    // I6
}
#[tokio::test(flavor = \"current_thread\")]
async fn inside() {
    // I7: with a reason
    let text = \"// I8\";
}
";
    let mut marks = Marks::new();
    collect("x.rs", source, &mut marks);
    let found: Vec<_> = marks.iter().map(|(number, tests)| (*number, tests.iter().next().unwrap().as_str())).collect();
    assert_eq!(found, [(2, "x.rs: below"), (3, "x.rs: below"), (4, "x.rs: below"), (7, "x.rs: inside")]);
}

/// A line of the table: `| I12 | statement | tests |`.
struct Row {
    number: u32,
    statement: String,
    shown_by: String,
}

fn path_of_table() -> PathBuf {
    root().join("docs/security.md")
}

fn table() -> String {
    fs::read_to_string(path_of_table()).expect("docs/security.md is there")
}

fn rows(text: &str) -> Vec<Row> {
    text.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<_> = line.strip_prefix("| I")?.strip_suffix(" |")?.split(" | ").collect();
    let [number, statement, shown_by] = cells.as_slice() else { panic!("three columns are expected: {line}") };
    let number = number.parse().unwrap_or_else(|_| panic!("a number is expected: {line}"));
    Some(Row { number, statement: (*statement).to_owned(), shown_by: (*shown_by).to_owned() })
}

fn shown_by(marks: &Marks, number: u32) -> String {
    match marks.get(&number) {
        Some(tests) => tests.iter().map(|test| format!("`{test}`")).collect::<Vec<_>>().join("<br>"),
        None => NOT_SHOWN.to_owned(),
    }
}

/// `text` with the last column as the tree says.
fn updated(text: &str, marks: &Marks) -> String {
    let line = |line: &str| match row(line) {
        Some(row) => format!("| I{} | {} | {} |\n", row.number, row.statement, shown_by(marks, row.number)),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a package of the workspace").to_owned()
}

fn marks_of_tree() -> Marks {
    let mut marks = Marks::new();
    let mut directories = vec![root()];
    let own = Path::new(file!()).file_name();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("the tree can be read") {
            let path = entry.expect("the tree can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    directories.push(path);
                }
            } else if name.ends_with(".rs") && path.file_name() != own {
                let source = fs::read_to_string(&path).expect("sources are text");
                let shown = path.strip_prefix(root()).expect("it is below the root").display().to_string();
                collect(&shown, &source, &mut marks);
            }
        }
    }
    marks
}

/// Adds the marks of one file.
fn collect(path: &str, source: &str, marks: &mut Marks) {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    for (at, line) in lines.iter().enumerate() {
        let numbers = numbers_in(line);
        if numbers.is_empty() {
            continue;
        }
        let below = line.starts_with("//").then(|| function_below(&lines, at)).flatten();
        let Some(function) = below.or_else(|| function_around(&lines, at)) else { continue };
        if let Some(name) = test_name(&lines, function) {
            for number in numbers {
                marks.entry(number).or_default().insert(format!("{path}: {name}"));
            }
        }
    }
}

/// The invariants that a line's comment marks: it starts with them.
fn numbers_in(line: &str) -> Vec<u32> {
    let Some((before, comment)) = line.split_once("//") else { return Vec::new() };
    if before.matches('"').count() % 2 == 1 {
        return Vec::new();
    }
    let list = comment.trim_start().split_once(':').map_or(comment, |(list, _reason)| list);
    let number = |word: &str| word.trim().strip_prefix('I').and_then(|digits| digits.parse().ok());
    list.split(',').map(number).collect::<Option<Vec<u32>>>().unwrap_or_default()
}

/// The function that follows at once, attributes and comments aside.
fn function_below(lines: &[&str], at: usize) -> Option<usize> {
    let skipped = |line: &str| line.starts_with("//") || line.starts_with("#[");
    let next = lines.iter().enumerate().skip(at + 1).find(|(_, line)| !skipped(line))?;
    function_name(next.1).map(|_| next.0)
}

fn function_around(lines: &[&str], at: usize) -> Option<usize> {
    (0..=at).rev().find(|line| function_name(lines[*line]).is_some())
}

fn function_name(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    line.strip_prefix("fn ")?.split(['(', '<']).next()
}

/// The function's name, if an attribute above it makes it a test.
fn test_name<'a>(lines: &[&'a str], function: usize) -> Option<&'a str> {
    let above = lines.iter().take(function).rev().take_while(|line| line.starts_with("//") || line.starts_with('#'));
    let is_test = above.into_iter().any(|line| {
        let attribute = line.trim_start_matches("#[").trim_end_matches(']');
        let attribute = attribute.split('(').next().unwrap_or_default();
        attribute == "test" || attribute.ends_with("::test")
    });
    is_test.then(|| function_name(lines[function])).flatten()
}
