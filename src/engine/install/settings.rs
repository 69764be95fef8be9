//! The environment that uv runs in: what users set for uv, and what they set for pip in uv's words.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::env_vars;
use crate::sys::environment::Environment;
use crate::sys::files;

/// The variables of a process, by name.
pub(super) type Variables = BTreeMap<OsString, OsString>;

/// uv's settings that are passed on: where packages come from, and how they are fetched. Those that change what is installed, or where
/// (`UV_PYTHON`, `UV_EXCLUDE_NEWER`, `PIP_TARGET`, …), are not.
const PASSED_ON: &str = "NETRC SSL_CLIENT_CERT UV_INDEX UV_DEFAULT_INDEX UV_INDEX_URL UV_EXTRA_INDEX_URL \
    UV_FIND_LINKS UV_INDEX_STRATEGY UV_KEYRING_PROVIDER UV_INSECURE_HOST UV_NATIVE_TLS \
    UV_SYSTEM_CERTS UV_HTTP_TIMEOUT UV_REQUEST_TIMEOUT UV_HTTP_RETRIES \
    UV_HTTP_CONNECT_TIMEOUT UV_OFFLINE UV_CACHE_DIR UV_NO_CACHE UV_LINK_MODE UV_CONFIG_FILE \
    UV_NO_CONFIG UV_PYTHON_INSTALL_DIR UV_PYTHON_INSTALL_MIRROR UV_PYTHON_DOWNLOADS \
    UV_PYTHON_CACHE_DIR UV_CONCURRENT_DOWNLOADS UV_CONCURRENT_INSTALLS";

/// Any of these means that the user told uv itself where packages come from.
const UV_INDEXES: [&str; 3] = ["UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL"];

/// pip's settings of where packages come from, and uv's for the same.
const PIP_INDEXES: &[(&str, &str)] = &[
    ("index-url", "UV_INDEX_URL"),
    ("extra-index-url", "UV_EXTRA_INDEX_URL"),
];

/// The same if pip is to use no index: uv has no variable for that, but offline it installs from folders too.
const PIP_FOLDERS: &[(&str, &str)] = &[(NO_INDEX, "UV_OFFLINE"), (FIND_LINKS, "UV_FIND_LINKS")];
const NO_INDEX: &str = "no-index";
const FIND_LINKS: &str = "find-links";

/// pip's settings of how they are fetched.
const PIP_CONNECTION: &[(&str, &str)] = &[
    ("cert", "SSL_CERT_FILE"),
    ("client-cert", "SSL_CLIENT_CERT"),
    ("trusted-host", "UV_INSECURE_HOST"),
    ("proxy", "ALL_PROXY"),
];

/// The environment for a uv of the user's own: uv's settings, and pip's that are variables. uv reads neither of pip's, but a mirror that
/// was set up for pip is meant for everything. Hashes are checked either way.
pub(super) fn variables(environment: &Environment) -> Variables {
    let mut env = env_vars::engine_env(environment);
    env.retain(|name, _| {
        name.to_str()
            .is_some_and(|name| !env_vars::is_hub_token(name) && !name.starts_with("LD_"))
    });
    let passed_on = environment.env.iter().filter(|(name, _)| {
        name.to_str().is_some_and(|name| {
            let credentials = name.ends_with("_USERNAME") || name.ends_with("_PASSWORD");
            PASSED_ON.split(' ').any(|setting| setting == name)
                || (name.starts_with("UV_INDEX_") && credentials)
        })
    });
    env.extend(passed_on.map(|(name, value)| (name.clone(), value.clone())));
    for name in ["PYTHONNOUSERSITE", "PYTHONUNBUFFERED", "NO_COLOR"] {
        env.insert(name.into(), "1".into());
    }
    add_pip_settings(&mut env, |name| {
        let name = format!("PIP_{}", name.to_uppercase().replace('-', "_"));
        environment.var(&name).map(str::to_owned)
    });
    env
}

/// Adds what pip's configuration files say. For a uv that cclocal fetched: one of the user's own has a configuration of its own.
pub(super) fn add_pip_files(env: &mut Variables, environment: &Environment) {
    let config = environment.var("XDG_CONFIG_HOME").map_or_else(
        || environment.home.join(".config"),
        |folder| environment.home.join(folder),
    );
    // In the order in which pip reads them; a later one wins. Source: pip's `get_configuration_files`.
    let mut files: Vec<PathBuf> = vec![
        "/etc/xdg/pip/pip.conf".into(),
        "/etc/pip.conf".into(),
        "/Library/Application Support/pip/pip.conf".into(),
        environment.home.join(".pip/pip.conf"),
        config.join("pip/pip.conf"),
        environment
            .home
            .join("Library/Application Support/pip/pip.conf"),
    ];
    match environment.var("PIP_CONFIG_FILE") {
        Some("/dev/null") => return,
        named => files.extend(named.map(|file| environment.resolve(file))),
    }
    let texts = files
        .iter()
        .filter_map(|file| files::read_text(file, files::SETTINGS).ok());
    let settings = pip_settings(&texts.collect::<Vec<_>>().join("\n"));
    add_pip_settings(env, |name| settings.get(name).cloned());
}

