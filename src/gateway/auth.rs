//! Who may ask: a token for the supervisor and one per lease, and nothing that a web page could send.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderMap, Uri, header};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::web_search::Backend;
use crate::error::Result;
use crate::gateway::anthropic::ApiError;
use crate::sys::secret::Secret;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Caller {
    /// Whoever has the supervisor's own token.
    Main,
    /// A session, by the number of its lease.
    Lease(u64),
}

/// The tokens that are valid now. Clones share them.
#[derive(Clone)]
pub struct Access(Arc<Mutex<Tokens>>);

/// Tokens are kept as digests: these have one length, and whoever reads our memory learns no token.
type Token = [u8; 32];

struct Tokens {
    main: Token,
    leases: BTreeMap<u64, Token>,
    searches: BTreeMap<u64, Search>,
}

/// A lease may search the web.
struct Search {
    backend: Backend,
    /// So may programs with the supervisor's own token.
    for_main: bool,
}

impl Access {
    pub fn new(main: &Secret) -> Self {
        Self(Arc::new(Mutex::new(Tokens {
            main: digest(main.expose().as_bytes()),
            leases: BTreeMap::new(),
            searches: BTreeMap::new(),
        })))
    }

    /// A new token for this lease; one that it had before is valid no longer. Errors: there is no randomness to be had.
    pub fn grant(&self, lease: u64) -> Result<Secret> {
        let token = Secret::random()?;
        self.tokens()
            .leases
            .insert(lease, digest(token.expose().as_bytes()));
        Ok(token)
    }

    /// The lease is over: its token is refused from now on.
    pub fn revoke(&self, lease: u64) {
        let mut tokens = self.tokens();
        tokens.leases.remove(&lease);
        tokens.searches.remove(&lease);
    }

    /// Lets the lease search the web with this service, until it is over. `for_main`: those with the supervisor's own token as well, until then.
    pub fn allow_search(&self, lease: u64, backend: Backend, for_main: bool) {
        let search = Search { backend, for_main };
        self.tokens().searches.insert(lease, search);
    }

    /// The service that this caller may search with.
    pub(crate) fn search_backend(&self, caller: Caller) -> Option<Backend> {
        let tokens = self.tokens();
        let search = match caller {
            Caller::Lease(lease) => tokens.searches.get(&lease),
            // Of several servers the one that came last.
            Caller::Main => tokens.searches.values().rfind(|search| search.for_main),
        };
        search.map(|search| search.backend.clone())
    }

    /// Whose token the request bears, as `Authorization: Bearer` or as `x-api-key`.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Option<Caller> {
        let bearer = headers
            .get_all(header::AUTHORIZATION)
            .iter()
            .filter_map(|value| bearer(value.as_bytes()));
        let keys = headers
            .get_all("x-api-key")
            .iter()
            .map(|value| value.as_bytes());
        let tokens = self.tokens();
        // The client sends both where a helper of the user's makes a key: one good token is enough.
        bearer
            .chain(keys)
            .filter_map(|offered| tokens.owner(&digest(offered)))
            .next()
    }

    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Access")
    }
}

impl Tokens {
    /// Compares with all of them, always, so that the time tells neither whether nor where it matched.
    fn owner(&self, offered: &Token) -> Option<Caller> {
        let main = self.main.ct_eq(offered);
        let mut any = Choice::from(0);
        let mut lease = 0u64;
        for (id, token) in &self.leases {
            let same = token.ct_eq(offered);
            lease.conditional_assign(id, same);
            any |= same;
        }
        if bool::from(main) {
            Some(Caller::Main)
        } else if bool::from(any) {
            Some(Caller::Lease(lease))
        } else {
            None
        }
    }
}

