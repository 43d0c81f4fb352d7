"""
One front door: ``nox`` runs tests, style, types and documentation, each session in an environment of its own.

``nox -l`` lists the sessions, ``nox -s tests -- -k evaluator`` passes arguments on,
``nox -s tests --force-python 3.13`` takes another interpreter, ``nox -r`` uses the environments again.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_external_run = True
nox.options.reuse_venv = "yes"

PYPROJECT = nox.project.load_toml("pyproject.toml")
#: The interpreter of nox, unless TensorFlow has no build for it yet.
PYTHON = None if sys.version_info < (3, 14) else "3.13"
#: tf-keras asks for `tensorflow` although `tensorflow-cpu` is the same modules: two packages would write the same files.
OVERRIDES = "requirements/overrides.txt"
#: The oldest world that is still in use: TFX's.
MINIMUMS = "requirements/minimums.txt"
#: How tests run unless arguments say something else: one for each processor at a time, those of a file one after the other.
TOGETHER = ("-n", "logical", "--maxprocesses", "4", "--dist", "loadfile")
#: Where the runs of a session leave their history, so that none ends up in the user's.
STATE = "DISTRIB_STATE_DIR"
#: Names the folder with the source of the program that shows what Flyte makes of a task.
JUDGE = "DISTRIB_FLYTE_JUDGE_SCRIPTS"
#: Seconds that building it may take; what is built by then is there the next time.
PATIENCE = 240
#: When CI has to be over, in seconds since the epoch, and the seconds that are then kept for what comes after the build.
ENDS, RESERVE = "DISTRIB_CI_ENDS", 120


def install(session: nox.Session, group: str | None = None, *more: str) -> None:
    """
    The project, editable, and a dependency group of pyproject.toml.
    """
    packages = nox.project.dependency_groups(PYPROJECT, group) if group else ()
    override = ["--override", OVERRIDES] if session.venv_backend == "uv" else []
    session.install("-e", ".", *packages, *override, *more)
    # Not in session.create_tmp(): that moves TMPDIR too, and paths of Unix sockets there may be too long.
    session.env.setdefault(STATE, str(Path(session.virtualenv.location).absolute() / "state"))
    # Whatever the environment says: without cached byte code, importing TensorFlow takes twice as long, each time.
    session.env["PYTHONDONTWRITEBYTECODE"] = ""


@nox.session(python=PYTHON, default=False)
def demo(session: nox.Session) -> None:
    """
    Train the digits on two workers and print the accuracy.
    """
    install(session, "tensorflow", "scikit-learn>=1.4")
    session.run("python", "examples/digits_keras.py", *session.posargs)


@nox.session(python=PYTHON)
def tests(session: nox.Session) -> None:
    """
    All tests; arguments go to pytest, which then runs one test at a time.
    """
    install(session, "tests")
    session.run("pytest", *(session.posargs or TOGETHER))


@nox.session(python=PYTHON)
def lint(session: nox.Session) -> None:
    """
    Style and format; ``nox -s lint -- --fix`` repairs both.
    """
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    fix = "--fix" in session.posargs
    session.run("ruff", "check", *(["--fix"] if fix else []))
    session.run("ruff", "format", *([] if fix else ["--check"]))


@nox.session(python=PYTHON)
def mypy(session: nox.Session) -> None:
    """
    Types of the package, and of what its users write.
    """
    install(session, "typing")
    session.run("mypy", *session.posargs)


@nox.session(python=PYTHON)
def pyright(session: nox.Session) -> None:
    """
    Types of what users write, by the other checker.
    """
    install(session, "typing")
    session.run("pyright", *(session.posargs or ["tests/typing"]))


@nox.session(python=PYTHON)
def docs(session: nox.Session) -> None:
    """
    Build the pages, every warning an error, and run all their examples.
    """
    install(session, "docs", *nox.project.dependency_groups(PYPROJECT, "examples", "flyte"), "hypothesis")
    session.run("sphinx-build", "-q", "-W", "-n", "--keep-going", "-b", "html", "docs", "docs/_build/html")
    session.run("pytest", "README.md", "docs", "src", *session.posargs)


@nox.session(python=PYTHON, default=False)
def coverage(session: nox.Session) -> None:
    """
    How much of the package the tests reach, replicas included.
    """
    install(session, "coverage")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine")
    session.run("coverage", "html")
    session.run("coverage", "report")


@nox.session(python="3.11", default=False)
def minimums(session: nox.Session) -> None:
    """
    All tests against the oldest versions that pyproject.toml allows, as in a TFX image.
    """
    if session.venv_backend != "uv":
        session.skip("only uv resolves to the lowest versions")
    install(session, "tests", "--resolution", "lowest-direct", "--constraint", MINIMUMS)
    session.run("pytest", *(session.posargs or TOGETHER))


@nox.session(python=PYTHON, default=False)
def cluster(session: nox.Session) -> None:
    """
    The end-to-end tests on the Kubernetes that KUBECONFIG names: ``nox -s cluster -- --image repo/train:1``.

    Functions travel between equal Pythons: ``--force-python 3.12`` for an image that has 3.12.
    """
    install(session, "cluster")
    session.run("pytest", "tests/cluster", *session.posargs)


@nox.session(python=PYTHON, default=False)
def judge(session: nox.Session) -> None:
    """
    What Flyte's own back end makes of our tasks, where there is Go to build it from ``DISTRIB_FLYTE_JUDGE_SCRIPTS``.
    """
    build = Path(os.environ.get(JUDGE, "../shared/flyte-judge"), "build.sh").absolute()
    if not build.is_file():
        session.skip(f"there is no {build.name} in {build.parent} ({JUDGE} names its folder)")
    if shutil.which("go") is None:
        session.skip("building it takes Go, and there is none on the PATH")
    patience = min(PATIENCE, float(os.environ.get(ENDS, "inf")) - time.time() - RESERVE)
    if patience < 1:
        session.skip("there is no time left for it")
    program = Path(session.virtualenv.location).absolute() / "flyte-judge"
    try:
        session.run("timeout", "--kill-after=10", f"{patience:.0f}", str(build), str(program), external=True)
    except CommandFailed:
        session.skip(f"it cannot be built here, or not within {patience:.0f} s; the next run goes on from there")
    install(session, "judge")
    session.env["DISTRIB_FLYTE_JUDGE"] = str(program)
    session.run("pytest", "tests/flyte/judge", *session.posargs)


@nox.session(python=PYTHON, default=False)
def bench(session: nox.Session) -> None:
    """
    Speed and memory beside the peers; ``nox -s bench -- imports noop`` runs those alone.
    """
    install(session, "bench")
    session.run("python", "bench", *session.posargs)
