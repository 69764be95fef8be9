//! HTTP clients and bodies, and the network of this process: in a container or a namespace, 127.0.0.1 is not the host's.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Once;

use reqwest::{Certificate, Response};

use super::files;

/// The longest file of certificates, in bytes. The system's own takes some hundred kilobytes.
const CERTIFICATES: u64 = 16 << 20;

/// The number of this process's network namespace. None: the system has none, and all processes share one network.
pub fn own() -> Option<u64> {
    std::fs::metadata("/proc/self/ns/net")
        .ok()
        .map(|namespace| namespace.ino())
}

/// Whether a program in that namespace can be reached from here. An unknown one is assumed to be.
pub fn is_shared(with: Option<u64>) -> bool {
    match (own(), with) {
        (Some(own), Some(with)) => own == with,
        _ => true,
    }
}

/// Builder of an HTTP client. It trusts the authorities that SSL_CERT_FILE and SSL_CERT_DIR name, in place of the system's: on a Mac its verifier would
/// not look at them.
pub fn http() -> reqwest::ClientBuilder {
    let own = own_authorities();
    match own.is_empty() {
        true => plain(),
        false => plain().tls_certs_only(own),
    }
}

/// The same for plain HTTP alone: no certificates are read for it, which on Linux takes longer than all else.
pub fn plain_http() -> reqwest::ClientBuilder {
    plain().tls_certs_only([])
}

/// Lets TLS compute with ring. No client can be built before.
pub fn choose_tls() {
    static CHOSEN: Once = Once::new();
    CHOSEN.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// The body of a response, as far as it was read.
pub struct Body {
    pub bytes: Vec<u8>,
    /// Whether it is longer than the limit.
    pub is_cut: bool,
}

/// Reads a body of at most `limit` bytes; the rest of a longer one is left.
pub async fn body(response: &mut Response, limit: usize) -> reqwest::Result<Body> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await? {
        let room = limit - bytes.len();
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            let is_cut = true;
            return Ok(Body { bytes, is_cut });
        }
    }
    let is_cut = false;
    Ok(Body { bytes, is_cut })
}

fn plain() -> reqwest::ClientBuilder {
    choose_tls();
    reqwest::Client::builder()
}

fn own_authorities() -> Vec<Certificate> {
    let folder = std::env::var_os("SSL_CERT_DIR").map(std::fs::read_dir);
    let in_folder = folder.into_iter().flatten().flatten().flatten();
    let file = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    file.into_iter()
        .chain(in_folder.map(|entry| entry.path()))
        .filter_map(|path| files::read(&path, CERTIFICATES).ok())
        .flat_map(|pem| Certificate::from_pem_bundle(&pem).unwrap_or_default())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_namespace_is_another_network() {
        assert!(is_shared(own()) && is_shared(None));
        if let Some(number) = own() {
            assert!(!is_shared(Some(number + 1)));
        }
    }
}
