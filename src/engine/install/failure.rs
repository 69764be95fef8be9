//! Reasons for which a tool fails, found in its last lines, each with a cause and a hint.

use crate::error::{Error, Exit};

/// Lines of a tool's output that are shown with an error.
const SHOWN: usize = 12;

struct Kind {
    /// Any of these, separated by `|` and in lower case, in any line.
    signs: &'static str,
    exit: Exit,
    cause: &'static str,
    hint: &'static str,
}

/// The kinds of failure. The first that fits decides.
const KINDS: &[Kind] = &[
    Kind {
        signs: "no space left on device|os error 28|disk quota exceeded",
        exit: Exit::Machine,
        cause: "the disk is full",
        hint: "free about 1 GB, then run `cclocal setup` again",
    },
    Kind {
        signs: "hash mismatch",
        exit: Exit::EngineMissing,
        cause: "a downloaded package is not the one that the lock file names",
        hint: "nothing of it was installed. Empty uv's cache (`uv cache clean`, or remove ~/.cache/uv) and try again; if that does not help, your package index serves changed files",
    },
    Kind {
        signs: "invalid peer certificate|unknownissuer|certificate verify failed",
        exit: Exit::EngineMissing,
        cause: "the package index's certificate is not trusted",
        hint: "behind a proxy that inspects traffic, set SSL_CERT_FILE to its certificate and run `cclocal setup` again",
    },
    Kind {
        signs: "401 unauthorized|403 forbidden|407 proxy|proxy authorization required|http status client error (401|http status client error (403",
        exit: Exit::EngineMissing,
        cause: "the package index or the proxy refused access",
        hint: "check UV_INDEX_URL, PIP_INDEX_URL and HTTPS_PROXY",
    },
    Kind {
        signs: "the network was disabled|network connectivity is disabled",
        exit: Exit::EngineMissing,
        cause: "uv is set to work offline",
        hint: "unset UV_OFFLINE (and PIP_NO_INDEX), then run `cclocal setup` again",
    },
    Kind {
        signs: "dns error|failed to lookup address|name resolution|name or service not known|nodename nor servname|network is unreachable\
                |no route to host|connection refused|connection reset|error sending request|timed out|tunnel error\
                |failed to fetch|failed to download|connection error",
        exit: Exit::EngineMissing,
        cause: "the package index cannot be reached",
        hint: "connect to the network (or set HTTPS_PROXY, or UV_INDEX_URL for a mirror), then run `cclocal setup` again",
    },
    Kind {
        signs: "not found in the package registry|no usable wheels|no wheels with a matching|no solution found",
        exit: Exit::EngineMissing,
        cause: "the package index does not have a package that is needed here",
        hint: "a mirror may be incomplete: unset UV_INDEX_URL and PIP_INDEX_URL to use the public index",
    },
    Kind {
        signs: "permission denied|os error 13|read-only file system",
        exit: Exit::EngineMissing,
        cause: "a file or folder may not be written",
        hint: "check who owns cclocal's data folder and uv's cache folder",
    },
];

/// The error for a tool that failed with this status after these lines.
pub(super) fn explain(what: &str, status: &str, lines: &[String]) -> Error {
    let lower: Vec<String> = lines.iter().map(|line| line.to_lowercase()).collect();
    let kind = KINDS.iter().find(|kind| {
        kind.signs
            .split('|')
            .any(|sign| lower.iter().any(|line| line.contains(sign)))
    });
    let said: Vec<String> = lines
        .iter()
        .filter(|line| !line.trim().is_empty())
        .cloned()
        .collect();
    let last = said[said.len().saturating_sub(SHOWN)..].to_vec();
    let error = match kind {
        Some(kind) => Error::new(kind.exit, format!("{what} failed")).cause(kind.cause).hint(kind.hint),
        None => Error::new(Exit::EngineMissing, format!("{what} failed"))
            .cause(format!("it ended with {status}"))
            .hint("the whole output is in setup.log in cclocal's state folder; run `cclocal setup` to try again"),
    };
    error.detail(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_failures_are_named() {
        for (line, cause) in [
            (
                "OSError: [Errno 28] No space left on device",
                "disk is full",
            ),
            ("  × Hash mismatch for `mlx==0.32.4`", "lock file"),
            ("  cause: dns error", "reached"),
            ("invalid peer certificate: UnknownIssuer", "trusted"),
            ("strange", "it ended with exit status: 1"),
        ] {
            let error = explain("it", "exit status: 1", &[line.to_owned()]);
            assert!(error.cause.expect("a cause").contains(cause), "{line}");
        }
    }

    #[test]
    fn every_kind_in_full() {
        let said: Vec<String> = KINDS
            .iter()
            .filter_map(|kind| kind.signs.split('|').next())
            .chain(["strange"])
            .map(|line| explain("the step", "exit status: 1", &[line.to_owned()]).to_string())
            .collect();
        insta::assert_snapshot!(said.join("\n"), @"
        error: the step failed
          cause: the disk is full
          | no space left on device
          hint: free about 1 GB, then run `cclocal setup` again
        error: the step failed
          cause: a downloaded package is not the one that the lock file names
          | hash mismatch
          hint: nothing of it was installed. Empty uv's cache (`uv cache clean`, or remove ~/.cache/uv) and try again; if that does not help, your package index serves changed files
        error: the step failed
          cause: the package index's certificate is not trusted
          | invalid peer certificate
          hint: behind a proxy that inspects traffic, set SSL_CERT_FILE to its certificate and run `cclocal setup` again
        error: the step failed
          cause: the package index or the proxy refused access
          | 401 unauthorized
          hint: check UV_INDEX_URL, PIP_INDEX_URL and HTTPS_PROXY
        error: the step failed
          cause: uv is set to work offline
          | the network was disabled
          hint: unset UV_OFFLINE (and PIP_NO_INDEX), then run `cclocal setup` again
        error: the step failed
          cause: the package index cannot be reached
          | dns error
          hint: connect to the network (or set HTTPS_PROXY, or UV_INDEX_URL for a mirror), then run `cclocal setup` again
        error: the step failed
          cause: the package index does not have a package that is needed here
          | not found in the package registry
          hint: a mirror may be incomplete: unset UV_INDEX_URL and PIP_INDEX_URL to use the public index
        error: the step failed
          cause: a file or folder may not be written
          | permission denied
          hint: check who owns cclocal's data folder and uv's cache folder
        error: the step failed
          cause: it ended with exit status: 1
          | strange
          hint: the whole output is in setup.log in cclocal's state folder; run `cclocal setup` to try again
        ");
    }

    #[test]
    fn only_the_last_lines_are_shown() {
        let lines: Vec<String> = (0..40).map(|n| n.to_string()).collect();
        let error = explain("it", "exit status: 1", &lines);
        assert_eq!(error.detail.len(), SHOWN);
        assert_eq!(error.detail.last().map(String::as_str), Some("39"));
    }
}
