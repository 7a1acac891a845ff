//! How a command line that is not taken is answered: one line in the shape of all our errors, then a hint. Decides nothing.

use std::io::Write;

use remoteler_client::usage_mistake;

/// Shows what clap has to say: help and versions as they are, mistakes in one line on standard error. The exit code.
pub(crate) fn show(program: &str, refusal: &clap::Error) -> u8 {
    use clap::error::ErrorKind;
    let kind = refusal.kind();
    if !refusal.use_stderr() || kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // That nobody reads it is no failure.
        let _ = refusal.print();
        return if refusal.use_stderr() { 2 } else { 0 };
    }
    let _ = write!(std::io::stderr(), "{}", usage_mistake(program, &refusal.render().to_string()));
    2
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn said(line: &str) -> String {
        let refusal = Cli::try_parse_from(line.split(' ')).unwrap_err();
        usage_mistake("tctl", &refusal.render().to_string())
    }

    #[test]
    fn a_mistake_is_one_line_and_the_usage_is_the_other() {
        let text = said("tctl users add ann");
        assert_eq!(
            text,
            "tctl: the following required arguments were not provided: --roles <ROLE,…>\nUsage: tctl users add --roles <ROLE,…> <NAME>\n"
        );
        let text = said("tctl get database/x");
        assert!(
            text.starts_with("tctl: invalid value 'database/x' for '<RESOURCE>': \"database\" is no kind of resource"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
