"""Fuzzes targets one after the other, guided by what of our code the bytes reach.

    python -m tests.fuzz.run TARGET... [--into=FOLDER] [-max_total_time=60] [options of libFuzzer]

Each begins with the seeds and with what earlier runs have found (`tests/fuzz/corpus/TARGET`). An
input that breaks a target is written to ./crash-*, and the exit code is not 0. Inputs that reach
new code are written into FOLDER. `scripts/fuzz` runs all targets.
"""

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import atheris

# Atheris compares the first part of a module's name only.
with atheris.instrument_imports(include=["tollway"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.seeds import CORPUS, seeds

INTO = "--into="


def main() -> None:
    given = sys.argv[1:]
    names = [one for one in given if one in TARGETS]
    if not names or given[: len(names)] != names:
        sys.exit(f"{__doc__}\ntargets: {', '.join(TARGETS)}")
    # libFuzzer ends its process, and loading instrumented modules takes seconds: so it forks.
    failed = [name for name in names if _forked(name, given[len(names) :])]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _forked(name: str, options: list[str]) -> int:
    """Fuzz a target in a process of its own; return its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"== {name}", file=sys.stderr, flush=True)
        process = os.fork()
        if not process:
            _fuzz(name, options, Path(folder))
            os._exit(1)  # not reached: libFuzzer ends the process
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _fuzz(name: str, given: list[str], folder: Path) -> None:
    options = [option for option in given if not option.startswith(INTO)]
    into = [option.removeprefix(INTO) for option in given if option.startswith(INTO)]
    new, begun, known = folder / "new", folder / "seeds", CORPUS / name
    for one in (new, begun):
        one.mkdir()
    for seed in seeds(name):
        (begun / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    folders = [*(into or [str(new)]), str(begun), *([str(known)] if known.is_dir() else [])]
    inputs = [option for option in options if not option.startswith("-")]
    atheris.Setup([sys.argv[0], *options, *([] if inputs else folders)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
