"""Fails if a dependency in Cargo.toml is named nowhere in the code that it is for. As `cargo machete` does, without minutes of compiling it."""

import json
import pathlib
import re
import subprocess
import sys

FOLDERS = {None: ["src"], "dev": ["src", "tests", "benches", ".ci"], "build": ["build.rs"]}


def code(folders):
    """All Rust below these folders, without comments of whole lines."""
    files = [file for folder in folders for file in pathlib.Path(folder).rglob("*.rs")]
    text = "\n".join(file.read_text() for file in files)
    return re.sub(r"^\s*//.*$", "", text, flags=re.M)


metadata = subprocess.run(
    ["cargo", "metadata", "--no-deps", "--format-version=1", "--locked"], check=True, stdout=subprocess.PIPE
)
package = json.loads(metadata.stdout)["packages"][0]
unused = []
for dependency in package["dependencies"]:
    name = (dependency["rename"] or dependency["name"]).replace("-", "_")
    if not re.search(rf"\b{name}\b(::|!|;)|\b{name} as\b", code(FOLDERS[dependency["kind"]])):
        unused.append(dependency["name"])
if unused:
    sys.exit(f"Cargo.toml names what nothing uses: {', '.join(unused)}")
