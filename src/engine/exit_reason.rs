//! Why an engine ended, in words, from how it ended and the last lines of its log. Pure.

use std::path::Path;

use super::lifecycle::End;
use crate::error::{Error, Exit};
use crate::sys::process::Ended;

/// How many of the log's last lines are shown.
const SHOWN_LINES: usize = 8;

struct Reason {
    /// Any of these in the log means this reason. Lower case; of a mark with ` … ` in it, all parts.
    marks: &'static [&'static str],
    exit: Exit,
    cause: &'static str,
    hint: &'static str,
}

/// Messages of Metal and MLX when the GPU's memory runs out.
const OUT_OF_MEMORY: &[&str] = &[
    "kiogpucommandbuffercallbackerroroutofmemory",
    "insufficient memory",
    "[metal::malloc]",
    "unable to allocate",
];

const DISK_FULL: Reason = Reason {
    // Not the library's warning beforehand, "Not enough free disk space": it downloads all the same, and may have room by then.
    marks: &["no space left on device"],
    exit: Exit::Machine,
    cause: "the disk is full",
    hint: "free some space and run it again; what was downloaded is kept",
};

/// Messages of the engine's libraries and their meaning. The first match wins, so the particular stands before the general.
/// Sources: vllm-mlx 0.6.0, mlx 0.32, huggingface_hub 2.x, uvicorn; each run against the real engine unless it needs a Mac or the hub.
const REASONS: &[Reason] = &[
    Reason {
        marks: OUT_OF_MEMORY,
        exit: Exit::Engine,
        cause: "the GPU ran out of memory",
        hint: "take a smaller model (cclocal --gemma-light) or a smaller window (--ctx 32768)",
    },
    Reason {
        marks: &[
            "cannot access gated repo",
            "gatedrepoerror",
            "access to model",
        ],
        exit: Exit::Download,
        cause: "the model is gated: its owner wants you to accept terms first",
        hint: "accept the terms on the model's page on huggingface.co, then run it with HF_TOKEN set to your token",
    },
    Reason {
        marks: &[
            "401 client error",
            "401 unauthorized",
            "403 forbidden",
            "invalid user token",
            "invalid credentials",
        ],
        exit: Exit::Download,
        cause: "the hub refused the credentials, or the model does not exist",
        hint: "check the model's name; for a private or gated model set HF_TOKEN to a valid token",
    },
    Reason {
        marks: &[
            "repository not found",
            "repositorynotfounderror",
            "client error '404",
        ],
        exit: Exit::Download,
        cause: "the hub has no model of that name",
        hint: "check the name on huggingface.co; ids are org/name",
    },
    // Before what is said of downloads: a full disk ends one, and is no fault of the network.
    DISK_FULL,
    Reason {
        marks: &[
            "outgoing traffic has been disabled",
            "offline mode is enabled",
            "not found in local cache",
        ],
        exit: Exit::Download,
        cause: "the model is not on this disk, and offline mode is on (HF_HUB_OFFLINE)",
        hint: "unset HF_HUB_OFFLINE and run it again; what was downloaded is kept",
    },
    Reason {
        marks: &[
            "localentrynotfounderror",
            "cannot find the requested files in the",
        ],
        exit: Exit::Download,
        cause: "the model is not on this disk, and the hub could not be reached",
        hint: "connect to the network and run it again; what was downloaded is kept",
    },
    Reason {
        marks: &[
            "name or service not known",
            "nodename nor servname",
            "temporary failure in name resolution",
            "network is unreachable",
            "failed to resolve",
            "all connection attempts failed",
            "max retries exceeded",
            "read timed out",
            "failed to download",
        ],
        exit: Exit::Download,
        cause: "the download failed: the hub could not be reached",
        hint: "check the network and run it again; what was downloaded is kept",
    },
    // It is told the gateway's port as its own, which is taken: so one that insists on a port ends.
    Reason {
        marks: &[
            "does not serve on cclocal's socket",
            "address already in use",
            "errno 48",
            "errno 98",
        ],
        exit: Exit::Engine,
        cause: "it does not serve on the socket that cclocal gave it",
        hint: "run `cclocal setup` for the engine that this cclocal was made for, or unset CCLOCAL_ENGINE",
    },
    Reason {
        // `engine/patches/history.py`.
        marks: &["chat template cannot be used"],
        exit: Exit::Engine,
        cause: "the model's chat template fails, so no request could be answered",
        hint: "take another version of the model, or fix its chat_template.jinja",
    },
    Reason {
        marks: &["model type … not supported"],
        exit: Exit::Engine,
        cause: "the engine does not know this model's architecture",
        hint: "take a model of the catalogue (cclocal --help lists them)",
    },
    Reason {
        marks: &[
            "safetensorerror",
            "invalid json header",
            "incomplete metadata",
            "unable to read 8 bytes",
            "no safetensors found",
            "expected shape",
            "parameters not in model",
            "cannot determine whether",
            "instantiate the backend tokenizer",
            "failed to parse tokenizer",
            "[load_safetensors]",
            "header too large",
            // `engine/files.py`.
            "is no regular file",
            "is longer than",
        ],
        exit: Exit::Engine,
        cause: "a file of the model is damaged or missing",
        hint: "remove the model (`cclocal rm ORG/NAME`; a local folder by hand) and run it again to download it again",
    },
    Reason {
        marks: &[
            "unrecognized arguments",
            "invalid choice",
            "the following arguments are required",
        ],
        exit: Exit::Engine,
        cause: "the engine does not take the flags it was given",
        hint: "run `cclocal setup` for the engine that this cclocal was made for, or unset CCLOCAL_ENGINE",
    },
    Reason {
        marks: &[
            "modulenotfounderror",
            "importerror",
            "symbol not found",
            "library not loaded",
        ],
        exit: Exit::Engine,
        cause: "the engine's installation is damaged",
        hint: "run `cclocal setup --force` to install it again",
    },
];

