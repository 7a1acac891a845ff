//! How a command line that is not taken is answered: one line in the shape of all our errors, then a hint. Decides nothing.

use std::io::Write;

use crate::terminal::escaped;

/// Shows what clap has to say: help and versions as they are, mistakes in one line on standard error. The exit code.
pub(crate) fn show(program: &str, refusal: &clap::Error) -> u8 {
    use clap::error::ErrorKind;
    let kind = refusal.kind();
    if !refusal.use_stderr() || kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // That nobody reads it is no failure.
        let _ = refusal.print();
        return if refusal.use_stderr() { 2 } else { 0 };
    }
    let _ = write!(std::io::stderr(), "{}", explained(program, &refusal.render().to_string()));
    2
}

/// The mistake in one line, and the hint in another.
fn explained(program: &str, rendered: &str) -> String {
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
    format!("{program}: {}\n{hint}\n", escaped(&mistake))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn said(line: &str) -> String {
        let refusal = Cli::try_parse_from(line.split(' ')).unwrap_err();
        explained("tctl", &refusal.render().to_string())
    }

    #[test]
    fn a_mistake_is_one_line_and_the_usage_is_the_other() {
        let text = said("tctl users add ann");
        assert_eq!(
            text,
            "tctl: the following required arguments were not provided: --roles <ROLE,…>\nUsage: tctl users add --roles <ROLE,…> <NAME>\n"
        );
        let text = said("tctl get saml/x");
        assert!(
            text.starts_with("tctl: invalid value 'saml/x' for '<RESOURCE>': \"saml\" is no kind of resource"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
