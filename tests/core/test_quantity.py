"""
Quantities are what Kubernetes says they are.
"""

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd import made_or_refused

from distrib._quantity import MILLI, UNIT, nano, quantity
from distrib.errors import InvalidJobError
from distrib.testing.strategies import quantities

LARGEST = 2**63 - 1


class Row(NamedTuple):
    """
    What k8s.io/apimachinery makes of a text; *canonical* is None where it refuses it.
    """

    text: str
    canonical: str | None
    milli: str
    value: int
    order: int


GOLDEN = [Row(*row) for row in json.loads((Path(__file__).parent.parent / "data" / "quantities.json").read_text(encoding="utf-8"))]


def is_beyond(row: Row) -> bool:
    """
    Whether Kubernetes would cap the value, or write it wrongly.
    """
    exact = parsed_by_client(row.text)
    return abs(exact) > LARGEST


def parsed_by_client(text: str) -> Decimal:
    """
    The value by the other implementation: that of Kubernetes' Python client.
    """
    from kubernetes.utils.quantity import parse_quantity

    return parse_quantity(text)


def has_digits(row: Row) -> bool:
    """
    Whether Kubernetes' own grammar allows the text.
    """
    return any(character in "0123456789" for character in row.text.partition("e")[0])


class TestAgainstKubernetes:
    """
    ``tests/data/quantities.json`` holds ``[text, canonical, rounded up to thousandths, Value(), order]`` as a Go program
    printed it that calls ``resource.ParseQuantity``, ``CanonicalizeBytes``, ``RoundUp(resource.Milli)``, ``Value`` and
    ``Cmp`` of k8s.io/apimachinery v0.37.2 for every text; *order* is the place among all distinct values.
    """

    def test_the_table_is_worth_its_name(self):
        """
        It has hundreds of legal texts and dozens of illegal ones.
        """
        assert sum(row.canonical is not None for row in GOLDEN) > 350
        assert sum(row.canonical is None for row in GOLDEN) > 40

    @pytest.mark.parametrize("row", [row for row in GOLDEN if row.canonical is None], ids=repr)
    def test_what_kubernetes_refuses_is_refused(self, row):
        """
        A text that Kubernetes cannot read is an error that names the field and shows legal forms.
        """
        with pytest.raises(InvalidJobError, match="'500m', '4Gi'") as caught:
            quantity(row.text, "worker.requests.cpu")
        assert caught.value.field == "worker.requests.cpu"
        assert str(caught.value).startswith("worker.requests.cpu=")

    def test_canonical_forms(self):
        """
        Every legal text has Kubernetes' canonical form, unless it is beyond what Kubernetes can hold.
        """
        rows = [row for row in GOLDEN if row.canonical is not None and has_digits(row) and not is_beyond(row)]
        assert len(rows) > 300
        assert {row.text: quantity(row.text) for row in rows} == {row.text: row.canonical for row in rows}

    def test_rounding_to_thousandths(self):
        """
        Requests and limits are rounded up to thousandths, away from zero, as the API server does.
        """
        rows = [row for row in GOLDEN if row.canonical is not None and has_digits(row) and not is_beyond(row)]
        assert {row.text: quantity(row.text, finest=MILLI) for row in rows} == {row.text: row.milli for row in rows}

    def test_order(self):
        """
        Quantities are ordered as ``Quantity.Cmp`` orders them.
        """
        rows = [row for row in GOLDEN if row.canonical is not None and has_digits(row) and not is_beyond(row)]
        steps = {order: place for place, order in enumerate(sorted({row.order for row in rows}))}
        values = {value: place for place, value in enumerate(sorted({nano(row.text) for row in rows}))}
        assert {row.text: values[nano(row.text)] for row in rows} == {row.text: steps[row.order] for row in rows}

    def test_what_kubernetes_would_cap_or_misprint_is_refused(self):
        """
        Beyond 2**63 - 1 Kubernetes caps binary quantities and writes ``1000E`` as ``1``; here both are errors.
        """
        rows = [row for row in GOLDEN if row.canonical is not None and has_digits(row) and is_beyond(row)]
        assert {"8Ei", "1000E"} < {row.text for row in rows}
        for row in rows:
            with pytest.raises(InvalidJobError, match=r"larger than 2\*\*63 - 1"):
                quantity(row.text)

    def test_a_text_without_digits_is_refused(self):
        """
        Kubernetes reads ``Ki`` and ``.`` as 0, which its own grammar rules out.
        """
        rows = [row for row in GOLDEN if row.canonical is not None and not has_digits(row)]
        assert {"Ki", ".", "-"} < {row.text for row in rows}
        for row in rows:
            with pytest.raises(InvalidJobError, match="not a quantity"):
                quantity(row.text)

    @given(quantities())
    def test_the_python_client_reads_the_same_value(self, amount):
        """
        Kubernetes' Python client reads the canonical form as the number that was written, to within a billionth.
        """
        exact = Fraction(parsed_by_client(amount)) if isinstance(amount, str) else Fraction(str(amount))
        canonical = Fraction(parsed_by_client(quantity(amount)))
        assert 0 <= canonical - exact < Fraction(1, UNIT)
        assert canonical == Fraction(nano(amount), UNIT)