/// Marks of lines that tell what an engine was asked, in the user's words, or what it survived: whatever else stands in them, it did not end of it.
/// Sources: vllm-mlx 0.6.0's log of requests; `engine/patches/kept.py`, `engine/patches/patches.py`.
const NO_REASONS: &[&str] = &["[REQUEST]", "[kept_prefix]", "[cclocal] patch "];

/// Whether it ended because memory ran out: the GPU's, by its log, or the system's, by the signal of the memory killer.
pub fn is_out_of_memory(end: End, tail: &[String]) -> bool {
    let text = telling(tail);
    let says_so = OUT_OF_MEMORY.iter().any(|mark| text.contains(mark));
    says_so || matches!(end, End::Died(Ended::Signal(9)))
}

/// The error for an engine that ended by itself.
pub fn explain(end: End, tail: &[String], log: &Path) -> Error {
    let (what, ended) = match end {
        End::FailedToStart(ended) => ("the engine did not start", ended),
        End::Died(ended) => ("the engine died", ended),
        End::Stopped => ("the engine was stopped", Ended::Code(0)),
    };
    let text = telling(tail);
    let says = |mark: &str| mark.split(" … ").all(|part| text.contains(part));
    let reason = REASONS
        .iter()
        .find(|reason| reason.marks.iter().any(|mark| says(mark)));
    let mut detail = essential(tail);
    let log = log.display();
    detail.push(format!("the whole log: {log}"));
    let (exit, cause, hint) = match (reason, ended) {
        (Some(reason), _) => (reason.exit, reason.cause.to_owned(), reason.hint.to_owned()),
        (None, Ended::Signal(9)) => (
            Exit::Engine,
            "the system killed it (SIGKILL), as it does when memory runs out".into(),
            "close other programs or take a smaller model (cclocal --gemma-light)".into(),
        ),
        (None, Ended::Signal(signal)) => (
            Exit::Engine,
            format!("it was ended by signal {signal} ({})", signal_name(signal)),
            "read the lines above; a smaller model (cclocal --gemma-light) rules out memory".into(),
        ),
        (None, Ended::Code(code)) => (
            Exit::Engine,
            format!("it ended with status {code}"),
            "read the last lines of its log above; `cclocal doctor` checks the installation".into(),
        ),
    };
    let what = match exit {
        Exit::Download => "the model could not be downloaded",
        _ => what,
    };
    Error::new(exit, what)
        .cause(cause)
        .hint(hint)
        .detail(detail)
}

/// The error for an engine in whose place something else answers.
pub fn impersonated(socket: &Path) -> Error {
    Error::new(Exit::Engine, "the engine cannot be trusted")
        .cause(format!(
            "the program that answers on {} does not have the engine's key; nothing was sent to it",
            socket.display()
        ))
        .hint("end the program that took the engine's socket; if it is the engine itself, unset CCLOCAL_ENGINE or run `cclocal setup --force`")
}

/// The lines of a log that may tell why the engine ended, in lower case.
fn telling(tail: &[String]) -> String {
    let tells = |line: &&String| !NO_REASONS.iter().any(|mark| line.contains(mark));
    let lines: Vec<&str> = tail.iter().filter(tells).map(String::as_str).collect();
    lines.join("\n").to_lowercase()
}

