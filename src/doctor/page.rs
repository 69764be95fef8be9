//! The findings as a page for people.

use console::{Alignment, Style, measure_text_width, pad_str};

use super::{Finding, Level};
use crate::escape::visible;

/// Columns of the level and of the check's name, with the space behind each.
const INDENT: usize = LEVEL + NAME;
const LEVEL: usize = 6;
const NAME: usize = 15;

/// The page, at most so many columns wide.
pub fn text(findings: &[Finding], columns: usize, colour: bool) -> String {
    let width = columns.saturating_sub(INDENT).max(20);
    let mut page = String::new();
    for finding in findings {
        let level = match finding.level {
            Level::Ok => ("ok", Style::new().green()),
            Level::Warn => ("warn", Style::new().yellow().bold()),
            Level::Fail => ("fail", Style::new().red().bold()),
        };
        let word = level.1.force_styling(colour).apply_to(level.0).to_string();
        page += &pad_str(&word, LEVEL, Alignment::Left, None);
        page += &pad_str(finding.check, NAME, Alignment::Left, None);
        for (at, line) in wrapped(&visible(&finding.message), width)
            .iter()
            .enumerate()
        {
            if at > 0 {
                page += &" ".repeat(INDENT);
            }
            page += line;
            page.push('\n');
        }
        let Some(next) = &finding.next else {
            continue;
        };
        for (at, line) in wrapped(&visible(next), width - 2).iter().enumerate() {
            page += &" ".repeat(INDENT);
            page += if at == 0 { "→ " } else { "  " };
            page += line;
            page.push('\n');
        }
    }
    page + "\n" + &verdict(findings) + "\n"
}

/// The last line.
fn verdict(findings: &[Finding]) -> String {
    let count = |level| {
        let of_level = findings.iter().filter(|finding| finding.level == level);
        of_level.count()
    };
    let warnings = match count(Level::Warn) {
        0 => None,
        1 => Some("1 warning".to_owned()),
        more => Some(format!("{more} warnings")),
    };
    match (count(Level::Fail), warnings) {
        (0, None) => "All is well.".into(),
        (0, Some(warnings)) => format!("Nothing fails; {warnings}."),
        (1, None) => "1 check fails.".into(),
        (1, Some(warnings)) => format!("1 check fails; {warnings}."),
        (fails, None) => format!("{fails} checks fail."),
        (fails, Some(warnings)) => format!("{fails} checks fail; {warnings}."),
    }
}

/// Lines of at most so many columns, broken at spaces. A longer word stands on a line of its own.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        let wide = measure_text_width(line) + 1 + measure_text_width(word);
        if line.is_empty() {
            line.push_str(word);
        } else if wide <= columns {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_as_wide_as_it_may_be() {
        let findings = [
            Finding::ok("platform", "Linux x86_64, glibc 2.36"),
            Finding::warn(
                "models",
                "org/half is an unfinished download of which 300 kB are here, and the rest is not",
            )
            .next("start it again to go on, or remove it: cclocal rm org/half"),
            Finding::fail("engine", "the engine is not\u{1b} installed").next("cclocal setup"),
        ];
        insta::assert_snapshot!(text(&findings, 60, false), @r"
        ok    platform       Linux x86_64, glibc 2.36
        warn  models         org/half is an unfinished download of
                             which 300 kB are here, and the rest is
                             not
                             → start it again to go on, or remove
                               it: cclocal rm org/half
        fail  engine         the engine is not\u{1b} installed
                             → cclocal setup

        1 check fails; 1 warning.
        ");
        assert!(text(&findings, 60, true).starts_with("\u{1b}[32mok\u{1b}[0m    platform"));
        assert!(text(&findings[..1], 60, false).ends_with("\n\nAll is well.\n"));
        assert_eq!(wrapped("", 20), [""]);
    }
}
