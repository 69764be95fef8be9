#!/usr/bin/env python3
"""Fails if the start-up Python of the engine uses a name that none of its parts defines. They are run as one, so a name of another part is fine."""

import ast
import builtins
import re
import sys
from pathlib import Path

ENGINE = Path(__file__).resolve().parent.parent / "src/engine"


def defined(node):
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        return {node.id}
    if isinstance(node, ast.arg):
        return {node.arg}
    if isinstance(node, ast.ExceptHandler) and node.name:
        return {node.name}
    return set()


def main():
    parts = re.findall(r'include_str!\("(patches/\w+\.py)"\)', (ENGINE / "server.rs").read_text())
    trees = {part: ast.parse((ENGINE / part).read_text()) for part in parts}
    known = {*dir(builtins), "__file__", "__name__"}
    for tree in trees.values():
        for node in ast.walk(tree):
            known |= defined(node)
    unknown = [
        f"src/engine/{part}:{node.lineno}: {node.id} is not defined"
        for part, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in known
    ]
    print("\n".join(unknown) or f"{len(parts)} parts of the start-up Python: no undefined names")
    sys.exit(bool(unknown))


main()