/// The same error where the disk turned out to be full.
pub fn disk_full(error: Error) -> Error {
    Error {
        exit: Exit::Machine,
        ..error
    }
    .cause(DISK_FULL.cause)
    .hint(DISK_FULL.hint)
}

/// The last lines of an engine's log that say something, and where the rest is.
pub fn last_words(log: &Path) -> Vec<String> {
    let mut words = essential(&crate::sys::log::tail(log));
    words.push(format!("the whole log: {}", log.display()));
    words
}

/// The last lines that say something: without the frames of tracebacks, the notices of a start and an orderly end, and rules.
fn essential(tail: &[String]) -> Vec<String> {
    let says_nothing = |line: &&String| {
        line.starts_with([' ', '\t', '=', '-'])
            || line.starts_with("INFO:")
            || line.starts_with("[cclocal] patch ")
            || line.starts_with("Traceback (most recent call last)")
            || line.contains("ERROR:    Traceback")
            || line.contains("Application startup failed")
            || line.starts_with("During handling of the above exception")
            || line.starts_with("The above exception was the direct cause")
    };
    let lines: Vec<String> = tail
        .iter()
        .filter(|line| !says_nothing(line))
        .cloned()
        .collect();
    // A log of nothing else is better than no words at all.
    let lines = if lines.is_empty() {
        tail.to_vec()
    } else {
        lines
    };
    lines[lines.len().saturating_sub(SHOWN_LINES)..].to_vec()
}

