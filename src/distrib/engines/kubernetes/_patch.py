"""
Strategic merges of pods, as the API server does them, and what they have to leave as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._frozen import thaw
from ..._refusal import refuse
from ._bootstrap import CALL_VOLUME, MOUNT, RESERVED
from ._labels import RESERVED_LABELS, RESERVED_PREFIXES

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
#: The item of a list that says that the others are all there is.
_ANEW = {_DIRECTIVE: "replace"}
_WHERE = "kubernetes.pod_patch"

#: What a patch leaves alone, and how else it is said: of the pod,
_OURS_IN_PODS = {
    "restartPolicy": "write restart_policy= for the role.",
    "hostname": "it is how the replicas find each other; leave it out.",
    "subdomain": "it is how the replicas find each other; leave it out.",
}
#: and of the container that trains.
_OURS_IN_CONTAINERS = {
    "command": "it is what calls the function; name another interpreter with kubernetes={'python': …}.",
    "args": "the command that calls the function takes none; leave them out.",
    "terminationMessagePath": "it is where the function's value goes; leave it out.",
}


def patched(template: dict[str, Any], patch: Mapping[str, Any], container: str) -> dict[str, Any]:
    """
    A pod template with a patch merged into it.

    Args:
        template: The template.

        patch: Its ``metadata`` and ``spec``; a value of None takes away what is there, and so does ``{"$patch": "delete"}``.

        container: The name of the container that the patch calls ``"*"``, or does not name.

    Raises:
        InvalidJobError: An item of a list has nothing that it is told from the others by; or the patch takes away what a run needs.
    """
    given = thaw(patch)
    containers = given.get("spec", {}).get("containers")
    for each in containers if isinstance(containers, list) else ():
        if isinstance(each, dict) and each != _ANEW and each.get("name", "*") == "*":
            each["name"] = container
    merged = _merge_mapping(template, given, _WHERE)
    _check(template, merged, container)
    return merged


def _check(before: dict[str, Any], after: dict[str, Any], container: str) -> None:
    """
    Refuse a patch after which Kubernetes would start the pods, and the run would never end.
    """
    spec = after.get("spec", {})
    _check_labels(before["metadata"]["labels"], after.get("metadata", {}).get("labels", {}))
    _check_kept(f"{_WHERE}.spec", before["spec"], spec, _OURS_IN_PODS)
    main, own = _item(spec, "containers", container), _item(before["spec"], "containers", container)
    if main is None or own is None:
        raise refuse(f"{_WHERE}.spec.containers", container, "this container calls the function; leave it in.")
    where = f"{_WHERE}.spec.containers[{container!r}]"
    _check_kept(where, own, main, _OURS_IN_CONTAINERS)
    for name in RESERVED:
        if _item(own, "env", name) != _item(main, "env", name):
            raise refuse(f"{where}.env[{name!r}]", name, "the Kubernetes engine sets this variable for each replica; leave it alone.")
    if _item(own, "volumeMounts", MOUNT) != _item(main, "volumeMounts", MOUNT):
        raise refuse(f"{where}.volumeMounts", MOUNT, "this is where the function is looked for; leave it alone.")
    if _item(before["spec"], "volumes", CALL_VOLUME) != _item(spec, "volumes", CALL_VOLUME):
        raise refuse(f"{_WHERE}.spec.volumes", CALL_VOLUME, "this volume has the function; give yours another name.")
    _check_images(spec)


def _check_images(spec: Mapping[str, Any]) -> None:
    for kind in ("initContainers", "containers"):
        for each in spec.get(kind) or ():
            if not each.get("image"):
                raise refuse(f"{_WHERE}.spec.{kind}[{each['name']!r}].image", None, "a container needs an image; name one.")


def _check_kept(where: str, before: Mapping[str, Any], after: Mapping[str, Any], ours: Mapping[str, str]) -> None:
    for field, remedy in ours.items():
        if before.get(field) != after.get(field):
            raise refuse(f"{where}.{field}", after.get(field), remedy)


def _check_labels(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    for name in {**before, **after}:
        is_theirs = name.startswith(RESERVED_PREFIXES) or name in RESERVED_LABELS
        if is_theirs and before.get(name) != after.get(name):
            why = "this label is set by whoever looks after the pods; use another one."
            raise refuse(f"{_WHERE}.metadata.labels[{name!r}]", after.get(name), why)


def _item(owner: Mapping[str, Any], items: str, name: str) -> dict[str, Any] | None:
    """
    The item of a list that is called so.
    """
    return next((each for each in owner.get(items) or () if each.get(_KEYS[items]) == name), None)


def _merge(base: Any, patch: Any, where: str, name: str) -> Any:
    if name in _KEYS and not isinstance(patch, list):
        raise refuse(where, patch, "write a list.")
    if isinstance(base, dict) and not isinstance(patch, dict):
        raise refuse(where, patch, "write a mapping.")
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
    if not isinstance(retained, (list, type(None))):
        raise refuse(f"{where}[{_RETAIN!r}]", retained, "write the names of the fields to keep, in a list.")
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
    if _ANEW in patch:
        base = []
        patch = [item for item in patch if item != _ANEW]
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
