"""The version table: known versions have a row, others are refused with what to do."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from devices.runners.trt_versions import api_of, load_tensorrt
from edge_protocol.errors import NotReadyError
from tests.fakes.trt_table import exists

VERSIONS = ("8.5.2.2", "8.6.2", "10.0.1", "10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_table_says_what_the_wheels_have(version: str) -> None:
    """Each column agrees with the symbols that were read from that version's wheel."""
    api = api_of(version)
    major, minor = (int(part) for part in version.split(".")[:2])

    def there(name: str) -> bool:
        return exists(name, (major, minor))

    assert api.explicit_batch == (major == 8)
    assert (api.strongly_typed == "never") == (not there("NetworkDefinitionCreationFlag.STRONGLY_TYPED"))
    assert (api.strongly_typed == "always") == (major == 11)
    assert api.precision_flags == there("BuilderFlag.FP16")
    assert api.refit_individual == there("Network.mark_weights_refittable")
    assert api.parser_refitter == there("OnnxParserRefitter")
    assert api.monitor == there("IProgressMonitor")


@pytest.mark.parametrize("version", ["8.4.1", "7.1.3", "9.3.0", "12.0.0", "", "ten"])
def test_a_version_that_is_not_in_the_table_is_refused(version: str) -> None:
    """Too old, too new or unreadable: said, with the versions that are known."""
    with pytest.raises(NotReadyError, match=r"knows 8\.5, 8\.6, 10 and 11"):
        api_of(version)


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_a_machine_without_tensorrt_is_told_what_to_do() -> None:
    """The import happens on the call, and its failure names the remedy."""
    with pytest.raises(NotReadyError, match="JetPack"):
        load_tensorrt()
