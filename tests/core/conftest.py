"""
What the tests of the core share: somebody else's package, with backends and an engine.
"""

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# `odd` is a module of the tests; they are no package.
sys.path.insert(0, str(Path(__file__).parent))

GOSSIP = """
import enum
import attrs
from distrib.backend import Backend, Role
from distrib.errors import InvalidJobError


class Mode(str, enum.Enum):
    PUSH = "push"
    PULL = "pull"


def _positive(instance, attribute, value):
    if value <= 0:
        raise ValueError(f"{attribute.name} must be positive")


@attrs.frozen(kw_only=True)
class Peering:
    secret: str = "none"
    hops: tuple[int, ...] = ()
    counted: int = attrs.field(default=0, init=False)


@attrs.frozen(kw_only=True)
class GossipOptions:
    fan_out: int = attrs.field(default=3, validator=_positive)
    mode: Mode = Mode.PUSH
    tags: tuple[str, ...] = ()
    peering: Peering = Peering()
    quiet: bool = False
    rounds: int = attrs.field(default=attrs.Factory(lambda self: 2 * self.fan_out, takes_self=True))
    note: str = attrs.field(factory=str)


class GossipBackend(Backend):
    name = "gossip"
    roles = (Role("seed", at_least=1, at_most=2), Role("peer"), Role("watcher", service=True))
    options = GossipOptions

    def validate(self, job):
        if job.options.quiet and job.name == "loud":
            raise InvalidJobError("quiet=True: not in a job named 'loud'.", field="quiet", value=True)

    def environment(self, replica, cluster):
        return {"GOSSIP_RANK": str(replica.rank)}


class BareBackend(Backend):
    name = "bare"
    roles = (Role("node"),)

    def environment(self, replica, cluster):
        return {}
"""

PAPER = """
import attrs
from distrib.engine import Engine


@attrs.frozen(kw_only=True)
class PaperOptions:
    sheets: int = 1


class PaperEngine(Engine):
    name = "paper"
    options = PaperOptions

    def plan(self, job, call):
        raise NotImplementedError

    submit = runs = get_run = plan
"""


@pytest.fixture(scope="session", name="distribution")
def _distribution(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """
    Makes a folder that looks like one where a package is installed.
    """

    def make(name: str, entry_points: str, **modules: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        # As installers write it: what is before the first hyphen is the name.
        info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))
        for module, source in modules.items():
            (folder / f"{module}.py").write_text(source)
        return folder

    return make


@pytest.fixture(scope="session", autouse=True)
def _third_party(distribution: Callable[..., Path]) -> Iterator[None]:
    """
    A package with two backends and an engine is installed.
    """
    entry_points = """
        [distrib.backends]
        gossip = distrib_gossip:GossipBackend
        bare = distrib_gossip:BareBackend
        [distrib.engines]
        paper = distrib_paper:PaperEngine
        """
    folder = distribution("distrib-gossip", entry_points, distrib_gossip=GOSSIP, distrib_paper=PAPER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