/// Adds pip's settings in uv's words, but for those that the user made for uv itself.
fn add_pip_settings(env: &mut Variables, pip: impl Fn(&str) -> Option<String>) {
    let told = UV_INDEXES
        .iter()
        .any(|name| env.contains_key(OsStr::new(name)));
    let no_index = pip(NO_INDEX).is_some_and(|value| is_on(&value));
    let places = match (told, no_index) {
        (true, _) => &[],
        (_, true) => PIP_FOLDERS,
        _ => PIP_INDEXES,
    };
    for (name, uv) in places.iter().chain(PIP_CONNECTION) {
        let Some(value) = pip(name).filter(|value| !value.trim().is_empty()) else {
            continue;
        };
        // pip separates several values by any white space.
        let separator = if *name == FIND_LINKS { "," } else { " " };
        let values: Vec<&str> = value.split_whitespace().collect();
        env.entry(uv.into())
            .or_insert(values.join(separator).into());
    }
}

/// True for the values that pip and uv take for yes.
pub(super) fn is_on(value: &str) -> bool {
    let value = value.trim().to_ascii_lowercase();
    ["1", "true", "yes", "on", "t", "y"].contains(&value.as_str())
}

/// The settings of pip's that apply to installing, from the text of its configuration files: later ones win, and `[install]` over `[global]`.
fn pip_settings(text: &str) -> BTreeMap<String, String> {
    let mut sections: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    let (mut section, mut key) = ("", String::new());
    for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
        let settings = sections.entry(section).or_default();
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split_once(']')) {
            (section, key) = (name.0, String::new());
        } else if line.starts_with(char::is_whitespace) {
            // A value that goes on.
            if let Some(value) = settings.get_mut(&key) {
                *value = format!("{value} {}", line.trim());
            }
        } else if let Some((name, value)) = line.split_once(['=', ':']) {
            key = name.trim().to_lowercase().replace('_', "-");
            settings.insert(key.clone(), value.trim().to_owned());
        }
    }
    let mut settings = sections.remove("global").unwrap_or_default();
    settings.extend(sections.remove("install").unwrap_or_default());
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The environment that these variables and this configuration file of pip's lead to, without what is always there.
    fn environment_of(vars: &[(&str, &str)], pip_conf: &str) -> Vec<String> {
        let mut env = variables(&Environment::for_tests(Path::new("/home/u"), vars));
        let settings = pip_settings(pip_conf);
        add_pip_settings(&mut env, |name| settings.get(name).cloned());
        let always = variables(&Environment::for_tests(Path::new("/home/u"), &[]));
        env.iter()
            .filter(|(name, _)| !always.contains_key(*name))
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .collect()
    }

    #[test]
    fn secrets_and_other_environments_stay_outside() {
        let vars = [
            ("PATH", "/bin"),
            ("PYTHONPATH", "/x"),
            ("VIRTUAL_ENV", "/x"),
            ("PIP_TARGET", "/x"),
            ("PIP_USER", "1"),
            ("UV_PYTHON", "3.9"),
            ("ANTHROPIC_API_KEY", "sk"),
            ("HF_TOKEN", "hf"),
            ("LD_LIBRARY_PATH", "/x"),
            ("UV_HTTP_TIMEOUT", "9"),
            ("UV_INDEX_CORP_PASSWORD", "p"),
            ("HTTPS_PROXY", "http://proxy"),
        ];
        assert_eq!(
            environment_of(&vars, ""),
            [
                "HTTPS_PROXY=http://proxy",
                "PATH=/bin",
                "UV_HTTP_TIMEOUT=9",
                "UV_INDEX_CORP_PASSWORD=p"
            ]
        );
    }

    #[test]
    fn settings_of_pip_count_unless_uv_has_its_own() {
        let mirror = ("PIP_INDEX_URL", "https://mirror/simple");
        let found = ("PIP_FIND_LINKS", "/one /two");
        for (vars, expected) in [
            (
                &[mirror, found][..],
                &["UV_INDEX_URL=https://mirror/simple"][..],
            ),
            (
                &[mirror, ("UV_INDEX", "https://own/simple")],
                &["UV_INDEX=https://own/simple"],
            ),
            (
                &[mirror, found, ("PIP_NO_INDEX", "1")],
                &["UV_FIND_LINKS=/one,/two", "UV_OFFLINE=1"],
            ),
            (
                &[
                    ("PIP_CERT", "/pip.pem"),
                    ("PIP_PROXY", "http://p:1"),
                    ("PIP_TRUSTED_HOST", "a  b"),
                ],
                &[
                    "ALL_PROXY=http://p:1",
                    "SSL_CERT_FILE=/pip.pem",
                    "UV_INSECURE_HOST=a b",
                ],
            ),
            (
                &[("PIP_CERT", "/pip.pem"), ("SSL_CERT_FILE", "/own.pem")],
                &["SSL_CERT_FILE=/own.pem"],
            ),
        ] {
            assert_eq!(environment_of(vars, ""), expected);
        }
    }

    #[test]
    fn configuration_files_of_pip_are_read() {
        let file = "[global]\n# no\nindex-url = https://mirror/simple\ntrusted_host =\n  a\n  b\n[list]\nproxy = p\n\
                    [install]\nindex-url: https://other/simple\n";
        assert_eq!(
            environment_of(&[], file),
            ["UV_INDEX_URL=https://other/simple", "UV_INSECURE_HOST=a b"]
        );
        let own = [("PIP_INDEX_URL", "https://own/simple")];
        assert_eq!(
            environment_of(&own, file),
            ["UV_INDEX_URL=https://own/simple", "UV_INSECURE_HOST=a b"]
        );
    }
}
