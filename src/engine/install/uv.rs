//! Finds uv, or fetches it: its wheel from the package index, the very one whose hash is written here.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{anyhow, ensure};
use reqwest::Url;

use super::lock::sha256;
use super::settings::{self, Variables};
use super::tool::Tools;
use crate::app::App;
use crate::error::{Context, Error, Exit, Result};
use crate::sys::platform::{Os, Platform};
use crate::sys::{files, network, process};

/// The oldest uv that is used, major and minor version: it knows every option that is passed here. Shown: 0.7.0 installs the engine.
const OLDEST: (u32, u32) = (0, 7);

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

/// The index that uv uses when nothing else is set.
const PUBLIC_INDEX: &str = "https://pypi.org/simple";

/// Nothing arriving for so long counts as a broken connection.
const SILENCE: Duration = Duration::from_secs(60);

/// The longest file of certificates, in bytes: a system's whole bundle takes some hundred kilobytes.
const CERTIFICATES: u64 = 16 << 20;

/// The longest page of the index, in bytes. uv's lists some thousand files in a few megabytes.
const PAGE: usize = 64 << 20;

/// The longest wheel, and the longest executable in it, in bytes. Those of 0.13.9 take 18 and 38 MB.
const LONGEST_WHEEL: usize = 256 << 20;

/// The Pythons that the engine's packages exist for, as uv names them: no PyPy, no free-threaded one, none of another architecture.
const PYTHONS: &str = "cpython->=3.11,<3.14";

/// Folders into which installers put Python on a Mac, on PATH or not.
const MAC_PYTHONS: [&str; 4] = [
    "/opt/homebrew/bin",
    "/Library/Frameworks/Python.framework/Versions/3.12/bin",
    "/Library/Frameworks/Python.framework/Versions/3.13/bin",
    "/Library/Frameworks/Python.framework/Versions/3.11/bin",
];

/// A uv that works: on PATH, where its installer puts it, fetched by us before, or fetched now.
pub(super) fn get(app: &App, tools: &mut Tools<'_>) -> Result<PathBuf> {
    let environment = &app.environment;
    let installers = [".local/bin/uv", ".cargo/bin/uv"].map(|path| environment.home.join(path));
    for own in environment.which("uv").into_iter().chain(installers) {
        if works(&own, tools) {
            return Ok(own);
        }
    }
    settings::add_pip_files(&mut tools.env, environment);
    let place = app.paths.engine().join(format!("uv/uv-{VERSION}"));
    if !works(&place, tools) {
        tools.step("fetching uv, which will install the engine");
        fetch(&place, tools)?;
    }
    Ok(place)
}

/// True for a uv that runs and is new enough. A shim of a version manager that has no uv for the version selected does not run.
fn works(uv: &Path, tools: &mut Tools<'_>) -> bool {
    let mut command = tools.command(uv);
    let answer = match uv.is_file() {
        true => tools.ask(command.arg("--version")),
        false => None,
    };
    answer.and_then(|answer| version(&answer)) >= Some(OLDEST)
}

/// `uv 0.13.9 (…)` as major and minor.
fn version(answer: &str) -> Option<(u32, u32)> {
    let mut parts = answer.strip_prefix("uv ")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// An installed Python that the engine can run on. One that is broken hides those behind it from uv, so it looks again without the first
/// folder of PATH, until there is none.
pub(super) fn find_python(
    uv: &Path,
    platform: &Platform,
    tools: &mut Tools<'_>,
) -> Option<PathBuf> {
    let mac = platform.os == Os::Macos;
    let request = match mac {
        true => format!("{PYTHONS}-macos-aarch64"),
        false => format!("{PYTHONS}-linux-{}", platform.arch),
    };
    let path = tools.env.get(OsStr::new("PATH")).cloned();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path.unwrap_or_default()).collect();
    if mac {
        folders.extend(MAC_PYTHONS.map(PathBuf::from));
        // Apple's own is too old, and without the developer tools asking it opens a window that offers them.
        let mut tools_are_there = tools.command(Path::new("/usr/bin/xcode-select"));
        if tools.ask(tools_are_there.arg("-p")).is_none() {
            folders.retain(|folder| folder != Path::new("/usr/bin"));
        }
    }
    (0..folders.len()).find_map(|first| {
        let mut command = tools.command(uv);
        command
            .args(["python", "find", "--no-project", "--system", &request])
            .env("PATH", std::env::join_paths(&folders[first..]).ok()?);
        tools.ask(&mut command).map(PathBuf::from)
    })
}

