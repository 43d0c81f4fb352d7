"""
The resources, image and variables of a task: what the job says and what Flyte's own keywords say, each said once.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..._model import Resources
from ..._refusal import refuse
from ...errors import UnsupportedError
from ...manifests import escaped, shared_memory

if TYPE_CHECKING:
    from ..._job import Job

__all__ = [
    "as_texts",
    "environment_of",
    "from_flyte",
    "image_of",
    "mounts_shared_memory",
    "name_of_image",
    "shared_memory_of",
    "to_flyte",
    "with_images",
    "with_resources",
]

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the place itself, and not a file in it
#: Our field -> flytekit's.
_FIELDS = {"cpu": "cpu", "memory": "mem", "gpu": "gpu", "ephemeral_storage": "ephemeral_storage"}


def to_flyte(resources: Resources | None, field: str) -> Any:
    """
    flytekit's ``Resources`` of ours; None if nothing is asked for.

    Raises:
        UnsupportedError: Flyte has no word for one of them.
    """
    from flytekit import Resources as FlyteResources

    if resources is None:
        return None
    for name in resources.extended:
        raise UnsupportedError(
            f"{field}.extended[{name!r}]: Flyte has no such resource. Ask for it in flyte={{'pod_template': ...}}.",
            field=f"{field}.extended",
        )
    given = {theirs: str(value) for ours, theirs in _FIELDS.items() if (value := getattr(resources, ours)) is not None}
    return FlyteResources(**given) if given else None


def from_flyte(resources: Any) -> Resources | None:
    """
    Our resources of flytekit's; None if nothing is asked for.
    """
    given = {ours: value for ours, theirs in _FIELDS.items() if (value := getattr(resources, theirs, None)) is not None}
    return Resources(**given) if given else None


def as_texts(resources: Any) -> Any:
    """
    flytekit's ``Resources`` with numbers made texts, which the rest of flytekit takes for granted; a copy.
    """
    if resources is None:
        return None
    changed = {theirs: _text(value) for theirs in _FIELDS.values() if (value := getattr(resources, theirs)) is not None}
    return type(resources)(**changed)


def _text(value: Any) -> Any:
    return type(value)(_text(item) for item in value) if isinstance(value, (list, tuple)) else str(value)


def with_resources(job: Job, spec: Any) -> Job:
    """
    The job with what the task as a whole is given, for groups that say nothing of it themselves.
    """
    own = {"requests": from_flyte(spec.requests), "limits": from_flyte(spec.limits)}
    changes = {name: _over(getattr(job, name), found) for name, found in own.items() if found is not None}
    return job.evolve(**changes) if changes else job


def _over(own: Resources | None, found: Resources) -> Resources:
    return found if own is None else found.over(own)


def image_of(job: Job, given: Any) -> Any:
    """
    The image of the task.
    """
    if given is not None and job.image is not None and given != job.image:
        raise refuse("flyte.container_image", given, f"image={job.image!r} says otherwise; write it once.")
    return given if given is not None else job.image


#: What an image will be called once it is built -> flytekit's ``ImageSpec``: jobs know images by their names.
_specs: dict[str, Any] = {}


def name_of_image(spec: Any) -> str:
    """
    What flytekit's ``ImageSpec`` will be called once it is built; a name that stands for it where that cannot be known.
    """
    # Of a copy: it keeps the tag that it has worked out once, and only when the task is registered it is told of the sources.
    aside = copy.copy(spec)
    try:
        name = str(aside.image_name())
    except (OSError, ValueError):  # pods do not have the files that it is made of; the sources are not known yet
        name = f"{aside.name}:{aside.id.replace('-', '_')}"
    _specs[name] = spec
    return name


def with_images(custom: Mapping[str, Any], settings: Any) -> dict[str, Any]:
    """
    What Flyte is told of the groups, with images that it can pull: those that flytekit is to build, and placeholders filled in.

    Args:
        custom: What it is told, from which the images are taken.

        settings: flytekit's, of the registration.
    """

    def put(given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        filled = {key: put(value) for key, value in given.items()}
        if "image" in filled and settings.image_config is not None:
            filled["image"] = _registered_image(filled["image"], settings)
        return filled

    return {key: put(value) for key, value in custom.items()}


def _registered_image(name: str, settings: Any) -> str:
    from flytekit.core.python_auto_container import get_registerable_container_image, update_image_spec_copy_handling

    spec = _specs.get(name)
    if spec is not None:
        # Where code is not sent by itself, it goes into the image.
        update_image_spec_copy_handling(spec, settings)
    image: str = get_registerable_container_image(name if spec is None else spec, settings.image_config)
    return image


def environment_of(job: Job, given: Mapping[str, str]) -> dict[str, str]:
    """
    The variables of the task; those of the job as they are to arrive, whatever is written in them.
    """
    for name, value in given.items():
        if job.env.get(name, value) != value:
            raise refuse(f"flyte.environment[{name!r}]", value, f"env= of the job says {job.env[name]!r}; write it once.")
    return {**given, **{name: escaped(value) for name, value in job.env.items()}}


def shared_memory_of(job: Job, given: bool | str | None) -> bool | str | None:
    """
    The size of ``/dev/shm``, which Flyte has one of for all replicas.
    """
    sizes = {group.role: shared_memory(job, group.role) for group in job.groups}
    found = set(sizes.values())
    if len(found) > 1:
        told = ", ".join(f"{role}={size or 'none'}" for role, size in sizes.items())
        raise UnsupportedError(f"shared_memory: Flyte gives all replicas the same, and the job asks for {told}.", field="shared_memory")
    size = found.pop() if found else None
    if given is not None and size is not None and given != size:
        raise refuse("flyte.shared_memory", given, f"the job's own resources say shared_memory={size!r}; write it once.")
    return given if given is not None else size


def mounts_shared_memory(template: Any) -> bool:
    """
    Whether flytekit's pod template has something of its own at ``/dev/shm``, where Flyte then refuses to put more memory.
    """
    containers = getattr(getattr(template, "pod_spec", None), "containers", None) or ()
    mounts = (mount for each in containers if each.name == template.primary_container_name for mount in each.volume_mounts or ())
    return any(mount.mount_path == _SHARED_MEMORY for mount in mounts)
