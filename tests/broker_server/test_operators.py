"""Who the audit log says it was."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys

import pytest

ASK = [sys.executable, "-c", "from broker_server.operators import operator; print(operator())"]


def test_the_environment_does_not_say_who_it_was() -> None:
    """Neither LOGNAME nor its like count: only whose process it is."""
    lies = dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME"), "alice")
    said = subprocess.run(ASK, env={**os.environ, **lies}, check=True, capture_output=True, text=True).stdout
    assert said.strip() == pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_user_without_a_name_is_a_number() -> None:
    """As in a container that runs under a number of its own."""
    become = "import os; from broker_server.operators import operator; os.setuid(54321); print(operator())"
    said = subprocess.run([sys.executable, "-c", become], check=True, capture_output=True, text=True).stdout
    assert said == "uid 54321\n"
