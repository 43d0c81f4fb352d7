"""
Strategic merges of pods, as the API server does them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._frozen import thaw
from ..._refusal import refuse

# What the items of a list are told apart by, by the name of the list; a list that is not here is replaced as a whole.
_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "schedulingGates": "name",
    "resourceClaims": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
}
_DIRECTIVE, _RETAIN = "$patch", "$retainKeys"


def patched(template: dict[str, Any], patch: Mapping[str, Any], container: str) -> dict[str, Any]:
    """
    A pod template with a patch merged into it.

    Args:
        template: The template.

        patch: Its ``metadata`` and ``spec``; a value of None takes away what is there, and so does ``{"$patch": "delete"}``.

        container: The name of the container that the patch calls ``"*"``, or does not name.

    Raises:
        InvalidJobError: An item of a list has nothing that it is told from the others by.
    """
    given = thaw(patch)
    for each in given.get("spec", {}).get("containers") or []:
        if isinstance(each, dict) and each.get("name", "*") == "*":
            each["name"] = container
    return _merge_mapping(template, given, "kubernetes.pod_patch")


def _merge(base: Any, patch: Any, where: str, name: str) -> Any:
    if isinstance(patch, dict):
        return _merge_mapping(base if isinstance(base, dict) else {}, patch, where)
    if isinstance(patch, list) and name in _KEYS:
        return _merge_list(base if isinstance(base, list) else [], patch, _KEYS[name], where)
    return patch


def _merge_mapping(base: dict[str, Any], patch: dict[str, Any], where: str) -> dict[str, Any]:
    directive = patch.pop(_DIRECTIVE, None)
    if directive not in (None, "replace", "merge", "delete"):
        raise refuse(f"{where}[{_DIRECTIVE!r}]", directive, "write 'merge', 'replace' or 'delete'.")
    if directive == "delete":
        return {}
    retained = patch.pop(_RETAIN, None)
    merged = {} if directive == "replace" else dict(base)
    if retained is not None:
        merged = {name: value for name, value in merged.items() if name in retained}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value, f"{where}.{name}", name)
    return merged


def _merge_list(base: list[Any], patch: list[Any], key: str, where: str) -> list[Any]:
    if {_DIRECTIVE: "replace"} in patch:
        base = []
        patch = [item for item in patch if item != {_DIRECTIVE: "replace"}]
    merged = list(base)
    for place, item in enumerate(patch):
        if not isinstance(item, dict) or item.get(key) is None:
            raise refuse(f"{where}[{place}]", item, f"write a mapping with {key!r}, by which the items of this list are told apart.")
        found = next((at for at, old in enumerate(merged) if old.get(key) == item[key]), None)
        if item.get(_DIRECTIVE) == "delete":
            merged = [old for old in merged if old.get(key) != item[key]]
        elif found is None:
            merged.append(_merge_mapping({}, item, f"{where}[{place}]"))
        else:
            merged[found] = _merge_mapping(merged[found], item, f"{where}[{place}]")
    return merged
