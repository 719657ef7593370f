"""What a round was made from and what came of it, hash by hash: enough to do it again and compare bit for bit.

Owns the manifest's form, how it is taken from a job's folder, and how two are compared; does nothing again itself (see
`replay`). The worker writes ``manifest.json`` beside its result. It holds no secret: the salt enters as a hash only.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import numpy as np

from broker_server.distil_job import DistilJob, DistilResult, DistilSettings
from edge_protocol.errors import DistillationError

PARTS = ("roadcast", "numpy", "torch", "safetensors", "msgspec", "onnx", "onnxscript", "opencv-python-headless")
"""Packages whose version can change a bit of a candidate."""
MANIFEST = "manifest.json"


class RoundManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a round's candidate depends on, and the candidate.

    Attributes:
        release: counter of the release that the round started from, 0 for none.
        base: tier → SHA-256 of that release's weights payload.
        proxy: SHA-256 of the proxy blob that was answered; "" in round 0.
        settings: strategy, seed, threads and everything else.
        environment: versions and machine, see `environment`; ``device`` is what the training ran on.
        inputs: file → SHA-256: ``job.json`` and reports relative to the job's folder; packs, the task's file and the
            starting state of the training absolute.
        reports: device → round in which it said what counts here; older ones have aged by the difference.
        outputs: file → SHA-256 of the candidate, relative to the job's folder; without its variants, which are there or
            not by times that were measured.
        result: scores, trust and refusals.
    """

    task: str
    round: int
    release: int
    base: dict[str, str]
    proxy: str
    settings: DistilSettings
    environment: dict[str, str]
    inputs: dict[str, str]
    reports: dict[str, int]
    outputs: dict[str, str]
    result: DistilResult


def environment() -> dict[str, str]:
    """Versions of the parts, and of the machine what arithmetic depends on; loads none of the parts."""
    found = {part: _version(part) for part in PARTS}
    simd = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    return found | {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()} {' '.join(platform.libc_ver())}".strip(),
        "simd": " ".join(simd),
    }


def describe(
    job_dir: Path,
    job: DistilJob,
    result: DistilResult,
    *,
    inputs: Mapping[str, str],
    heard: Mapping[str, int],
    device: str,
) -> RoundManifest:
    """Take the manifest of a job that has just been done.

    Args:
        job_dir: its folder, candidate and all.
        job: what was to be done.
        result: what came of it.
        inputs: hashes taken before it began, by `input_hashes`.
        heard: device → round of its report.
        device: that the training ran on: ``cpu``, or the name of a CUDA device.

    Raises:
        OSError: a file is gone.
    """
    outputs = sorted(path for path in (job_dir / "candidate").glob("*/*") if path.is_file())
    return RoundManifest(
        task=job.task,
        round=job.round,
        release=job.release,
        base=job.base,
        proxy=job.proxy,
        settings=job.settings,
        environment=environment() | {"device": device},
        inputs=dict(inputs),
        reports=dict(heard),
        outputs={str(path.relative_to(job_dir)): digest(path) for path in outputs},
        result=result,
    )


def encoded(manifest: RoundManifest) -> bytes:
    """JSON, the same bytes for the same manifest."""
    return msgspec.json.encode(manifest, order="sorted")


def decoded(data: bytes, where: str) -> RoundManifest:
    """Read a manifest.

    Raises:
        DistillationError: it is none, or one of another version of Roadcast.
    """
    try:
        return msgspec.json.decode(data, type=RoundManifest)
    except msgspec.MsgspecError as error:
        raise DistillationError(f"{where}: not a manifest of a round: {error}") from error


def digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        found = sha256()
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()


def outcomes(manifest: RoundManifest) -> dict[str, str]:
    """What came of a round, named, as text that is the same only when every bit is."""
    result = manifest.result
    scores = {f"{tier}/{side}": said for tier, sides in result.metrics.items() for side, said in sides.items()}
    heard = {f"report/{device}": result.devices.get(device, "") for device in {*manifest.reports, *result.devices}}
    heard = {
        name: refused or _text(result.teacher.get(name.replace("report", "share", 1)))
        for name, refused in heard.items()
    }
    files = {name.removeprefix("candidate/"): sha for name, sha in manifest.outputs.items()}
    trunks = {f"trunk/{device}": why or "counts" for device, why in sorted(result.trunks.items())}
    cohorts = {f"{tier}/cohorts": _text(said) for tier, said in result.cohorts.items()}
    scored = {f"{name} scores": _text(said) for name, said in scores.items()}
    return files | scored | cohorts | dict(sorted(heard.items())) | trunks


def changed(before: Mapping[str, str], after: Mapping[str, str], names: Iterable[str] | None = None) -> dict[str, str]:
    """Say where two tables differ: name → ``before → after``; only under `names`, when given."""
    names = sorted(before.keys() | after.keys()) if names is None else names
    pairs = ((name, before.get(name, "none"), after.get(name, "none")) for name in names)
    return {name: f"{then} → {now}" for name, then, now in pairs if then != now}


def input_hashes(job_dir: Path, job: DistilJob) -> dict[str, str]:
    """Hash every file that a job reads; names are relative to its folder or absolute.

    Raises:
        DistillationError: one cannot be read.
    """
    packs = [job.anchors, job.proxies, job.validation]
    task = [job.task] if job.task.endswith((".yaml", ".yml")) else []
    start = sorted(str(path) for path in Path(job.current).glob("*.safetensors")) if job.current else []
    names = ["job.json", *(f"reports/{name}" for name in job.reports), *task, *packs, *start]
    try:
        return {name: digest(job_dir / name) for name in names}
    except OSError as error:
        raise DistillationError(f"{job_dir}: a file of the job cannot be read: {error}") from error


def _text(value: object) -> str:
    return "none" if value is None else msgspec.json.encode(value).decode()


def _version(part: str) -> str:
    try:
        return version(part)
    except PackageNotFoundError:
        return "none"