/// Fetches uv, compares it with its hash, and puts it into its place.
fn fetch(place: &Path, tools: &mut Tools<'_>) -> Result<()> {
    let failed = |remedy: &str| {
        Error::new(Exit::EngineMissing, "uv could not be fetched").hint(format!(
            "{remedy}, or install uv {}.{} or newer yourself, then run `cclocal setup` again",
            OLDEST.0, OLDEST.1
        ))
    };
    if variable(&tools.env, "UV_OFFLINE").is_some_and(settings::is_on) {
        let cause = "UV_OFFLINE is set, or pip's no-index";
        return Err(failed("unset it").cause(cause));
    }
    let wheel =
        download(&tools.env).map_err(|error| failed("connect to the network").because(error))?;
    if sha256(&wheel) != WHEEL.1 {
        let cause = format!(
            "the file {} is not the one that this cclocal knows (its hash differs)",
            WHEEL.0
        );
        return Err(failed("your package index serves a changed file: use another").cause(cause));
    }
    let unpacked = "uv could not be unpacked";
    let executable = unpack(&wheel).context(Exit::EngineMissing, unpacked)?;
    // An older cclocal's goes with its folder.
    let folder = place.parent().unwrap_or(Path::new("."));
    let _ = std::fs::remove_dir_all(folder);
    files::write_private(place, &executable)
        .and_then(|()| std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o700)))
        .context(Exit::EngineMissing, unpacked)?;
    tools.note(&format!("fetched {}", WHEEL.0));
    Ok(())
}

fn variable<'a>(env: &'a Variables, name: &str) -> Option<&'a str> {
    let value = env.get(OsStr::new(name))?.to_str()?;
    (!value.trim().is_empty()).then_some(value)
}

/// The wheel, from the index that is set.
fn download(env: &Variables) -> anyhow::Result<Vec<u8>> {
    let index = variable(env, "UV_DEFAULT_INDEX").or(variable(env, "UV_INDEX_URL"));
    let index = index.unwrap_or(PUBLIC_INDEX).trim_end_matches('/');
    // `name=url`, as uv allows.
    let url = match index.split_once("=http") {
        Some((_, rest)) => format!("http{rest}/uv/"),
        None => format!("{index}/uv/"),
    };
    // The address may hold a password, and is not shown.
    let url = Url::parse(&url).map_err(|_| anyhow!("the package index's address is not a URL"))?;
    let mut client = network::http()
        .user_agent(concat!("cclocal/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(30))
        .read_timeout(SILENCE);
    // reqwest reads the variables of this process, not what pip's setting has become.
    if let Some(path) = variable(env, "SSL_CERT_FILE")
        && let Ok(pem) = files::read(Path::new(path), CERTIFICATES)
    {
        for certificate in reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default() {
            client = client.add_root_certificate(certificate);
        }
    }
    let client = client.build()?;
    // A runtime of its own on a thread of its own: the caller may be inside one already.
    std::thread::scope(|scope| {
        let download = scope.spawn(|| process::runtime()?.block_on(wheel(&client, url)));
        let stopped = |_| Err(anyhow!("the download stopped unexpectedly"));
        download.join().unwrap_or_else(stopped)
    })
}

/// The wheel, by the link on the index's page of uv.
async fn wheel(client: &reqwest::Client, page: Url) -> anyhow::Result<Vec<u8>> {
    let ask = async |url, limit| {
        let request = client.get(url).header("Accept", "text/html, */*;q=0.1");
        let answer = request.send().await;
        let mut answer = answer
            .and_then(reqwest::Response::error_for_status)
            .map_err(reqwest::Error::without_url)?;
        let body = network::body(&mut answer, limit).await;
        let body = body.map_err(reqwest::Error::without_url)?;
        ensure!(!body.is_cut, "its answer is longer than {limit} bytes");
        anyhow::Ok((answer.url().clone(), body.bytes))
    };
    let (base, page) = ask(page, PAGE).await?;
    let link = link(&String::from_utf8_lossy(&page), WHEEL.0)
        .ok_or_else(|| anyhow!("the package index has no {}", WHEEL.0))?;
    let url = base
        .join(&link)
        .map_err(|_| anyhow!("the package index's link is not a URL"))?;
    Ok(ask(url, LONGEST_WHEEL).await?.1)
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
fn unpack(wheel: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(wheel))?;
    let name = format!("uv-{VERSION}.data/scripts/uv");
    let file = anyhow::Context::context(archive.by_name(&name), name.clone())?;
    let mut bytes = Vec::new();
    file.take(LONGEST_WHEEL as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
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
        assert_eq!(
            version("uv 0.13.9 (x86_64-unknown-linux-gnu)"),
            Some((0, 13))
        );
        assert_eq!(version("uv: command not found"), None);
    }
}
