//! The packages of an engine's environment, compared with the lock. Reads names of folders and runs nothing.

use std::collections::BTreeMap;
use std::path::Path;

use super::lock;

/// Packages of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packages {
    /// The engine's version. None: it is not there.
    pub engine: Option<String>,
    /// How many packages the lock has.
    pub locked: usize,
    /// Differences from the lock, in words.
    pub different: Vec<String>,
}

/// The packages in the environment of this Python. None: there is no such environment that can be read.
pub fn packages(python: &Path) -> Option<Packages> {
    let lib = python.parent()?.parent()?.join("lib");
    let site = std::fs::read_dir(lib)
        .ok()?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .map(|entry| entry.path().join("site-packages"))
        .find(|folder| folder.is_dir())?;
    let names = std::fs::read_dir(site).ok()?.flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    Some(compared(&installed(names), lock::pins()))
}

/// Names and versions, as the folders `NAME-VERSION.dist-info` have them. Source: the core metadata specification of Python's packages.
fn installed(names: impl Iterator<Item = String>) -> BTreeMap<String, String> {
    let packages = names.filter_map(|name| {
        let (name, version) = name.strip_suffix(".dist-info")?.split_once('-')?;
        Some((normal(name), version.to_owned()))
    });
    packages.collect()
}

/// A package's name as all spellings of it are compared: `mlx_lm` and `MLX.LM` are `mlx-lm`.
fn normal(name: &str) -> String {
    name.to_lowercase().replace(['_', '.'], "-")
}

fn compared<'a>(
    installed: &BTreeMap<String, String>,
    pins: impl Iterator<Item = (&'a str, &'a str)>,
) -> Packages {
    let mut locked = 0;
    let mut different = Vec::new();
    for (name, wanted) in pins {
        locked += 1;
        match installed.get(&normal(name)) {
            Some(version) if version == wanted => {}
            Some(version) => different.push(format!("{name} is {version}, not {wanted}")),
            None => different.push(format!("{name} {wanted} is missing")),
        }
    }
    Packages {
        engine: installed.get("vllm-mlx").cloned(),
        locked,
        different,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_in_any_spelling() {
        let names = [
            "mlx_lm-0.31.3.dist-info",
            "vllm_mlx-0.6.0.dist-info",
            "mlx-0.30.0.dist-info",
            "mlx",
            "extra-1.dist-info",
        ];
        let installed = installed(names.iter().map(|name| (*name).to_owned()));
        let pins = [
            ("mlx-lm", "0.31.3"),
            ("vllm-mlx", "0.6.0"),
            ("mlx", "0.32.4"),
            ("tqdm", "4.70.1"),
        ];
        assert_eq!(
            compared(&installed, pins.into_iter()),
            Packages {
                engine: Some("0.6.0".into()),
                locked: 4,
                different: vec![
                    "mlx is 0.30.0, not 0.32.4".into(),
                    "tqdm 4.70.1 is missing".into()
                ],
            }
        );
        assert_eq!(packages(Path::new("/nonexistent/bin/python")), None);
    }
}
