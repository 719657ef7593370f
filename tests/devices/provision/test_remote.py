"""The bytes between `roadcast flash --ssh` and a target: questions, answers of any kind, orders."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.provision.plan import Plan, PlannedFile, PlannedLink
from devices.provision.remote import SHOWN_BYTES, orders, question, work_of
from edge_protocol.errors import ConfigError, RemoteProtocolError

FILE = PlannedFile("/etc/a", b"new\n")
SECRET = PlannedFile("/etc/b", b"secret", 0o640)
LINK = PlannedLink("/etc/c", "/etc/a")
PLAN = Plan((FILE, SECRET), (LINK,))
OLD = f"file 644 0 0 4 11 4 1.5 1.5 {sha256(b'old').hexdigest()} fresh\nold\n"
RIGHT = f"file 640 0 990 6 12 6 2.5 2.5 {sha256(b'secret').hexdigest()} fresh\n"
CLEAN = "roadcast-flash clean aarch64 7:1.5:1.5,\n"


def test_an_answer_is_compared_with_the_plan() -> None:
    """What a login shell says before it is skipped; the group of a secret is the device's own matter."""
    work = work_of(PLAN, f"Welcome\n{CLEAN}{OLD}{RIGHT}same\nend\n".encode())
    assert [change.action for change in work.changes] == ["change", "keep", "keep"]
    assert "-old\n+new" in work.changes[0].diff
    assert (work.files, work.links, work.total_bytes) == (((FILE, False),), (), 4)
    told = b"".join(orders(work)).decode()
    new = sha256(b"new\n").hexdigest()
    assert told == f"since 7:1.5:1.5,\nfile 644 {new} 4\n/etc/a\nnew\nkept -\n/etc/b\nkept -\n/etc/c\ncommit\n"
    assert work.machine == "aarch64"


def test_a_large_file_is_remembered_as_it_was_seen() -> None:
    """Inode, size, times and hash go back to the target as it said them, not as they may be when it is told."""
    large = PlannedFile("/opt/a", bytes(SHOWN_BYTES + 1))
    seen = f"12 {SHOWN_BYTES + 1} 2.5 3.5 {sha256(large.content).hexdigest()}"
    answer = f"roadcast-flash clean aarch64 \nfile 644 0 0 {SHOWN_BYTES + 1} {seen} fresh\nend\n"
    assert work_of(Plan((large,), ()), answer.encode()).kept == (("/opt/a", seen),)


def test_what_is_staged_is_not_sent_again_and_leftovers_are_work() -> None:
    """A complete file beside its place is only renamed; a target that is right but has leftovers is not left alone."""
    work = work_of(Plan((FILE,), ()), b"roadcast-flash pending aarch64 \nmissing staged\nend\n")
    assert (work.files, work.total_bytes, work.needed) == (((FILE, True),), 0, True)
    assert b"".join(orders(work)).startswith(b"since \nready 644 ")
    assert work_of(Plan((), ()), b"roadcast-flash pending aarch64 \nend\n").needed
    assert not work_of(Plan((), ()), f"{CLEAN}end\n".encode()).needed


@pytest.mark.parametrize("path", ["/etc/a\nfile 644 0 0", "/etc/\x00", "/etc/../a", "etc/a", "/etc/\udcff"])
def test_a_name_that_would_be_another_line_is_refused(path: str) -> None:
    """Neither a path nor a link's text may hold a control character, or leave the tree."""
    with pytest.raises(ConfigError):
        question(Plan((PlannedFile(path, b""),), ()))
    with pytest.raises(ConfigError):
        question(Plan((), (PlannedLink(path, "/etc/a"),)))


LINES = st.sampled_from(
    [
        CLEAN,
        "missing fresh\n",
        "missing staged\n",
        "same\n",
        "other\n",
        "end\n",
        OLD,
        RIGHT,
        "x",
        "\n",
    ]
)


@given(st.lists(LINES | st.text(max_size=9), max_size=8).map("".join))
def test_any_answer_is_compared_or_refused(answer: str) -> None:
    """A target that says nonsense is an error of its own kind; what is taken covers the whole plan."""
    with suppress(RemoteProtocolError):
        assert len(work_of(PLAN, answer.encode()).changes) == 3
