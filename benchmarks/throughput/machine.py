"""What the figures were measured with: the Python and the machine."""

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.throughput.processes import CORES

ASKED = """
import json, platform, sys, sysconfig
print(json.dumps({
    "version": platform.python_version(),
    "implementation": platform.python_implementation(),
    "compiler": platform.python_compiler(),
    "prefix": sys.base_prefix,
    "config_args": sysconfig.get_config_var("CONFIG_ARGS") or "",
}))
"""
DISTRIBUTION = "/usr"


@dataclass(frozen=True, slots=True)
class PythonBuild:
    """The build of a Python interpreter.

    `pgo`: "yes" or "no" by `--enable-optimizations` in CONFIG_ARGS; "unknown" for a distribution's
    Python without that option, because Debian's rules run `make profile-opt` instead.
    """

    version: str
    implementation: str
    compiler: str
    pgo: str
    config_args: str


def python_build(python: str) -> PythonBuild:
    """Return the build of an interpreter, asked from itself."""
    told = json.loads(subprocess.check_output([python, "-c", ASKED], text=True))
    pgo = pgo_of(told["config_args"], told.pop("prefix"))
    return PythonBuild(**told, pgo=pgo)


def pgo_of(config_args: str, prefix: str) -> str:
    """Return whether a Python was built with profile-guided optimization; see PythonBuild."""
    if "--enable-optimizations" in config_args:
        return "yes"
    return "unknown" if prefix == DISTRIBUTION else "no"


def machine() -> dict[str, object]:
    """Return the machine: its processor, cores, kernel, and the programs that are compared."""
    info = Path("/proc/cpuinfo").read_text()
    model = [line.partition(": ")[2] for line in info.splitlines() if "model name" in line]
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True)
    return {
        "processor": model[0] if model else platform.machine(),
        "cores": len(CORES),
        "kernel": platform.release(),
        "nginx": nginx.stderr.strip().rpartition("/")[2],
        "load_average": os.getloadavg()[0],
    }
