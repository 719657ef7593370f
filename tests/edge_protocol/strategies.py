"""Hypothesis strategies for legal messages: everything the contract allows, and nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from edge_protocol import messages as m
from edge_protocol.arrays import Array, pack
from edge_protocol.blobs import BlobRef, cut
from edge_protocol.prototypes import MOST_COUNT
from edge_protocol.task import FEATURES, TIERS
from edge_protocol.trunks import TrunkAsk, TrunkChange

names = st.text(max_size=64)
ids = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True).filter(lambda text: text != "server")
counts = st.integers(0, 2**53)
seconds = st.floats(0, 1e12)
finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.dictionaries(names, finite, max_size=8)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
message_ids = st.binary(min_size=16, max_size=16)
headers = st.builds(
    m.Header, names, names, message_ids, st.binary(min_size=8, max_size=8), counts, seconds, st.booleans()
)


@st.composite
def class_votes(draw: st.DrawFn) -> m.ClassVotes:
    """Votes of up to 50 samples over up to 256 classes."""
    samples, classes = draw(st.integers(0, 50)), draw(st.integers(1, 256))

    def bytes_of(size: int, top: int) -> Array:
        return pack(np.array(draw(st.lists(st.integers(0, top), min_size=size, max_size=size)), "u1"))

    return m.ClassVotes(
        bytes_of(samples, classes - 1), bytes_of(samples, 3), bytes_of(samples, 7), bytes_of(classes, 1)
    )


@st.composite
def forecast_votes(draw: st.DrawFn) -> m.ForecastVotes:
    """Forecasts of up to 20 samples and 4 horizons."""
    samples, horizons = draw(st.integers(0, 20)), draw(st.integers(1, 4))
    size = samples * horizons
    mean = draw(st.lists(st.floats(-63.96875, 63.96875, width=16), min_size=size, max_size=size))
    spread = draw(st.lists(st.floats(2**-7, 128, width=16), min_size=size, max_size=size))
    shape = (samples, horizons)
    return m.ForecastVotes(*(pack(np.array(each, "<f2").reshape(shape)) for each in (mean, spread)))


@st.composite
def prototype_reports(draw: st.DrawFn) -> m.PrototypeReport:
    """Class means of up to 6 of 256 classes."""
    classes = sorted(draw(st.sets(st.integers(0, 255), max_size=6)))
    means = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(len(classes), FEATURES)).astype("<f2")
    levels = draw(st.lists(st.integers(0, MOST_COUNT), min_size=len(classes), max_size=len(classes)))
    told = (pack(np.array(classes, "u1")), pack(means), pack(np.array(levels, "u1")))
    head = draw(st.tuples(names, names, counts, counts, st.sampled_from(TIERS)))
    return m.PrototypeReport(*head, *told)


@st.composite
def blob_refs(draw: st.DrawFn) -> BlobRef:
    """References to blobs of up to ten chunks."""
    return cut(draw(st.binary(min_size=1, max_size=100)), draw(st.integers(10, 40)))[0]


coded_votes = st.builds(
    m.CodedVotes,
    st.integers(0, m.MAX_SAMPLES),
    st.integers(1, 256),
    counts,
    st.binary(min_size=8, max_size=8),
    st.binary(max_size=200),
)
trunks = st.none() | st.builds(TrunkChange, digests, counts, st.binary(min_size=1, max_size=200))
shares = st.floats(0, 1, exclude_min=True)
asks = st.none() | st.builds(TrunkAsk, st.integers(1, 1000), st.integers(2, 256), shares, shares)
running = st.builds(m.RunningTask, names, names, names, names, counts)
bodies: st.SearchStrategy[m.Body] = st.one_of(
    st.builds(m.Birth, names, names, names, counts, counts, st.lists(running, max_size=3).map(tuple)),
    st.builds(m.DeviceState, names, names, counts, st.dictionaries(names, counts, max_size=8), values),
    st.builds(
        m.KnowledgeReport, names, names, counts, counts, digests, counts, class_votes() | forecast_votes(), trunks
    ),
    st.builds(
        m.CodedReport, names, names, counts, counts, st.binary(min_size=8, max_size=8), counts, coded_votes, trunks
    ),
    prototype_reports(),
    st.builds(m.PrototypeCall, names, names, counts, counts, seconds, st.booleans()),
    st.builds(m.Telemetry, values),
    st.builds(m.Deployment, names, counts, names, counts, digests | st.just(""), st.text(max_size=512)),
    st.builds(m.Need, digests, st.lists(st.integers(0, 2**20 - 1), max_size=20).map(tuple)),
    st.builds(m.IntervalResult, names, names, seconds, seconds, st.floats(0, 1), values),
    st.builds(m.Ack, message_ids, st.booleans(), st.text(max_size=512)),
    st.just(m.Rebirth()),
    st.builds(m.Label, names, names, names),
    st.builds(m.Measure, names, st.floats(0.1, 30)),
    st.builds(m.Measured, names, message_ids, counts, names, counts, values, st.text(max_size=512)),
    st.builds(m.RoundCall, names, names, counts, counts, blob_refs(), seconds, st.booleans(), asks),
    st.builds(m.ReleaseOffer, st.binary(max_size=500)),
    st.builds(m.Presence, st.booleans()),
)