fn digest(token: &[u8]) -> Token {
    Sha256::digest(token).into()
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

/// Refuses what a web page can send, whatever token it bears. A name that is made to point at this machine (DNS rebinding) shows in `Host`;
/// a page of another origin shows in `Origin` or `Sec-Fetch-Site`, and its preflights are never answered.
pub(crate) fn refuse_browsers(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let refused = |message: &str| Err(ApiError::new(403, "permission_error", message));
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() || !host.is_some_and(is_loopback) {
        return refused("Host: only 127.0.0.1, localhost and [::1] are served");
    }
    if uri
        .authority()
        .is_some_and(|authority| !is_loopback(authority.as_str()))
    {
        return refused("only 127.0.0.1, localhost and [::1] are served");
    }
    if headers.contains_key(header::ORIGIN)
        || headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    {
        return refused("web pages are not served");
    }
    if headers
        .get("sec-fetch-site")
        .is_some_and(|site| site != "none" && site != "same-origin")
    {
        return refused("web pages are not served");
    }
    Ok(())
}

/// Whether a `Host` names this machine itself: one of three names, and a port or none.
fn is_loopback(host: &str) -> bool {
    ["127.0.0.1", "localhost", "[::1]"].iter().any(|name| {
        host.get(..name.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(name))
            && match host[name.len()..].strip_prefix(':') {
                Some(port) => port.parse::<u16>().is_ok() && !port.starts_with('+'),
                None => host.len() == name.len(),
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn each_token_says_whose_it_is_until_it_is_revoked() {
        let access = Access::new(&Secret::new("main"));
        let first = access.grant(1).expect("random");
        let second = access.grant(2).expect("random");
        let check = |token: &str| access.check(&headers(&[("x-api-key", token)]));
        assert_eq!(check("main"), Some(Caller::Main));
        assert_eq!(check(first.expose()), Some(Caller::Lease(1)));
        assert_eq!(check(second.expose()), Some(Caller::Lease(2)));
        access.revoke(1);
        assert_eq!(check(first.expose()), None);
        assert_eq!(check(second.expose()), Some(Caller::Lease(2)));
        let again = access.grant(2).expect("random");
        assert_eq!(check(second.expose()), None);
        assert_eq!(check(again.expose()), Some(Caller::Lease(2)));
    }

    #[test]
    fn a_search_service_belongs_to_its_lease() {
        let access = Access::new(&Secret::new("main"));
        let backend = |url: &str| Backend::named(url, |_| unreachable!()).expect("a service");
        let host = |caller| {
            let backend = access.search_backend(caller);
            backend.map(|backend| backend.host().to_owned())
        };
        access.allow_search(1, backend("http://one.example"), false);
        access.allow_search(2, backend("http://two.example"), true);
        assert_eq!(host(Caller::Lease(1)).as_deref(), Some("one.example"));
        assert_eq!(host(Caller::Lease(2)).as_deref(), Some("two.example"));
        assert_eq!(host(Caller::Lease(3)), None);
        assert_eq!(host(Caller::Main).as_deref(), Some("two.example"));
        access.revoke(2);
        assert_eq!((host(Caller::Lease(2)), host(Caller::Main)), (None, None));
        assert_eq!(host(Caller::Lease(1)).as_deref(), Some("one.example"));
    }

    #[test]
    fn tokens_are_taken_from_two_headers_and_nothing_near_them() {
        let access = Access::new(&Secret::new("secret"));
        let check = |pairs: &[(&'static str, &str)]| access.check(&headers(pairs)).is_some();
        assert!(check(&[("authorization", "Bearer secret")]));
        assert!(check(&[("authorization", "bearer  secret ")]));
        assert!(check(&[("x-api-key", "secret")]));
        assert!(check(&[
            ("authorization", "Bearer other"),
            ("x-api-key", "secret")
        ]));
        assert!(check(&[("x-api-key", "other"), ("x-api-key", "secret")]));
        for wrong in [
            &[][..],
            &[("authorization", "secret")],
            &[("authorization", "Basic secret")],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer ")],
            &[("authorization", "Bearer secre")],
            &[("authorization", "Bearer secrets")],
            &[("authorization", "Bearer SECRET")],
            &[("x-api-key", "")],
            &[("x-api-key", "Bearer secret")],
            &[("cookie", "x-api-key=secret")],
            &[("proxy-authorization", "Bearer secret")],
        ] {
            assert!(!check(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn only_this_machines_own_names_are_served() {
        let check = |host: &str| {
            refuse_browsers(&Uri::from_static("/"), &headers(&[("host", host)])).is_ok()
        };
        for good in [
            "127.0.0.1",
            "127.0.0.1:8000",
            "localhost:1",
            "LOCALHOST",
            "[::1]",
            "[::1]:65535",
        ] {
            assert!(check(good), "{good}");
        }
        for wrong in [
            "",
            "evil.example",
            "evil.example:8000",
            "127.0.0.1.evil.example",
            "127.0.0.1:8000.evil.example",
            "localhost.evil.example",
            "localhost.",
            "localhost:",
            "localhost:x",
            "localhost:+1",
            "localhost:65536",
            "user@127.0.0.1",
            "127.0.0.1@evil.example",
            "127.0.0.2",
            "0.0.0.0",
            "127.1",
            "2130706433",
            "::1",
            "[::1",
            "[::]",
            "[::1]evil",
        ] {
            assert!(!check(wrong), "{wrong}");
        }
    }

    #[test]
    fn what_a_web_page_sends_is_refused() {
        let root = Uri::from_static("/");
        let check = |uri: &Uri, pairs: &[(&'static str, &str)]| {
            refuse_browsers(uri, &headers(pairs)).is_ok()
        };
        let host = ("host", "127.0.0.1:1");
        assert!(check(&root, &[host]));
        assert!(check(&root, &[host, ("sec-fetch-mode", "cors")]));
        assert!(check(&root, &[host, ("sec-fetch-site", "none")]));
        for wrong in [
            &[][..],
            &[host, host],
            &[host, ("host", "evil.example")],
            &[host, ("origin", "http://evil.example")],
            &[host, ("origin", "null")],
            &[host, ("origin", "http://127.0.0.1:1")],
            &[host, ("access-control-request-method", "POST")],
            &[host, ("sec-fetch-site", "cross-site")],
            &[host, ("sec-fetch-site", "same-site")],
        ] {
            assert!(!check(&root, wrong), "{wrong:?}");
        }
        let absolute = Uri::from_static("http://evil.example/v1/messages");
        assert!(!check(&absolute, &[host]));
    }
}
