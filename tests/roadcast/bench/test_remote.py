"""A model is measured on another machine by way of a real sshd on loopback, or it is said why not."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncssh
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.latency.load import Plan
from edge_protocol.errors import (
    DataError,
    IncompatibleError,
    NotReadyError,
    RemoteProtocolError,
    RoadcastError,
    SourceError,
)
from export.folder import TEMPLATE
from roadcast.bench.job import Job
from roadcast.bench.parcel import Answer, Parcel, answered, opened, pack
from roadcast.bench.remote import parcel_of, run_on
from roadcast.simulated.road import busy_scene, write_clip
from tests.fakes.latency import measured, result
from tests.fakes.sshd import SKIP_REASON, Sshd
from tests.fakes.waiting import wait_for

ROOT = Path(__file__).resolve().parents[3]
SHORT = Job(plan=Plan(queries=30, seconds=0, warm_up_queries=2, warm_up_seconds=0))
needs_sshd = pytest.mark.skipif(bool(SKIP_REASON), reason=SKIP_REASON)


@pytest.fixture(name="sshd", scope="module")
def started_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A started server."""
    with Sshd(tmp_path_factory.mktemp("ssh") / "sshd") as server:
        yield server


@pytest.fixture(name="python")
def python_with_roadcast(tmp_path: Path) -> str:
    """What stands for the target's Python; it keeps its files below the test's folder."""
    return program(tmp_path / "python", f"PYTHONPATH={shlex.quote(str(ROOT))} TMPDIR={tmp_path} exec {sys.executable}")


def program(path: Path, does: str) -> str:
    """A shell script that does something with its arguments."""
    path.write_text(f'#!/bin/sh\n{does} "$@"\n')
    path.chmod(0o755)
    return str(path)


@needs_sshd
def test_a_result_comes_back_from_a_target(sshd: Sshd, python: str, vehicle: Path, tmp_path: Path) -> None:
    """The folder's model is named, every query is there, and nothing is left on the target."""
    found = measured(run_on(sshd.target(), sshd.login, python, vehicle, SHORT))
    assert found.subject.model == "vehicle nano depthwise"
    assert found.latency.count == len(found.raw.latencies) == 30
    assert not list(tmp_path.glob("roadcast-bench-*"))


@needs_sshd
def test_a_source_is_the_targets_own(sshd: Sshd, python: str, vehicle: Path, tmp_path: Path) -> None:
    """Its clip is captured there and the way is told here; one that is not there is its error."""
    write_clip(tmp_path / "road.mp4", busy_scene(), 8)
    job = msgspec.structs.replace(SHORT, end_to_end=True, source=f"file://{tmp_path}/road.mp4")
    found = measured(run_on(sshd.target(), sshd.login, python, vehicle, job))
    assert list(found.stages) == ["capture", "preprocess", "infer", "head", "publish"]
    assert found.beside["decode"].count == 30
    with pytest.raises(SourceError, match=r"^127\.0\.0\.1: .*no such file"):
        run_on(sshd.target(), sshd.login, python, vehicle, msgspec.structs.replace(job, source="file:///none.mp4"))


@needs_sshd
def test_what_a_run_raises_there_is_raised_here(sshd: Sshd, python: str, vehicle: Path) -> None:
    """A template alone cannot be measured; the same error as on this machine, with the host's name before it."""
    with pytest.raises(IncompatibleError, match=r"^127\.0\.0\.1: .*without its weights"):
        run_on(sshd.target(), sshd.login, python, vehicle / TEMPLATE, SHORT)


@needs_sshd
@pytest.mark.parametrize(
    ("does", "says"),
    [
        (f"cd / && exec {sys.executable} -I -S", "has no roadcast"),
        ("echo too late >&2; exit 3 #", "left with 3: too late"),
        ("kill -9 $$ #", "left with"),
        ("echo hello #", "without an answer"),
        ("echo 'roadcast-bench-answer x' #", "speaks another way"),
    ],
)
def test_a_target_that_cannot_is_told_why(does: str, says: str, sshd: Sshd, vehicle: Path, tmp_path: Path) -> None:
    """No Roadcast, a Python that fails or is killed, one that says nothing, and one that says nonsense."""
    with pytest.raises(RoadcastError, match=says):
        run_on(sshd.target(), sshd.login, program(tmp_path / "python", does), vehicle, SHORT)


