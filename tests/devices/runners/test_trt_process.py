"""Builds apart: a plan comes of it, or one clear reason; nothing is left running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from devices.boards.machine import Machine
from devices.runners.cuda import Cuda
from devices.runners.payload import lay_out
from devices.runners.trt_build import Order
from devices.runners.trt_process import Limits, StoppedError, build_apart, free_memory
from devices.runners.trt_runner import TrtRunner
from edge_protocol.errors import DeploymentError, StoreError
from tests.fakes.cudart import FakeCudart
from tests.fakes.student import PAYLOAD, TEMPLATE, X, graph
from tests.fakes.trt import fake_tensorrt
from tests.fakes.trt_machine import python_with
from tests.fakes.waiting import wait_for

ORDER = Order("student.onnx", batch=4)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with the student, beside the one that Python finds TensorRT in."""
    (tmp_path / "work").mkdir()
    lay_out(tmp_path / "work", TEMPLATE, PAYLOAD)
    return tmp_path / "work"


def quiet(phase: str, share: float) -> None:
    """Hear nothing."""


def test_a_plan_is_built_in_another_process(work: Path) -> None:
    """The plan runs here, timings went there and back, and progress was heard in order."""
    heard: list[tuple[str, float]] = []
    python = python_with(work.parent, "print('a plugin talks')")
    built = build_apart(work, ORDER, b"seen", lambda *said: heard.append(said), python=python)
    assert built.timing == b"seent"
    assert heard == [("parse", 0), ("build", 0), ("build", 0.5)]
    with TrtRunner(fake_tensorrt("10.3.0"), Cuda(FakeCudart()), built.plan) as runner:
        assert runner.infer(X).logits.shape == (5, 5)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; raise SystemExit(f'priority {os.nice(0)}')", "ended with code 1: priority 19"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with code -11"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by the system.*add swap"),
        ("raise ImportError('libnvinfer.so.10 is missing')", "libnvinfer.so.10 is missing.*JetPack.*untouched"),
        ("raise MemoryError", "MemoryError"),
    ],
    ids=["exit", "crash", "killed", "import", "memory"],
)
def test_a_build_that_ends_badly_says_why(code: str, message: str, work: Path) -> None:
    """Exit code, signal, the kernel's out-of-memory killer, a missing library: each is one sentence."""
    with pytest.raises(DeploymentError, match=message):
        build_apart(work, ORDER, b"", quiet, python=python_with(work.parent, code))


def test_a_layer_that_is_not_taken_is_named(work: Path) -> None:
    """The reason of the other process arrives whole."""
    lay_out(work, graph(operator="Erf"), PAYLOAD)
    python = python_with(work.parent)
    fake = work.parent / "tensorrt.py"
    fake.write_text(fake.read_text().replace("'10.3.0'", "'10.3.0', unsupported='Erf'"))
    with pytest.raises(DeploymentError, match=r"no plan built: .*layer 'act' \(Erf\)"):
        build_apart(work, ORDER, b"", quiet, python=python)


def test_a_build_that_takes_too_long_is_killed(work: Path) -> None:
    """It hangs, and is gone afterwards."""
    python = python_with(work.parent, "import time; time.sleep(600)")
    with pytest.raises(DeploymentError, match=r"killed after 0\.5 s"):
        build_apart(work, ORDER, b"", quiet, limits=Limits(seconds=0.5), python=python)


def test_a_build_is_killed_before_the_board_is_out_of_memory(work: Path) -> None:
    """Memory shrinks while it runs; below the spare it is killed, and the board goes on."""
    python = python_with(work.parent, "import time; time.sleep(600)")
    left = iter([4 << 30, 2 << 30, 1 << 30])
    with pytest.raises(DeploymentError, match=r"killed: 100 MiB of memory were left.*add swap"):
        build_apart(work, ORDER, b"", quiet, free=lambda: next(left, 100 << 20), python=python)


