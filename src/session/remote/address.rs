//! URL of an engine that cclocal does not run, and the rules for sending to it.

use reqwest::Url;

use crate::error::{Error, Result};
use crate::sys::loopback::is_loopback;

/// The address of an engine, looked at and found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    base: String,
    host: String,
    encrypted: bool,
    loopback: bool,
}

impl Address {
    /// Reads a URL. A path is the prefix of a reverse proxy; `/v1` at its end and slashes are left out. Errors: it is none, it has more in it than an
    /// address, or it leads to another machine without encryption and `insecure` is not set.
    pub fn parse(text: &str, insecure: bool) -> Result<Self> {
        // The URL itself is never repeated: a password may be in it.
        let wrong = |cause: String| {
            Error::usage("--connect needs the URL of an engine")
                .cause(cause)
                .hint("such as https://mac.example:8443, or http://127.0.0.1:8000 for a tunnel; for an engine of cclocal on this machine: cclocal connect")
        };
        let text = text.trim();
        let starts_well = |start: &&str| {
            text.get(..start.len())
                .is_some_and(|so| so.eq_ignore_ascii_case(start))
        };
        if !["http://", "https://"].iter().any(starts_well) {
            return Err(wrong("it does not start with http:// or https://".into()));
        }
        let url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::usage("--connect takes no user name and no password")
                .cause(
                    "other programs can see a command line, and the shell keeps it in its history",
                )
                .hint(
                    "put the engine's token into a variable and pass its name: --token-env NAME",
                ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has a query or a fragment".into()));
        }
        let Some(host) = url.host_str() else {
            return Err(wrong("it names no host".into()));
        };
        let address = Self {
            base: base(&url),
            loopback: is_loopback(host),
            host: match url.port() {
                Some(port) => format!("{host}:{port}"),
                None => host.to_owned(),
            },
            encrypted: url.scheme() == "https",
        };
        if !address.encrypted && !address.loopback && !insecure {
            return Err(Error::usage(format!(
                "plain http to {} can be read and changed on its way",
                address.host
            ))
            .cause("prompts, files and the token would go there unencrypted")
            .hint("use https, or a tunnel (ssh -L 8000:127.0.0.1:8000 HOST, then --connect http://127.0.0.1:8000); --insecure allows it as it is"));
        }
        Ok(address)
    }

    /// Without a slash and without `/v1` at its end.
    pub fn base_url(&self) -> &str {
        &self.base
    }

    /// The host, with its port unless it is the usual one.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Notice about the place that prompts go to, in one sentence.
    pub fn notice(&self) -> String {
        let host = &self.host;
        match (self.loopback, self.encrypted) {
            (true, _) => format!(
                "prompts, and the files that Claude Code reads, go to {host} on this machine: to an engine that cclocal does not run, or through a tunnel to another machine"
            ),
            (false, true) => format!(
                "prompts, and the files that Claude Code reads, leave this machine: they go to {host}, encrypted; its owner can read them"
            ),
            (false, false) => format!(
                "prompts, and the files that Claude Code reads, leave this machine: they go to {host}, NOT encrypted; anyone on the way can read and change them"
            ),
        }
    }
}

