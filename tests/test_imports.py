"""Heavy packages stay where they belong: every module is imported in a process that lacks them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("roadcast", "edge_client", "broker_server", "export", "devices", "edge_models", "edge_protocol")
HEAVY = ("torch", "tensorrt", "onnx", "onnxscript", "cv2", "sqlalchemy", "alembic", "fastapi", "matplotlib")
NOT_ON_A_DEVICE = (
    "torch",
    "onnx",
    "onnxscript",
    "fastapi",
    "sqlalchemy",
    "alembic",
    "matplotlib",
    "urllib3",
    "broker_server",
)

NOT_BEFORE_A_FRAME = (
    "typer",
    "rich",
    "paho",
    "http.client",
    "ssl",
    "email",
    "asyncio",
    "statistics",
    "cryptography.x509",
    "devices.latency",
    "devices.runners.trt_build",
    "export.in_tensorrt",
    "edge_client.mirror",
    "edge_client.trainer",
)
"""Each made the first answer of an agent late (`benchmarks.devices.start`); most are loaded where they are used."""
TORCH_HOMES = (
    "edge_models.augment",
    "broker_server.bench",
    "broker_server.candidate_files",
    "broker_server.candidate_variants",
    "broker_server.distil_worker",
    "broker_server.distiller",
    "broker_server.hearing",
    "broker_server.tier_training",
    "broker_server.training",
    "edge_client.trainer",
    "edge_client.trunk_lesson",
    "edge_models.fit",
    "edge_models.head_fits",
    "edge_models.local_training",
    "edge_models.losses",
    "edge_models.ratio_head",
    "edge_models.students",
    "export",
)
"""Modules (and all below them) that may import torch and onnx at their top; nothing else may import them at its top."""
SQL_HOMES = ("broker_server.store", "broker_server.migrations")
"""Modules that may import SQLAlchemy and Alembic."""
SERVER_SHELLS = (
    "broker_server.blob_export",
    "broker_server.broadcast",
    "broker_server.foreign",
    "broker_server.key_setup",
    "broker_server.keys",
    "broker_server.publisher",
    "broker_server.pump",
    "broker_server.releases",
    "broker_server.replay",
    "broker_server.round_facts",
    "broker_server.server",
    "broker_server.setup",
    "broker_server.signed_roles",
    "broker_server.status",
    "broker_server.workshop",
)
"""Modules of the server's process that may import SQL_HOMES."""

BLOCK = f"""
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)
        return None

sys.meta_path.insert(0, Blocked())
"""


def _modules() -> list[str]:
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if parts[-1] != "__main__" and "versions" not in parts and parts[-1] != "env":
                found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def _below(module: str, homes: tuple[str, ...]) -> bool:
    return any(module == home or module.startswith(f"{home}.") for home in homes)


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_module_imports_without_heavy_packages() -> None:
    """All but the declared homes import where torch, onnx, cv2, SQLAlchemy and the like are missing."""
    light = [name for name in _modules() if not _below(name, TORCH_HOMES + SQL_HOMES + SERVER_SHELLS)]
    code = f"""{BLOCK}
import importlib, json
failed = {{}}
for name in {light!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        failed[name] = str(error)
print(json.dumps(failed))
"""
    assert json.loads(_python(code)) == {}
    assert len(light) > len(_modules()) / 2


def test_every_declared_home_exists() -> None:
    """A home that was renamed does not stay behind as an exemption."""
    modules = set(_modules())
    assert {home for home in TORCH_HOMES + SQL_HOMES + SERVER_SHELLS if home not in modules} == set()


def test_the_serving_agent_loads_nothing_of_the_server() -> None:
    """What answers frames on a device loads no torch, no FastAPI, no SQLAlchemy, no onnx and nothing of the centre."""
    code = f"""
import sys
import edge_client.agent
print([m for m in {NOT_ON_A_DEVICE!r} if m in sys.modules])
"""
    assert _python(code).strip() == "[]"


def test_the_first_frame_waits_for_no_package_that_it_does_not_need() -> None:
    """What the service loads before it serves has no command line, no link, no HTTP, no measuring, no other runtime."""
    code = f"""
import sys
import roadcast.agent
import edge_client.agent
print([m for m in {NOT_BEFORE_A_FRAME!r} if m in sys.modules])
"""
    assert _python(code).strip() == "[]"


@pytest.mark.parametrize("command", ["client", "devices", "doctor", "flash", "version"])
def test_a_device_s_commands_load_nothing_of_the_server(command: str) -> None:
    """`roadcast client` starts on a board that has the base install only."""
    assert "Usage" in _python(
        f"{BLOCK.replace(repr('cv2') + ', ', '')}\n"
        f"from roadcast.cli import app\napp(['{command}', '--help'], standalone_mode=False)"
    )


def test_base_dependencies_hold_no_deep_learning_and_no_server() -> None:
    """`pip install roadcast` on a device brings none of the heavy packages."""
    base = {re.split(r"[\s<>=!~;\[]", line)[0].lower() for line in requires("roadcast") or [] if "extra ==" not in line}
    assert base
    assert base.isdisjoint(
        {"torch", "onnx", "onnxscript", "fastapi", "sqlalchemy", "alembic", "matplotlib", "tensorrt"}
    )


def test_no_module_is_named_after_a_dependency() -> None:
    """`onnx.py` or `torch.py` in our tree would shadow the package it wraps for a script beside it."""
    taken = {*HEAVY, "numpy", "paho", "msgspec", "onnxruntime", "rich", "typer", "safetensors", "yaml"}
    assert {name for name in _modules() if name.rpartition(".")[2] in taken} == set()


def test_there_is_no_pickle() -> None:
    """No module imports pickle or allows numpy to."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            allowed = [
                node
                for node in ast.walk(tree)
                if isinstance(node, ast.keyword)
                and node.arg == "allow_pickle"
                and not (isinstance(node.value, ast.Constant) and node.value.value is False)
            ]
            assert not names & {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}, path
            assert not allowed, path
