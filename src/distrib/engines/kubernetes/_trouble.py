"""
What does not heal, however long one waits; and what to do about it.
"""

from __future__ import annotations

from ._seen import Note, Pod

#: Why a container waits -> what to do. None of these goes away by itself.
_WAITING = {
    "InvalidImageName": "write the image as registry/repository:tag",
    "ErrImageNeverPull": "the node does not have the image, and image_pull_policy='Never' keeps it from being pulled",
    "CreateContainerConfigError": "a Secret or ConfigMap that it names is missing, or the image runs as root where that is not allowed",
    "CreateContainerError": "the container runtime does not take what the pod asks for",
    "RunContainerError": "the image does not have the command; check kubernetes={'python': …}",
    "StartError": "the image does not have the command; check kubernetes={'python': …}",
}
_PULLING = ("ErrImagePull", "ImagePullBackOff")
#: What registries and runtimes say of an image that is not there, or not for us.
_ABSENT = (
    "not found",
    "does not exist",
    "manifest unknown",
    "name unknown",
    "repository unknown",
    "unauthorized",
    "authorization failed",
    "access denied",
    "denied:",
    "forbidden",
    "no match for platform",
    "invalid reference",
)
_CREATING = (
    "FailedCreate",
    "FailedCreatePod",
    "FailedCreateService",
    "FailedValidation",
    "JobCreationFailed",
    "TrainJobResourcesCreationFailed",
)
#: What admission says of a pod that it will not have -> what to do.
_REFUSED = {
    "exceeded quota": "the namespace's quota is used up: ask for less, wait for other runs to end, or have it raised",
    "maximum ": "the namespace's LimitRange has less: ask for less",
    "minimum ": "the namespace's LimitRange asks for more",
    "violates podsecurity": "the namespace's pod security level does not allow it: leave security_context as it is by default",
    "serviceaccount": "the service account does not exist: create it, or name another one",
    "denied the request": "an admission webhook of the cluster does not allow it",
    "is forbidden": "the cluster does not allow it",
    "is invalid": "the cluster does not take it",
}
#: What passes by itself, under whatever word: a node that has much to do, a namespace that was made just now, a webhook that is not up.
_PASSING = (
    "deadline exceeded",
    "failed calling webhook",
    "failed to reserve container name",
    "failed to sync",
    "timed out",
    "status unknown for quota",
    'serviceaccount "default" not found',
)


def hopeless_pod(pod: Pod) -> str:
    """
    Why a pod will never start, and the remedy; an empty string if it may.
    """
    if pod.state != "waiting" or pod.starts or _passes(pod.what):
        return ""
    said = ": ".join(part for part in (pod.why, pod.what) if part)
    if pod.why in _WAITING:
        return f"{said} ({_WAITING[pod.why]})"
    if pod.why in _PULLING and any(words in pod.what.lower() for words in _ABSENT):
        return f"{said} (check the name of the image, and the role's pull_secrets if it is private)"
    return ""


def hopeless_note(note: Note) -> str:
    """
    Why a workload will never have its pods, and the remedy; an empty string if it may.
    """
    if note.reason not in _CREATING or _passes(note.message):
        return ""
    for words, remedy in _REFUSED.items():
        if words in note.message.lower():
            return f"{note.about}: {note.message} ({remedy})"
    return ""


def _passes(message: str) -> bool:
    return any(words in message.lower() for words in _PASSING)
