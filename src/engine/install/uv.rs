//! Finds uv, or fetches it: its wheel from the package index, the very one whose hash is written here.

use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::lock::sha256;
use super::tool::Tools;
use crate::error::{Context, Error, Exit, Result};
use crate::sys::environment::Environment;
use crate::sys::files;
use crate::sys::network;
use crate::sys::paths::Paths;
use crate::sys::process;

/// The version that is fetched when there is none.
const VERSION: &str = "0.13.9";

/// uv's wheel for the system that this program was built for: its name and its SHA-256. Source: the package index's page of uv 0.13.9.
const WHEEL: (&str, &str) = if cfg!(target_os = "macos") {
    (
        "uv-0.13.9-py3-none-macosx_11_0_arm64.whl",
        "66c512266d633bef48384a1f53003f41f2a8e7b36fe6e7fbfd3e0fd52d96fa63",
    )
} else if cfg!(target_arch = "aarch64") {
    (
        "uv-0.13.9-py3-none-manylinux_2_28_aarch64.whl",
        "ecb6028d79dc96fbeafffe5c8af62a7099487ebc05a701e76714eebcffd06375",
    )
} else {
    (
        "uv-0.13.9-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
    )
};

/// The index that pip and uv use when nothing else is set.
const PUBLIC_INDEX: &str = "https://pypi.org/simple";

/// Nothing arriving for so long counts as a broken connection.
const SILENCE: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(20);

/// The longest file of certificates, in bytes: a system's whole bundle takes some hundred kilobytes.
const CERTIFICATES: u64 = 16 << 20;

/// The longest page of the index, in bytes. uv's lists some thousand files in a few megabytes.
const PAGE: usize = 64 << 20;

/// The longest wheel, and the longest executable in it, in bytes. Those of 0.13.9 take 25 and 60 MB.
const LONGEST_WHEEL: usize = 256 << 20;

/// A uv that works: on PATH, where its installer puts it, or fetched by us before.
pub fn find(host: &Environment, paths: &Paths, tools: &mut Tools<'_>) -> Option<PathBuf> {
    let installers = [".local/bin/uv", ".cargo/bin/uv"].map(|path| host.home.join(path));
    let candidates = host
        .which("uv")
        .into_iter()
        .chain(installers)
        .chain([fetched(paths)]);
    for candidate in candidates.filter(|path| path.is_file()) {
        let mut command = Command::new(&candidate);
        command.arg("--version").env_clear().envs(tools.env());
        match process::run(&mut command, DEADLINE) {
            Ok(finished) if finished.success && finished.stdout.starts_with("uv ") => {
                tools.say(&format!(
                    "{}: {}",
                    candidate.display(),
                    finished.stdout.trim()
                ));
                return Some(candidate);
            }
            // Such as a shim of a version manager that has no uv for the version selected.
            _ => tools.say(&format!("{}: does not run", candidate.display())),
        }
    }
    None
}

fn fetched(paths: &Paths) -> PathBuf {
    paths.engine().join(format!("uv/uv-{VERSION}"))
}

/// Fetches uv into the engine's folder.
pub fn fetch(paths: &Paths, tools: &mut Tools<'_>) -> Result<PathBuf> {
    let index = ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"]
        .iter()
        .find_map(|name| tools.env().get(std::ffi::OsStr::new(name)))
        .and_then(|value| value.to_str())
        // `name=url`, as uv allows.
        .map(|value| {
            value
                .split_once("=http")
                .map_or(value.to_owned(), |(_, rest)| format!("http{rest}"))
        })
        .filter(|value| !value.trim().is_empty())
        .unwrap_or_else(|| PUBLIC_INDEX.to_owned());
    let certificate = tools
        .env()
        .get(std::ffi::OsStr::new("PIP_CERT"))
        .map(PathBuf::from);
    // A runtime of its own on a thread of its own: the caller may be inside one already.
    let wheel = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                crate::sys::process::runtime()
                    .map_err(|error| error.to_string())?
                    .block_on(download(&index, certificate.as_deref()))
            })
            .join()
            .unwrap_or_else(|_| Err("the download stopped unexpectedly".into()))
    })
    .map_err(|cause| {
        Error::new(Exit::EngineMissing, "uv could not be fetched")
            .cause(cause)
            .hint("connect to the network, or install uv or Python 3.12 yourself, then run `cclocal setup` again")
    })?;
    let failed = "uv could not be unpacked";
    if sha256(&wheel) != WHEEL.1 {
        return Err(Error::new(Exit::EngineMissing, "uv could not be fetched")
            .cause(format!("the file {} is not the one that this cclocal knows (its hash differs)", WHEEL.0))
            .hint("your package index serves a changed file: install uv or Python 3.12 yourself, then run `cclocal setup` again"));
    }
    let executable = unpack(&wheel)
        .map_err(anyhow::Error::msg)
        .context(Exit::EngineMissing, failed)?;
    let place = fetched(paths);
    place_executable(&place, &executable).context(Exit::EngineMissing, failed)?;
    tools.say(&format!("fetched {}", WHEEL.0));
    Ok(place)
}

