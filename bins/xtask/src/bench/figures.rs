//! Medians, spreads, and the table at the end.

/// Figures of one thing, measured again and again.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    pub(super) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The value below which `share` (0 to 1) of the samples lie; 0 when there is none.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        sorted.get(at).copied().unwrap_or_default()
    }

    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Median and the quarters around it.
    pub(super) fn shown(&self) -> String {
        format!("{} ({}–{})", number(self.median()), number(self.quantile(0.25)), number(self.quantile(0.75)))
    }
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<[String; 4]>);

impl Table {
    /// Adds a row: what was measured with its unit, on which path, the figure, and what it is held against.
    pub(crate) fn row(&mut self, what: &str, path: &str, figure: impl Into<String>, against: impl Into<String>) {
        self.0.push([what.to_owned(), path.to_owned(), figure.into(), against.into()]);
        if let Some(row) = self.0.last() {
            eprintln!("  {}", row.join(" | "));
        }
    }

    pub(crate) fn to_markdown(&self) -> String {
        let mut text = String::from("| what | path | figure | beside it |\n|---|---|---|---|\n");
        for row in &self.0 {
            text.push_str(&format!("| {} |\n", row.join(" | ")));
        }
        text
    }
}

/// Three significant digits or so.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// `value` as a multiple of `peer`.
pub(super) fn ratio(value: f64, peer: f64) -> String {
    if peer > 0.0 { format!("{:.2} ×", value / peer) } else { "-".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_stands_with_its_quarters() {
        let mut samples = Samples::default();
        for value in [5.0, 1.0, 4.0, 2.0, 3.0] {
            samples.push(value);
        }
        assert_eq!(samples.shown(), "3.00 (2.00–4.00)");
        assert_eq!(Samples::default().median(), 0.0);
    }

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        assert_eq!([number(1234.5), number(61.26), number(0.126)], ["1234", "61.3", "0.13"]);
    }

    #[test]
    fn the_table_is_markdown() {
        let mut table = Table::default();
        table.row("time, ms", "sshd", "221", "1.00 ×");
        assert_eq!(table.to_markdown().lines().last(), Some("| time, ms | sshd | 221 | 1.00 × |"));
    }
}
