"""Kubernetes objects as kubectl and Helm make them of what is shipped, and their validation."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"

VERSIONS = ("1.30", "1.37")
"""The oldest version that the objects work with, and the newest with schemas in the lock."""

CUSTOM = {"ScaledObject": ScaledObject, "PrometheusRule": PrometheusRule}
CUSTOM |= {"ServiceMonitor": ServiceMonitor}

Object = dict[str, Any]
Objects = dict[tuple[str, str], Object]
"""Objects by kind and name."""


def by_name(documents: str) -> Objects:
    """Return the objects of a YAML stream."""
    found = [one for one in yaml.safe_load_all(documents) if one is not None]
    objects = {(one["kind"], one["metadata"]["name"]): one for one in found}
    assert len(objects) == len(found), "two objects have one kind and name"
    return objects


@functools.cache
def kustomized(folder: Path) -> Objects:
    """Return what `kubectl kustomize` makes of a folder."""
    program = Path(sys.executable).with_name("kubectl")
    command = [program if program.exists() else "kubectl", "kustomize", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return by_name(done.stdout)


def with_components(folder: Path, overlay: str, *components: str) -> Objects:
    """Return an overlay with further components, as a user adds them in an overlay of one's own."""
    parts = {
        "resources": [KUBERNETES / "overlays" / overlay],
        "components": [KUBERNETES / "components" / name for name in components],
    }
    relative = {
        key: [os.path.relpath(path, folder.resolve()) for path in paths]
        for key, paths in parts.items()
    }
    kind = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kind | relative))
    return kustomized(folder)


def leaves(value: Any, path: str = "") -> set[tuple[str, str]]:
    """Return the (path, value) of all that is neither a table nor a list."""
    if isinstance(value, dict):
        return {leaf for key in value for leaf in leaves(value[key], f"{path}.{key}")}
    if isinstance(value, list):
        return {leaf for at, inner in enumerate(value) for leaf in leaves(inner, f"{path}.{at}")}
    return {(path, repr(value))}


def validate(one: Object) -> None:
    """Raise if an object has a key or a value that its API does not know."""
    model = CUSTOM.get(one["kind"])
    if model is None:
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as exc:
                raise AssertionError(exc.message) from None  # its own text is empty
        return
    # These models drop what they do not know, so it is missing when the object is written again.
    again = model.model_validate(one).model_dump(mode="json", by_alias=True, exclude_unset=True)
    if again != one:
        raise AssertionError(f"not as {one['kind']} has it: {leaves(one) ^ leaves(again)}")
