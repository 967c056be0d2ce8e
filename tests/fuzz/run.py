"""Fuzzes one target, guided by what of our code the bytes reach.

    python -m tests.fuzz.run TARGET [--into=FOLDER] [-max_total_time=60] [options of libFuzzer]

It begins with the seeds and with what earlier runs have found (`tests/fuzz/corpus/TARGET`). An
input that breaks the target is written to ./crash-*, and the exit code is not 0. Inputs that reach
new code are written into FOLDER. `scripts/fuzz` runs all targets.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["backends", "gateway"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS

from tests.fuzz.seeds import CORPUS, seeds

INTO = "--into="


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"{__doc__}\ntargets: {', '.join(TARGETS)}")
    name, *given = sys.argv[1:]
    options = [option for option in given if not option.startswith(INTO)]
    into = [option.removeprefix(INTO) for option in given if option.startswith(INTO)]
    with tempfile.TemporaryDirectory() as folder:
        new, begun, known = Path(folder) / "new", Path(folder) / "seeds", CORPUS / name
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
