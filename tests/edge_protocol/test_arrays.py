"""Arrays on the wire: any layout survives, and nothing else travels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_protocol.arrays import MAX_ARRAY_BYTES, Array, pack, unpack
from edge_protocol.errors import LocalProtocolError

DTYPES = st.sampled_from(["|u1", "|i1", "<u2", ">u2", "<i2", ">i2", "<f2", ">f2", "<f4", ">f4"])


@given(hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)), st.booleans())
def test_an_array_survives(values: npt.NDArray[np.generic], turned: bool) -> None:
    """Values, shape and type come back, from any byte order and memory layout; the result cannot be written to."""
    given_values = values.T if turned else values
    back = unpack(pack(given_values))
    assert back.shape == given_values.shape
    assert back.dtype == given_values.dtype.newbyteorder("<")
    assert back.tobytes() == given_values.astype(back.dtype).tobytes()
    assert not back.flags.writeable


@pytest.mark.parametrize("values", [np.zeros(2, "f8"), np.zeros(2, "i8"), np.array(["a"]), np.array([None])])
def test_other_types_do_not_travel(values: npt.NDArray[np.generic]) -> None:
    """Doubles, wide integers, text and objects are refused where they are packed."""
    with pytest.raises(LocalProtocolError, match="do not travel"):
        pack(values)


def test_large_and_five_dimensional_arrays_are_refused() -> None:
    """More than 4 MiB, or more than four dimensions."""
    with pytest.raises(LocalProtocolError) as error:
        pack(np.zeros(MAX_ARRAY_BYTES + 1, "u1"))
    assert error.value.reason == "oversized"
    with pytest.raises(LocalProtocolError, match="fifth dimension"):
        Array("u1", (1,) * 5, b"\0")
