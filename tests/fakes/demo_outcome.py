"""A small, good outcome of a demo: what summary, report and command are tested on."""

from __future__ import annotations

from roadcast.demo.outcome import ClipFacts, DeviceFacts, DeviceScore, Outcome, ReleaseScore, TaskFacts

VEHICLE = TaskFacts(
    task="vehicle",
    title="Vehicle classes",
    headline="accuracy",
    unit="",
    higher_is_better=True,
    rounds=["released"] * 2,
)
SPEED = TaskFacts(
    task="speed", title="Speed <forecast>", headline="mae", unit="mph", higher_is_better=False, rounds=["released"] * 2
)
MEMBERS = {"cam-1": "vehicle", "loop-1": "speed"}


def release_score(task: str, release: int, value: float, tier: str = "nano") -> ReleaseScore:
    """A score of a release; a forecast's holds what persistence would have."""
    scores = {"accuracy": value} if task == "vehicle" else {"mae": value, "mae_persistence": 5.0}
    return ReleaseScore(task=task, release=release, tier=tier, student=f"{tier}-net", scores=scores)


def device_facts(name: str, release: int = 2, *, skipped: int = 0, deployment: str = "committed") -> DeviceFacts:
    """What a device told."""
    return DeviceFacts(
        device=name,
        task=MEMBERS[name],
        tier="nano",
        student="nano-net",
        release=release,
        deployment=deployment,
        frames=100,
        swap_skipped=skipped,
        queue_dropped=1,
        latency_p50_ms=1.5,
        latency_p95_ms=4.25,
        bytes_up=3000,
        bytes_down=5 << 20,
        bytes_by_round={0: (1000, 2 << 20), 1: (2000, 3 << 20)},
        bytes_by_kind={"knowledge": 700, "state": 2300},
        raw_bytes=0,
        latency=[(1.0, 1.0, 2.0), (3.0, 1.5, 4.25)],
    )


def device_score(name: str, task: str, numbers: tuple[float, float | None, float, float | None]) -> DeviceScore:
    """A device on its own share."""
    return DeviceScore(
        device=name,
        task=task,
        tier="nano",
        conditions="low_resolution" if task == "vehicle" else "its own road",
        first=1,
        last=2,
        before_shared=numbers[0],
        before_own=numbers[1],
        after_shared=numbers[2],
        after_own=numbers[3],
    )


def good(*, reasons: list[str] | None = None, clip: bool = True) -> Outcome:
    """One round of two tasks with a device each."""
    counted = ClipFacts(
        device="cam-1", counts={"a/forward/car": 2, "a/backward/truck": 1}, coverage=0.98, truth="2 cars"
    )
    return Outcome(
        data="data/ (real & <good>)",
        rounds=1,
        seconds=100.0,
        evaluation_s=5.0,
        tasks=[VEHICLE, SPEED],
        releases=[
            release_score("vehicle", 1, 0.5),
            release_score("vehicle", 1, 0.6, "base"),
            release_score("vehicle", 2, 0.7),
            release_score("vehicle", 2, 0.7, "base"),
            release_score("speed", 1, 6.0),
            release_score("speed", 2, 4.5),
        ],
        devices=[
            device_score("cam-1", "vehicle", (0.5, 0.8, 0.6, 0.9)),
            device_score("loop-1", "speed", (6.0, 5.0, 4.5, None)),
        ],
        fleet=[device_facts("cam-1"), device_facts("loop-1")],
        clip=counted if clip else None,
        reasons=reasons or [],
        parts={"roadcast": "0.1.0", "tensorrt": None},
    )
