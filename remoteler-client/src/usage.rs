//! How a command line that is not taken is answered, alike in every program: one line in the shape of all our errors, then a hint. Parses
//! no command line itself.

use remoteler_core::printable;

/// The mistake in one line and the hint in another, each ended by a newline; `rendered` is the message of the library that reads command
/// lines (clap), which is several lines long.
#[must_use]
pub fn usage_mistake(program: &str, rendered: &str) -> String {
    let (mut mistake, mut hint) = (String::new(), Vec::new());
    for line in rendered.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.starts_with("Usage: ") || !hint.is_empty() {
            hint.push(line);
        } else if let Some(tip) = line.strip_prefix("tip: ") {
            mistake.push_str("; ");
            mistake.push_str(tip);
        } else if line.starts_with("For more information") {
            hint.push(line);
        } else {
            if !mistake.is_empty() {
                mistake.push(' ');
            }
            mistake.push_str(line.strip_prefix("error: ").unwrap_or(line));
        }
    }
    // Usage says it all; where there is none, it is said how to come by it.
    let hint = hint.first().copied().unwrap_or("For more information, try '--help'.");
    format!("{program}: {}\n{}\n", printable(&mistake), printable(hint))
}
