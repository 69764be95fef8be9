//! Errors of single requests in the engine's log. Pure.

/// In front of what ended a stream. Source: vllm-mlx 0.6.0, `server.py`.
const OF_A_STREAM: &str = "Streaming error, ensuring terminal frame: ";

/// The most that is shown, in characters.
const LONGEST: usize = 300;

/// The last error in these lines of a log, in the engine's words: of a stream, or of a traceback.
pub fn last(lines: &[String]) -> Option<String> {
    lines.iter().rev().find_map(|line| {
        let words = match line.split_once(OF_A_STREAM) {
            Some((_, words)) => words,
            None => {
                let (kind, words) = line.split_once(": ")?;
                let name = kind.rsplit('.').next()?;
                let is_exception = (name.ends_with("Error") || name.ends_with("Exception"))
                    && kind
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'));
                is_exception.then_some(words)?
            }
        };
        let words = words.trim().trim_end_matches('.');
        (!words.is_empty()).then(|| words.chars().take(LONGEST).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_found_among_what_else_is_there() {
        let last = |lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            last(&lines)
        };
        let stream =
            "ERROR:vllm_mlx.server:Streaming error, ensuring terminal frame: No filter named 'x'.";
        let info =
            "INFO:     127.0.0.1:1 - \"POST /v1/messages HTTP/1.1\" 500 Internal Server Error";
        let preview = "INFO:vllm_mlx.server:[REQUEST] last user message preview: ValueError: mine";
        let traceback = "jinja2.exceptions.TemplateError: roles must alternate";
        assert_eq!(
            last(&[stream, info]).as_deref(),
            Some("No filter named 'x'")
        );
        assert_eq!(
            last(&[stream, traceback, preview, info]).as_deref(),
            Some("roles must alternate")
        );
        assert_eq!(
            last(&[info, preview, "ERROR:    Exception in ASGI application"]),
            None
        );
        assert_eq!(last(&[]), None);
    }
}