def test_a_build_does_not_begin_without_memory(work: Path) -> None:
    """Too little free: said with both figures, and no process was started."""
    with pytest.raises(DeploymentError, match="500 MiB of memory are free, a build needs 1024"):
        build_apart(work, ORDER, b"", quiet, free=lambda: 500 << 20, python=("false",))
    assert not (work / "order.json").exists()


def test_a_folder_that_is_gone_is_an_error_of_ours(work: Path) -> None:
    """The disk's refusal, with the folder."""
    with pytest.raises(StoreError, match="none: a build cannot be started"):
        build_apart(work / "none", ORDER, b"", quiet)


def test_this_machine_says_what_is_free() -> None:
    """Linux tells in /proc/meminfo."""
    assert (free_memory() or 0) > 1 << 20


def test_a_build_that_nobody_wants_is_stopped(work: Path) -> None:
    """A newer release came: the process is gone at once."""
    pid = work.parent / "pid"
    python = python_with(
        work.parent, f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    )
    with pytest.raises(StoppedError, match="a newer release came"):
        build_apart(work, ORDER, b"", quiet, stopped=lambda: pid.exists() and bool(pid.read_text()), python=python)
    assert not Path(f"/proc/{pid.read_text()}").exists()


def test_a_build_ends_with_who_ordered_it(work: Path) -> None:
    """Killed by SIGKILL, as a whole agent may be: its build does not go on for half an hour."""
    pid = work.parent / "pid"
    fake = python_with(work.parent)
    (work.parent / "tensorrt.py").write_text(
        f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    script = (
        "import sys; from pathlib import Path; from devices.runners.trt_build import Order\n"
        "from devices.runners.trt_process import Limits, build_apart\n"
        f"build_apart(Path({str(work)!r}), Order('student.onnx'), b'', print, limits=Limits(needed=0, spare=0), "
        f"python={fake!r})"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as agent:
        wait_for(lambda: pid.exists() and pid.read_text() != "", "the build")
        agent.kill()
    wait_for(lambda: not alive(int(pid.read_text())), "the end of the build")


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_full_disk_under_a_build_is_said_so(work: Path) -> None:
    """The plan cannot be written: the reason names the disk, and what to do."""
    (work / "plan").mkdir()
    (work / "plan" / "in the way").touch()
    with pytest.raises(StoreError, match="a build cannot be started"):
        build_apart(work, ORDER, b"", quiet, python=python_with(work.parent))
    folder = work.parent / "second"
    folder.mkdir()
    lay_out(folder, TEMPLATE, PAYLOAD)
    code = f"import os; os.mkdir({str(folder / 'plan')!r})"
    with pytest.raises(DeploymentError, match="the disk refuses: Is a directory; free space"):
        build_apart(folder, ORDER, b"", quiet, python=python_with(work.parent, code))


@pytest.mark.parametrize(
    ("group", "files", "free"),
    [
        ("0::/agent", {"agent/memory.max": "800", "agent/memory.current": "500"}, 300),
        ("0::/agent", {"agent/memory.max": "max", "agent/memory.current": "500"}, 2048),
        (
            "0::/agent",
            {
                "agent/memory.max": "800",
                "agent/memory.current": "900",
                "agent/memory.stat": "file 9\ninactive_file 250",
            },
            150,
        ),
        (
            "4:memory:/a\n0::/",
            {"memory/a/memory.limit_in_bytes": "700", "memory/a/memory.usage_in_bytes": "200"},
            500,
        ),
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": "9223372036854771712"}, 2048),
        ("garbage", {}, 2048),
    ],
    ids=["limit", "none", "cache", "version 1", "none in version 1", "garbage"],
)
def test_the_service_s_own_limit_counts(group: str, files: dict[str, str], free: int, tmp_path: Path) -> None:
    """A build that the board has room for is killed all the same when the service has none."""
    contents = {"proc/meminfo": "MemAvailable: 2 kB", "proc/self/cgroup": group}
    contents |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(Machine(tmp_path)) == free
