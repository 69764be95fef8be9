//! The search service that a session's user named with `--web-search`.

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sys::loopback::is_loopback;
use crate::sys::secret::Secret;

/// Whose API it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Searxng,
    Brave,
    Tavily,
}

impl Kind {
    /// The word that names it on the command line. A SearXNG instance is named by its URL.
    fn of_word(word: &str) -> Option<Self> {
        [Self::Brave, Self::Tavily]
            .into_iter()
            .find(|kind| word.eq_ignore_ascii_case(kind.word()))
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Searxng => "searxng",
            Self::Brave => "brave",
            Self::Tavily => "tavily",
        }
    }

    /// The variable that holds its key.
    pub fn key_variable(self) -> Option<&'static str> {
        match self {
            Self::Searxng => None,
            Self::Brave => Some("BRAVE_API_KEY"),
            Self::Tavily => Some("TAVILY_API_KEY"),
        }
    }

    /// The path of its API, below the address of the service. Source: the services' API references.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Searxng | Self::Tavily => "/search",
            Self::Brave => "/res/v1/web/search",
        }
    }
}

/// A search service, looked at and found good. It travels to the supervisor with the lease, so it is serialised with its secrets; it prints
/// without them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    kind: Kind,
    /// Such as `https://searx.example`, without a slash at its end and without a password.
    shown: String,
    /// The same with user name and password, if there are any.
    #[serde(with = "exposed")]
    address: Option<Secret>,
    #[serde(with = "exposed")]
    key: Option<Secret>,
    /// The host, with its port unless it is the usual one.
    host: String,
}

impl Backend {
    /// Reads the value of `--web-search`: a URL, `brave` or `tavily`. `key` reads the variable that holds a service's key.
    ///
    /// Errors: it is neither, or there is no key.
    pub fn named(text: &str, key: impl FnOnce(&str) -> Result<Secret>) -> Result<Self> {
        let text = text.trim();
        let (kind, url) = match Kind::of_word(text) {
            None => (Kind::Searxng, text),
            Some(kind @ Kind::Brave) => (kind, "https://api.search.brave.com"),
            Some(kind) => (kind, "https://api.tavily.com"),
        };
        let key = kind.key_variable().map(key).transpose()?;
        Self::at(kind, url, key)
    }

    /// The service at this URL.
    pub(in crate::gateway) fn at(kind: Kind, url: &str, key: Option<Secret>) -> Result<Self> {
        // The URL itself is never repeated: a password may be in it.
        let wrong = |cause: String| {
            Error::usage("--web-search takes the URL of a SearXNG instance, `brave` or `tavily`")
                .cause(cause)
                .hint("such as --web-search http://127.0.0.1:8888, or BRAVE_API_KEY=… cclocal --web-search brave")
        };
        let starts_well = |start: &&str| {
            url.get(..start.len())
                .is_some_and(|so| so.eq_ignore_ascii_case(start))
        };
        if !["http://", "https://"].iter().any(starts_well) {
            return Err(wrong(
                "it is neither of these words and does not start with http:// or https://".into(),
            ));
        }
        let mut url = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it has a query or a fragment".into()));
        }
        let Some(name) = url.host_str().map(str::to_owned) else {
            return Err(wrong("it names no host".into()));
        };
        // The page that people search on is often what is copied.
        let path = url.path().trim_end_matches('/');
        let path = path
            .strip_suffix(Kind::Searxng.path())
            .unwrap_or(path)
            .to_owned();
        url.set_path(&path);
        let text = |url: &Url| url.as_str().trim_end_matches('/').to_owned();
        let address = (!url.username().is_empty() || url.password().is_some())
            .then(|| Secret::new(text(&url)));
        // These fail only for URLs that can have no host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self {
            kind,
            shown: text(&url),
            address,
            key,
            host: match url.port() {
                Some(port) => format!("{name}:{port}"),
                None => name,
            },
        })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The host, with its port unless it is the usual one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The address without a password, for people.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The value of `--web-search` for a command line that anybody may see. None if a password would be in it.
    pub fn word(&self) -> Option<&str> {
        match (self.kind, &self.address) {
            (Kind::Searxng, None) => Some(&self.shown),
            (Kind::Searxng, Some(_)) => None,
            (kind, _) => Some(kind.word()),
        }
    }

    /// A sentence about the way of the queries.
    pub fn notice(&self) -> String {
        let host = &self.host;
        let read = match self.address {
            Some(_) => "them and the password",
            None => "them",
        };
        if self.is_here() {
            format!(
                "web searches go to {host} on this machine, and from there to the search engines that it asks: their queries leave this machine"
            )
        } else if self.is_encrypted() {
            format!("web searches go to {host}: their queries leave this machine")
        } else {
            format!(
                "web searches go to {host}, unencrypted: their queries leave this machine, and others on the way can read {read} and change the results"
            )
        }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.shown.starts_with("https:")
    }

    fn is_here(&self) -> bool {
        let url = Url::parse(&self.shown).ok();
        url.and_then(|url| url.host_str().map(is_loopback))
            .unwrap_or(false)
    }

    /// The URL that is asked. reqwest makes a header of user name and password, and sends the rest.
    pub(super) fn url(&self) -> Secret {
        let base = self
            .address
            .as_ref()
            .map_or(self.shown.as_str(), Secret::expose);
        Secret::new(format!("{base}{}", self.kind.path()))
    }

    pub(super) fn key(&self) -> Option<&Secret> {
        self.key.as_ref()
    }

    /// Whether a user name and a password are sent.
    pub(super) fn has_password(&self) -> bool {
        self.address.is_some()
    }
}

