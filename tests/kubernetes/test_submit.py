"""
Submitting: all of a run, or nothing.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from stage import JOBS, SECRETS, SERVICES, TF_JOBS, Stage
from standin import RefusedError, StandIn

from distrib._registry import get_engine
from distrib.engine import Call
from distrib.engines.kubernetes import _submit
from distrib.engines.kubernetes._engine import KubernetesEngine
from distrib.errors import SubmitError
from distrib.testing import _calls


def the(stage: Stage, collection: str) -> dict[str, Any]:
    """The only object of a kind."""
    (found,) = (data for (where, _), data in stage.standin.objects.items() if where == collection)
    return found


def test_the_workload_owns_the_rest(stage: Stage) -> None:
    """
    The Secret, the Service and the workload have the run's name and label; the workload owns the others.
    """
    run = stage.submit()
    job, secret, service = the(stage, JOBS), the(stage, SECRETS), the(stage, SERVICES)
    assert secret["metadata"]["name"] == service["metadata"]["name"] == stage.name(run)
    reference = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    assert secret["metadata"]["ownerReferences"] == service["metadata"]["ownerReferences"] == [reference]
    for each in (job, secret, service):
        assert each["metadata"]["labels"]["distrib.dev/run"] == stage.name(run)
    run.cancel()
    assert stage.left() == []


def test_the_operators_resource(stage: Stage) -> None:
    """
    With an operator there is only its own resource, and the Secret that it owns.
    """
    run = stage.submit(workload="operator")
    assert the(stage, SECRETS)["metadata"]["ownerReferences"][0]["kind"] == the(stage, TF_JOBS)["kind"] == "TFJob"
    run.cancel()
    assert stage.left() == []


def test_nothing_is_left_out(stage: Stage) -> None:
    """
    The server is asked to refuse a field that it does not know: by itself it would leave it out.
    """
    stage.submit().cancel()
    asked = [query for verb, _, query in stage.standin.requests if verb == "create"]
    assert asked == [{"fieldValidation": "Strict"}] * 3


def test_what_is_written_down(stage: Stage) -> None:
    """
    The annotation has what another machine needs to follow the run, and each submission its own time and name.
    """
    one = stage.submit(policy={"active_deadline_seconds": 60})
    about = stage.about(JOBS)
    one.cancel()
    assert {key: about[key] for key in ("coordinator", "roles", "deadline", "workload", "clean")} == {
        "coordinator": "worker-0",
        "roles": {"worker": 2},
        "deadline": 60,
        "workload": "job",
        "clean": "Running",
    }
    assert stage.submit().id != one.id


@pytest.mark.parametrize(("verb", "plural"), [("create", "secrets"), ("create", "jobs"), ("create", "services"), ("patch", "secrets")])
@pytest.mark.parametrize("answer", [(403, "Forbidden"), (422, "Invalid"), (500, "InternalError"), (413, "RequestEntityTooLarge")])
def test_all_is_taken_back(stage: Stage, verb: str, plural: str, answer: tuple[int, str]) -> None:
    """
    Whichever step is refused, and why ever, nothing of the run is left, and the error has the server's words.
    """
    stage.standin.refusals[verb, plural] = [RefusedError(*answer, "because of the test")]
    with pytest.raises(SubmitError, match=f"{verb} {plural} in here: because of the test") as caught:
        stage.submit()
    assert stage.left() == []
    assert "Nothing is left of the run." in str(caught.value)


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ('secrets "x" is forbidden: exceeded quota: small', "Ask for less"),
        ('failed calling webhook "v": connection refused', "is it running?"),
        ("the server could not find the requested resource", "workload"),
        ('secrets is forbidden: User "me" cannot create resource "secrets"', "Have a Role granted"),
        ("etcdserver: request is too large", "storage"),
        ('strict decoding error: unknown field "spec.template.spec.tolerationz"', "A slip in pod_patch"),
        ('namespaces "here" not found', "Create the namespace"),
    ],
)
def test_remedies(stage: Stage, said: str, remedy: str) -> None:
    """
    A refusal that is known has its remedy.
    """
    stage.standin.refusals["create", "secrets"] = [RefusedError(403, "Forbidden", said)]
    with pytest.raises(SubmitError) as caught:
        stage.submit()
    assert said in str(caught.value)
    assert remedy in str(caught.value)


def test_a_name_that_is_taken(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A name that somebody has is not touched: another one is tried.
    """
    names = iter([b"\0\0\1", b"\0\0\1", b"\0\0\2"])
    monkeypatch.setattr(_submit, "_digits", lambda: next(names).hex())
    one = stage.submit()
    other = stage.submit()
    assert [stage.name(one), stage.name(other)] == ["name-000001", "name-000002"]
    assert len([each for each in stage.left() if each.startswith("jobs/")]) == 2


def test_a_runtime_that_the_trainer_has_not_heard_of_yet(stage: Stage) -> None:
    """
    The Trainer's webhook may be behind the API server by a moment, as a real one was seen to be: it is asked again.
    """
    said = 'TrainingRuntime.trainer.kubeflow.org "x" not found: specified trainingRuntime must be created before the TrainJob is created'
    stage.standin.refusals["create", "trainjobs"] = [RefusedError(403, "Forbidden", said) for _ in range(2)]
    run = stage.submit(workload="trainjob")
    assert stage.standin.asked()["create", "trainjobs"] == 3
    run.cancel()
    assert stage.left() == []


def test_a_server_that_is_not_there(stage: Stage, standin: StandIn) -> None:
    """
    A server that cannot be reached is a SubmitError.
    """
    standin.close()
    with pytest.raises(SubmitError, match="cannot be reached"):
        stage.submit()


def test_no_credentials(stage: Stage) -> None:
    """
    Credentials that are not there are a SubmitError.
    """
    with pytest.raises(SubmitError, match="no credentials"):
        stage.submit(kubeconfig="/nowhere")


def test_within_a_replica(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A replica cannot start a run of its own.
    """
    monkeypatch.setenv("DISTRIB_REPLICA", json.dumps({}))
    with pytest.raises(SubmitError, match=r"name\.function"):
        stage.submit()


def test_plans_of_others(stage: Stage) -> None:
    """
    Another engine's plan is refused.
    """
    plan = get_engine("local").plan(stage.job(), Call(_calls.name))
    with pytest.raises(SubmitError, match="its own plans"):
        stage.engine.submit(plan)


def test_planning_asks_nobody(stage: Stage) -> None:
    """
    Planning makes no request, and needs no credentials.
    """
    KubernetesEngine().plan(stage.job(kubeconfig="/nowhere"), Call(_calls.name))
    assert stage.standin.requests == []