fn signal_name(signal: i32) -> &'static str {
    nix::sys::signal::Signal::try_from(signal).map_or("unknown", nix::sys::signal::Signal::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(end: End, log: &str) -> Error {
        let tail: Vec<String> = log.lines().map(str::to_owned).collect();
        explain(end, &tail, Path::new("/state/server.log"))
    }

    #[test]
    fn words_of_the_libraries_become_words_for_people() {
        let failed = |log: &str| {
            let error = explained(End::FailedToStart(Ended::Code(1)), log);
            (error.exit, error.cause.unwrap_or_default())
        };
        for (log, exit, cause) in [
            (
                "huggingface_hub.errors.GatedRepoError: 403\nCannot access gated repo for url",
                Exit::Download,
                "gated",
            ),
            (
                "401 Client Error. Repository Not Found for url: x",
                Exit::Download,
                "credentials",
            ),
            (
                "404 Client Error.\nRepository Not Found for url: x",
                Exit::Download,
                "no model of that name",
            ),
            (
                "Failed to download 'org/name' after 3 attempts. Last error: [Errno 28] No space left on device",
                Exit::Machine,
                "disk is full",
            ),
            (
                "UserWarning: Not enough free disk space to download the file. The expected file size is: 9 MB.\nsomething else",
                Exit::Engine,
                "status 1",
            ),
            (
                "Failed to download 'org/name' after 1 attempts. Last error: Cannot find an appropriate cached snapshot folder for the specified revision on the local disk and outgoing traffic has been disabled. To enable repo look-ups and downloads online, set 'HF_HUB_OFFLINE=0' as environment variable.",
                Exit::Download,
                "offline mode is on",
            ),
            (
                "[Errno 98] error while attempting to bind on address: address already in use",
                Exit::Engine,
                "does not serve on the socket",
            ),
            (
                "[cclocal] patch listen: not applied (No module named 'uvicorn')\n[cclocal] the engine does not serve on cclocal's socket",
                Exit::Engine,
                "does not serve on the socket",
            ),
            (
                "ValueError: Model type foo not supported.",
                Exit::Engine,
                "architecture",
            ),
            (
                "vllm-mlx: error: unrecognized arguments: --x",
                Exit::Engine,
                "flags",
            ),
            ("something else", Exit::Engine, "status 1"),
        ] {
            let (found, text) = failed(log);
            assert!(
                found == exit && text.contains(cause),
                "{log}: {found:?} {text}"
            );
        }
    }

    #[test]
    fn every_reason_in_full() {
        let said: Vec<String> = REASONS
            .iter()
            .map(|reason| {
                let mark = reason.marks[0].replace(" … ", " ");
                let error = explained(End::FailedToStart(Ended::Code(1)), &mark);
                Error {
                    detail: Vec::new(),
                    ..error
                }
                .to_string()
            })
            .collect();
        insta::assert_snapshot!(said.join("\n"), @"
        error: the engine did not start
          cause: the GPU ran out of memory
          hint: take a smaller model (cclocal --gemma-light) or a smaller window (--ctx 32768)
        error: the model could not be downloaded
          cause: the model is gated: its owner wants you to accept terms first
          hint: accept the terms on the model's page on huggingface.co, then run it with HF_TOKEN set to your token
        error: the model could not be downloaded
          cause: the hub refused the credentials, or the model does not exist
          hint: check the model's name; for a private or gated model set HF_TOKEN to a valid token
        error: the model could not be downloaded
          cause: the hub has no model of that name
          hint: check the name on huggingface.co; ids are org/name
        error: the engine did not start
          cause: the disk is full
          hint: free some space and run it again; what was downloaded is kept
        error: the model could not be downloaded
          cause: the model is not on this disk, and offline mode is on (HF_HUB_OFFLINE)
          hint: unset HF_HUB_OFFLINE and run it again; what was downloaded is kept
        error: the model could not be downloaded
          cause: the model is not on this disk, and the hub could not be reached
          hint: connect to the network and run it again; what was downloaded is kept
        error: the model could not be downloaded
          cause: the download failed: the hub could not be reached
          hint: check the network and run it again; what was downloaded is kept
        error: the engine did not start
          cause: it does not serve on the socket that cclocal gave it
          hint: run `cclocal setup` for the engine that this cclocal was made for, or unset CCLOCAL_ENGINE
        error: the engine did not start
          cause: the model's chat template fails, so no request could be answered
          hint: take another version of the model, or fix its chat_template.jinja
        error: the engine did not start
          cause: the engine does not know this model's architecture
          hint: take a model of the catalogue (cclocal --help lists them)
        error: the engine did not start
          cause: a file of the model is damaged or missing
          hint: remove the model (`cclocal rm ORG/NAME`; a local folder by hand) and run it again to download it again
        error: the engine did not start
          cause: the engine does not take the flags it was given
          hint: run `cclocal setup` for the engine that this cclocal was made for, or unset CCLOCAL_ENGINE
        error: the engine did not start
          cause: the engine's installation is damaged
          hint: run `cclocal setup --force` to install it again
        ");
        let error = explained(End::Died(Ended::Signal(11)), "");
        insta::assert_snapshot!(error, @"
        error: the engine died
          cause: it was ended by signal 11 (SIGSEGV)
          | the whole log: /state/server.log
          hint: read the lines above; a smaller model (cclocal --gemma-light) rules out memory
        ");
    }

    #[test]
    fn metal_and_the_memory_killer_are_told_apart() {
        let abort = "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command buffer execution failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)";
        let error = explained(End::Died(Ended::Signal(6)), abort);
        insta::assert_snapshot!(error, @"
        error: the engine died
          cause: the GPU ran out of memory
          | libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command buffer execution failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)
          | the whole log: /state/server.log
          hint: take a smaller model (cclocal --gemma-light) or a smaller window (--ctx 32768)
        ");
        let error = explained(End::Died(Ended::Signal(9)), "INFO: serving");
        insta::assert_snapshot!(error, @"
        error: the engine died
          cause: the system killed it (SIGKILL), as it does when memory runs out
          | INFO: serving
          | the whole log: /state/server.log
          hint: close other programs or take a smaller model (cclocal --gemma-light)
        ");
    }

    #[test]
    fn what_was_asked_and_what_was_survived_is_no_reason() {
        let log = "INFO:vllm_mlx.server:[REQUEST] last user message preview: ModuleNotFoundError: [metal::malloc] Insufficient Memory\n\
            WARNING:vllm_mlx.scheduler:[kept_prefix] not kept: OSError: [Errno 28] No space left on device\n\
            [cclocal] patch text-route: not applied ([Errno 28] No space left on device)";
        let end = End::Died(Ended::Signal(11));
        let cause = explained(end, log).cause.expect("a cause");
        assert_eq!(cause, "it was ended by signal 11 (SIGSEGV)");
        let tail: Vec<String> = log.lines().map(str::to_owned).collect();
        assert!(!is_out_of_memory(end, &tail));
        let told = [&tail[..], &["[metal::malloc] Unable to allocate".into()]].concat();
        assert!(is_out_of_memory(end, &told));
    }

    #[test]
    fn only_the_end_of_a_long_log_is_shown() {
        let log: String = (0..100).map(|line| format!("line {line}\n")).collect();
        let error = explained(End::FailedToStart(Ended::Code(3)), &log);
        assert_eq!(error.detail.first().map(String::as_str), Some("line 92"));
        assert_eq!(error.detail.len(), SHOWN_LINES + 1);
    }
}
