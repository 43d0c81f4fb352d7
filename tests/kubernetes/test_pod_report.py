"""
The termination message: it fits, it is read back, and the value is never what is left out.
"""

from __future__ import annotations

import os
import pickle

from hypothesis import given
from hypothesis import strategies as st

from distrib._outcome import tell
from distrib.engines.kubernetes._report import LIMIT, Report, decode, dump, encode, load

TEXTS = st.text(max_size=3000)
ERRORS = st.builds(
    lambda text, traceback, count: {
        "type": "ValueError",
        "text": text,
        "traceback": traceback,
        "frames": [["train.py", number, "step", "x = 1"] for number in range(count)],
        "rank": None,
    },
    TEXTS,
    st.text(max_size=500).map(lambda text: text * 200),
    st.integers(0, 60),
)
RAISED = st.builds(
    lambda error, exception: Report(replica="worker-1", kind="raised", code=1, error=error, exception=exception),
    ERRORS,
    st.none() | st.binary(max_size=5000),
)
PLAIN = st.builds(
    lambda kind, code, text, time, oom, number: Report(
        replica="worker-0", kind=kind, code=code, text=text, time=time, oom=oom, signal=number, cause="chief-0"
    ),
    st.sampled_from(["ended", "stopped", "refused"]),
    st.integers(0, 255),
    TEXTS,
    st.floats(0, 2e9),
    st.booleans(),
    st.none() | st.integers(1, 64),
)


@given(st.one_of(RAISED, PLAIN), st.integers(1500, LIMIT))
def test_whatever_is_told_fits(report: Report, limit: int) -> None:
    """In ASCII, and who it is about, how it ended and with what code are never left out."""
    text = encode(report, limit)
    assert text is not None
    assert len(text.encode("ascii")) <= limit
    read = decode(text)
    assert read is not None
    assert (read.replica, read.kind, read.code, read.signal, read.oom) == (
        report.replica,
        report.kind,
        report.code,
        report.signal,
        report.oom,
    )


@given(
    st.recursive(st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20), lambda inner: st.lists(inner, max_size=3))
)
def test_a_small_value_arrives(value: object) -> None:
    """As it was."""
    report = Report(replica="worker-0", kind="returned", code=0, value=pickle.dumps(value), time=1.5)
    assert decode(encode(report)) == report


def test_a_large_value_is_not_cut() -> None:
    """It goes elsewhere, or nowhere."""
    assert encode(Report(replica="worker-0", kind="returned", code=0, value=os.urandom(LIMIT))) is None
    squeezed = Report(replica="worker-0", kind="returned", code=0, value=bytes(100_000))
    assert decode(encode(squeezed)) == squeezed


@given(st.one_of(RAISED, PLAIN))
def test_the_whole_report_is_kept_in_storage(report: Report) -> None:
    """Nothing of it is left out there."""
    assert load(dump(report)) == report


@given(st.one_of(st.text(), RAISED.map(encode).flatmap(lambda text: st.integers(0, len(text or "")).map(lambda end: (text or "")[:end]))))
def test_what_is_no_message_of_ours_is_none(text: str) -> None:
    """The end of a log, or a message that was cut short."""
    read = decode(text)
    assert read is None or encode(read) == text


def test_an_exception_of_a_real_program() -> None:
    """A deep traceback is shortened from its beginning; what was raised, and where, stays."""

    def deep(depth: int) -> None:
        if depth == 0:
            raise ValueError("no blue left")
        deep(depth - 1)

    try:
        deep(200)
    except ValueError as error:
        told = tell(error)
    details = {key: told[key] for key in ("type", "text", "traceback", "frames")}
    text = encode(Report(replica="worker-0", kind="raised", code=1, error={**details, "rank": None}, exception=told["pickled"]))
    read = decode(text)
    assert read is not None
    assert read.error is not None
    assert read.error["traceback"].endswith("ValueError: no blue left\n")
    assert read.error["frames"][-1][2] == "deep"
    assert read.exception is not None
    assert isinstance(pickle.loads(read.exception), ValueError)