/// Secrets as text, for the one place that needs them: the supervisor's socket, which is the user's alone.
mod exposed {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::sys::secret::Secret;

    pub(super) fn serialize<S: Serializer>(
        secret: &Option<Secret>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(Secret::expose).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Secret>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(Secret::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Result<Backend> {
        Backend::named(text, |_| Ok(Secret::new("the-key")))
    }

    #[test]
    fn urls_and_words_name_a_service() {
        for (text, kind, url, host) in [
            (
                "http://127.0.0.1:8888",
                Kind::Searxng,
                "http://127.0.0.1:8888/search",
                "127.0.0.1:8888",
            ),
            (
                " https://searx.example/ ",
                Kind::Searxng,
                "https://searx.example/search",
                "searx.example",
            ),
            (
                "HTTPS://searx.example/search",
                Kind::Searxng,
                "https://searx.example/search",
                "searx.example",
            ),
            (
                "https://home.example/searxng//",
                Kind::Searxng,
                "https://home.example/searxng/search",
                "home.example",
            ),
            (
                "Brave",
                Kind::Brave,
                "https://api.search.brave.com/res/v1/web/search",
                "api.search.brave.com",
            ),
            (
                "tavily",
                Kind::Tavily,
                "https://api.tavily.com/search",
                "api.tavily.com",
            ),
        ] {
            let backend = named(text).expect(text);
            assert_eq!(backend.kind(), kind, "{text}");
            assert_eq!(backend.url().expose(), url, "{text}");
            assert_eq!(backend.host(), host, "{text}");
            assert_eq!(backend.key().is_some(), kind != Kind::Searxng, "{text}");
        }
    }

    #[test]
    fn a_password_and_a_key_travel_and_are_never_printed() {
        let backend = named("https://me:s%40cret@searx.example/x").expect("a service");
        assert_eq!(
            backend.url().expose(),
            "https://me:s%40cret@searx.example/x/search"
        );
        assert_eq!(backend.word(), None);
        let brave = named("brave").expect("a service");
        for backend in [&backend, &brave] {
            let text = serde_json::to_string(backend).expect("text");
            assert_eq!(
                &serde_json::from_str::<Backend>(&text).expect("one"),
                backend
            );
            let seen = format!(
                "{backend:?} {} {} {:?} {}",
                backend.shown(),
                backend.host(),
                backend.word(),
                backend.notice()
            );
            for secret in ["me:", "s%40cret", "the-key"] {
                assert!(!seen.contains(secret), "{seen}");
            }
        }
        let text = serde_json::to_string(&brave).expect("text");
        assert!(text.contains("the-key"), "{text}");
    }

    #[test]
    fn what_names_none_is_refused_with_a_reason_and_not_repeated() {
        let refused = |text: &str| {
            let said = named(text).expect_err(text).to_string();
            assert!(!said.contains("secret") && !said.contains("duck"), "{said}");
            said
        };
        insta::assert_snapshot!(refused("duckduckgo"), @"
        error: --web-search takes the URL of a SearXNG instance, `brave` or `tavily`
          cause: it is neither of these words and does not start with http:// or https://
          hint: such as --web-search http://127.0.0.1:8888, or BRAVE_API_KEY=… cclocal --web-search brave
        ");
        insta::assert_snapshot!(refused("https://me:secret@searx.example/?q=1"), @"
        error: --web-search takes the URL of a SearXNG instance, `brave` or `tavily`
          cause: it has a query or a fragment
          hint: such as --web-search http://127.0.0.1:8888, or BRAVE_API_KEY=… cclocal --web-search brave
        ");
        for text in [
            "",
            "searx.example",
            "me:secret@searx.example",
            "ftp://searx.example",
            "file:///etc/passwd",
            "http://",
            "http://[x",
            "http://x#y",
        ] {
            assert_eq!(refused(text).lines().count(), 3, "{text}");
        }
        let none = Backend::named("brave", |name| Err(Error::usage(name.to_owned())));
        assert_eq!(none.expect_err("no key").message, "BRAVE_API_KEY");
    }

    #[test]
    fn where_queries_go_is_said_as_it_is() {
        let said = |text: &str| named(text).expect(text).notice();
        insta::assert_snapshot!(said("http://localhost:8888"), @"web searches go to localhost:8888 on this machine, and from there to the search engines that it asks: their queries leave this machine");
        insta::assert_snapshot!(said("https://searx.example"), @"web searches go to searx.example: their queries leave this machine");
        insta::assert_snapshot!(said("tavily"), @"web searches go to api.tavily.com: their queries leave this machine");
        insta::assert_snapshot!(said("http://192.168.1.5:8888"), @"web searches go to 192.168.1.5:8888, unencrypted: their queries leave this machine, and others on the way can read them and change the results");
        insta::assert_snapshot!(said("http://me:pw@searx.example"), @"web searches go to searx.example, unencrypted: their queries leave this machine, and others on the way can read them and the password and change the results");
    }
}