/// The URL as text, to which `/v1/…` is added.
fn base(url: &Url) -> String {
    let text = url.as_str().trim_end_matches('/');
    // A host may be called v1.
    let text = match url.path().trim_end_matches('/') {
        path if path.ends_with("/v1") => text.strip_suffix("/v1").unwrap_or(text),
        _ => text,
    };
    text.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_what_the_api_is_added_to() {
        for (text, base, host, loopback) in [
            (
                "http://127.0.0.1:8000",
                "http://127.0.0.1:8000",
                "127.0.0.1:8000",
                true,
            ),
            (
                "http://127.0.0.1:8000/",
                "http://127.0.0.1:8000",
                "127.0.0.1:8000",
                true,
            ),
            (
                "http://localhost:8000/v1",
                "http://localhost:8000",
                "localhost:8000",
                true,
            ),
            (
                "http://LOCALHOST:8000/v1/",
                "http://localhost:8000",
                "localhost:8000",
                true,
            ),
            (
                "http://[::1]:8000/",
                "http://[::1]:8000",
                "[::1]:8000",
                true,
            ),
            (
                "http://127.1:8000",
                "http://127.0.0.1:8000",
                "127.0.0.1:8000",
                true,
            ),
            (
                "http://[::ffff:127.0.0.1]",
                "http://[::ffff:7f00:1]",
                "[::ffff:7f00:1]",
                true,
            ),
            (
                "https://mac.example",
                "https://mac.example",
                "mac.example",
                false,
            ),
            (
                "https://mac.example:443/",
                "https://mac.example",
                "mac.example",
                false,
            ),
            (
                "https://mac.example/llm/v1",
                "https://mac.example/llm",
                "mac.example",
                false,
            ),
            (
                "https://mac.example/llm//",
                "https://mac.example/llm",
                "mac.example",
                false,
            ),
            (
                "https://mac.example/v1/v1",
                "https://mac.example/v1",
                "mac.example",
                false,
            ),
            ("https://v1", "https://v1", "v1", false),
            (
                "https://[2001:db8::1]:8443",
                "https://[2001:db8::1]:8443",
                "[2001:db8::1]:8443",
                false,
            ),
        ] {
            let address = Address::parse(text, false).expect(text);
            assert_eq!(address.base_url(), base, "{text}");
            assert_eq!(address.host(), host, "{text}");
            assert_eq!(address.loopback, loopback, "{text}");
        }
    }

    #[test]
    fn only_this_machine_is_reached_without_encryption() {
        for text in [
            "http://mac.example:8000",
            "http://192.168.1.5:8000",
            "http://0.0.0.0:8000",
            "http://128.0.0.1",
            "http://[::2]:8000",
            "http://[fe80::1]:8000",
            "http://[::ffff:10.0.0.1]",
            "http://localhost.example",
            "http://127.0.0.1.example",
        ] {
            assert!(Address::parse(text, false).is_err(), "{text}");
            let address = Address::parse(text, true).expect(text);
            assert!(!address.is_encrypted() && !address.loopback, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        let refused = |text: &str| Address::parse(text, true).expect_err(text).to_string();
        insta::assert_snapshot!(refused("http://[mac"), @"
        error: --connect needs the URL of an engine
          cause: invalid IPv6 address
          hint: such as https://mac.example:8443, or http://127.0.0.1:8000 for a tunnel; for an engine of cclocal on this machine: cclocal connect
        ");
        insta::assert_snapshot!(refused("mac.example:8000"), @"
        error: --connect needs the URL of an engine
          cause: it does not start with http:// or https://
          hint: such as https://mac.example:8443, or http://127.0.0.1:8000 for a tunnel; for an engine of cclocal on this machine: cclocal connect
        ");
        insta::assert_snapshot!(refused("http://mac.example/?key=1"), @"
        error: --connect needs the URL of an engine
          cause: it has a query or a fragment
          hint: such as https://mac.example:8443, or http://127.0.0.1:8000 for a tunnel; for an engine of cclocal on this machine: cclocal connect
        ");
        insta::assert_snapshot!(refused("https://me:secret@mac.example"), @"
        error: --connect takes no user name and no password
          cause: other programs can see a command line, and the shell keeps it in its history
          hint: put the engine's token into a variable and pass its name: --token-env NAME
        ");
        for text in [
            "",
            "/run/engine.sock",
            "ftp://x",
            "file:///x",
            "http://",
            "http://x#y",
            "mac",
            "http:/mac",
            "http:mac",
            "http://a b",
            "https://me@x",
        ] {
            assert!(Address::parse(text, true).is_err(), "{text}");
        }
        let plain = Address::parse("http://mac.example:8000", false).expect_err("plain");
        insta::assert_snapshot!(plain, @"
        error: plain http to mac.example:8000 can be read and changed on its way
          cause: prompts, files and the token would go there unencrypted
          hint: use https, or a tunnel (ssh -L 8000:127.0.0.1:8000 HOST, then --connect http://127.0.0.1:8000); --insecure allows it as it is
        ");
    }

    #[test]
    fn where_prompts_go_is_said_as_it_is() {
        let said = |text: &str| Address::parse(text, true).expect(text).notice();
        insta::assert_snapshot!(said("http://127.0.0.1:8000"), @"prompts, and the files that Claude Code reads, go to 127.0.0.1:8000 on this machine: to an engine that cclocal does not run, or through a tunnel to another machine");
        insta::assert_snapshot!(said("https://mac.example:8443/llm"), @"prompts, and the files that Claude Code reads, leave this machine: they go to mac.example:8443, encrypted; its owner can read them");
        insta::assert_snapshot!(said("http://mac.example:8000"), @"prompts, and the files that Claude Code reads, leave this machine: they go to mac.example:8000, NOT encrypted; anyone on the way can read and change them");
    }
}