class TestNumbers:
    @pytest.mark.parametrize(
        ("value", "canonical"),
        [
            (2, "2"),
            (0, "0"),
            (2000, "2k"),
            (0.5, "500m"),
            (0.1, "100m"),
            (1e-12, "1n"),
            (1e3, "1k"),
            (-0.0, "0"),
            (Decimal("1.50"), "1500m"),
            (Decimal("1E+3"), "1k"),
            (Decimal("1E-100"), "1n"),
            (LARGEST, str(LARGEST)),
            (np.int64(3), "3"),
            (np.float64(0.25), "250m"),
        ],
    )
    def test_numbers_are_decimal(self, value, canonical):
        """
        A number becomes a decimal quantity, whatever its own notation.
        """
        assert quantity(value) == canonical

    @pytest.mark.parametrize(
        "value",
        [True, False, None, b"1", [1], float("nan"), float("inf"), -float("inf"), Decimal("nan"), Decimal("sNaN"), Decimal("inf"), 1j],
        ids=repr,
    )
    def test_what_is_no_number_is_refused(self, value):
        """
        Booleans, infinities and other objects are refused with the field's name.
        """
        with pytest.raises(InvalidJobError, match=r"^cpu=.*write a number"):
            quantity(value, "cpu")

    @pytest.mark.parametrize(
        "value",
        [2**63, -(2**63), 10**5000, 1e300, Decimal("1E+999999999"), "1e9223372036854775807", "9" * 190],
        ids=["just", "negative", "int", "float", "decimal", "exponent", "digits"],
    )
    def test_huge_numbers_are_refused_at_once(self, value):
        """
        No exponent makes the reader compute a huge power.
        """
        with pytest.raises(InvalidJobError, match="larger than"):
            quantity(value)

    @pytest.mark.parametrize("text", ["1e-9223372036854775807", "0." + "0" * 150 + "1"])
    def test_tiny_numbers_are_rounded_up(self, text):
        """
        Who wants a little gets a little: a billionth at least.
        """
        assert nano(text) == 1

    def test_a_very_long_text_is_refused(self):
        """
        A text of a megabyte costs no time.
        """
        with pytest.raises(InvalidJobError, match="not a quantity"):
            quantity("1" * 10**6)


class TestLaws:
    @given(quantities())
    def test_canonical_forms_are_fixed_points(self, amount):
        """
        The canonical form of a canonical form is itself, and has the same value.
        """
        once = quantity(amount)
        assert quantity(once) == once
        assert nano(once) == nano(amount)

    @given(quantities(), quantities())
    def test_equal_values_of_one_style_have_one_form(self, one, other):
        """
        Two numbers are equal exactly if their canonical forms are.
        """
        one, other = Decimal(nano(one)) / UNIT, Decimal(nano(other)) / UNIT
        assert (quantity(one) == quantity(other)) == (one == other)

    @given(quantities(), st.sampled_from([1, MILLI, UNIT]))
    def test_rounding_is_up_and_by_less_than_a_step(self, amount, finest):
        """
        Rounding gives the next multiple that is not smaller.
        """
        rounded = nano(quantity(amount, finest=finest))
        assert rounded % finest == 0
        assert 0 <= rounded - nano(amount) < finest

    @given(st.text(max_size=12) | st.integers() | st.floats() | st.decimals() | st.none() | st.booleans() | st.binary(max_size=3))
    def test_anything_is_a_quantity_or_refused(self, value):
        """
        Whatever is given, there is a canonical text or an InvalidJobError.
        """
        found = made_or_refused(lambda: quantity(value, "memory"))
        if isinstance(found, InvalidJobError):
            assert found.field == "memory"
        else:
            assert quantity(found) == found