async fn download(index: &str, certificate: Option<&Path>) -> std::result::Result<Vec<u8>, String> {
    let mut client = network::http()
        .user_agent(concat!("cclocal/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(30))
        .read_timeout(SILENCE);
    if let Some(pem) = certificate.and_then(|path| files::read(path, CERTIFICATES).ok()) {
        for certificate in reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default() {
            client = client.add_root_certificate(certificate);
        }
    }
    let client = client.build().map_err(words)?;
    let page_url = reqwest::Url::parse(&format!("{}/uv/", index.trim_end_matches('/')))
        .map_err(|_| "the package index's address is not a URL".to_owned())?;
    let page = client
        .get(page_url)
        .header("Accept", "text/html")
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(words)?;
    let base = page.url().clone();
    let text = String::from_utf8_lossy(&body(page, PAGE).await?).into_owned();
    let link =
        link(&text, WHEEL.0).ok_or_else(|| format!("the package index has no {}", WHEEL.0))?;
    let url = base
        .join(&link)
        .map_err(|_| "the package index's link is not a URL".to_owned())?;
    let answer = client
        .get(url)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(words)?;
    body(answer, LONGEST_WHEEL).await
}

/// The chain of an error as one sentence, without the address: it may hold a password.
fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// An answer of at most so many bytes.
async fn body(mut answer: reqwest::Response, limit: usize) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(words)? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > limit {
            return Err(format!("its answer is longer than {limit} bytes"));
        }
    }
    Ok(bytes)
}

/// The link to a file on an index's page, without the fragment.
fn link(page: &str, file: &str) -> Option<String> {
    page.split("href=")
        .skip(1)
        .filter_map(|rest| {
            let quote = rest
                .chars()
                .next()
                .filter(|quote| matches!(quote, '"' | '\''))?;
            rest[1..].split(quote).next()
        })
        .map(|link| link.split('#').next().unwrap_or(link).replace("&amp;", "&"))
        .find(|link| {
            link.split('?')
                .next()
                .and_then(|path| path.rsplit('/').next())
                .is_some_and(|name| name.replace("%2B", "+") == file)
        })
}

/// The executable in the wheel, which is a zip file.
fn unpack(wheel: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let mut archive =
        zip::ZipArchive::new(std::io::Cursor::new(wheel)).map_err(|error| error.to_string())?;
    let name = format!("uv-{VERSION}.data/scripts/uv");
    let file = archive
        .by_name(&name)
        .map_err(|error| format!("{name}: {error}"))?;
    let mut bytes = Vec::new();
    file.take(LONGEST_WHEEL as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn place_executable(place: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = place.parent().unwrap_or(Path::new("."));
    files::private_folder(folder)?;
    let fresh = folder.join(".new");
    let _ = std::fs::remove_file(&fresh);
    {
        let mut file = std::fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o700)
            .open(&fresh)?;
        std::io::Write::write_all(&mut file, bytes)?;
    }
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o700))?;
    std::fs::rename(&fresh, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_found_on_a_page() {
        let page = r#"<a href="../../packages/a1/uv-0.1-py3-none-any.whl#sha256=00" data-x="1">uv-0.1-py3-none-any.whl</a>
            <a href='https://files.example/uv-0.2-py3-none-any.whl#sha256=11'>uv-0.2-py3-none-any.whl</a>"#;
        assert_eq!(
            link(page, "uv-0.1-py3-none-any.whl").as_deref(),
            Some("../../packages/a1/uv-0.1-py3-none-any.whl")
        );
        assert_eq!(
            link(page, "uv-0.2-py3-none-any.whl").as_deref(),
            Some("https://files.example/uv-0.2-py3-none-any.whl")
        );
        assert_eq!(link(page, "uv-0.3-py3-none-any.whl"), None);
    }

    #[test]
    fn the_wheel_is_of_the_version() {
        assert!(WHEEL.0.starts_with(&format!("uv-{VERSION}-py3-none-")));
        assert_eq!(WHEEL.1.len(), 64);
    }
}