@needs_sshd
def test_a_target_that_is_not_the_one_or_not_ready_is_refused(sshd: Sshd, vehicle: Path, tmp_path: Path) -> None:
    """No such Python, a key that the target does not take, and a host key that is not the pinned one."""
    with pytest.raises(NotReadyError, match="no /no/python there; name the Python"):
        run_on(sshd.target(), sshd.login, "/no/python", vehicle, SHORT)
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(tmp_path / "key"))
    stranger = msgspec.structs.replace(sshd.login, identity=tmp_path / "key")
    with pytest.raises(NotReadyError, match="was not let in"):
        run_on(sshd.target(), stranger, "python3", vehicle, SHORT)
    with pytest.raises(NotReadyError, match="is not the one in"):
        run_on(sshd.target(fingerprint="SHA256:" + "a" * 43), sshd.login, "python3", vehicle, SHORT)


@needs_sshd
def test_a_run_stops_when_nobody_waits_for_it(python: str, vehicle: Path, tmp_path: Path) -> None:
    """Standard input ends in the middle of an hour: the process leaves, and takes model and outbox along."""
    hour = msgspec.structs.replace(SHORT, plan=Plan(seconds=3600, warm_up_seconds=0), end_to_end=True)
    half = [python, "-m", "roadcast.bench.target"]
    with subprocess.Popen(half, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.writelines(pack(parcel_of(vehicle, hour)))
        process.stdin.flush()
        wait_for(lambda: list(tmp_path.glob("roadcast-bench-*/*/outbox.db")), "model laid out, outbox open")
        process.stdin.close()
        assert process.wait(60) == 93
    assert not list(tmp_path.glob("roadcast-bench-*"))


def test_a_parcel_that_is_cut_short_is_an_answer(tmp_path: Path) -> None:
    """The target says that too little arrived, and does not wait for more."""
    run = subprocess.run(
        [sys.executable, "-m", "roadcast.bench.target"],
        input=(100).to_bytes(8, "big") + b"short",
        capture_output=True,
        check=True,
        cwd=ROOT,
        env={"TMPDIR": str(tmp_path)},
    )
    assert "5 of 100 bytes arrived" in answered(run.stdout).reason


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.binary(max_size=200_000), max_size=3), st.text(max_size=8))
def test_a_parcel_survives_or_is_refused(files: dict[str, bytes], name: str) -> None:
    """Whatever the names are, none leaves its folder; what is packed is unpacked."""
    try:
        parcel = Parcel(SHORT, name, files)
    except RemoteProtocolError as error:
        assert "would leave its folder" in str(error)  # noqa: PT017
        return
    body = b"".join(pack(parcel))
    assert int.from_bytes(body[:8], "big") == len(body) - 8
    assert opened(body[8:], Parcel) == parcel
    for each in (name, *files):
        assert (Path("/folder") / each).parent == Path("/folder")


@given(st.binary(max_size=200))
def test_any_answer_is_read_or_refused(said: bytes) -> None:
    """Bytes of a hostile target never fail in another way."""
    with suppress(RoadcastError):
        answered(b"Welcome!\nroadcast-bench-answer " + said).unpack("host")


def test_an_answer_survives(tmp_path: Path) -> None:
    """A result is the same after the way; a model that is not here is said before anything is sent."""
    one = result([1_000_000] * 100)
    body = b"motd roadcast-bench-answer " + msgspec.msgpack.encode(Answer(one))
    assert answered(body).unpack("host") == one
    with pytest.raises(DataError, match=r"none\.onnx"):
        parcel_of(tmp_path / "none.onnx", SHORT)
