"""Preprocessing: the release's input, this device's camera."""

from __future__ import annotations

import numpy as np
import pytest

from devices.preprocess import Preprocess, PreprocessConfig
from edge_protocol.config import load_config
from edge_protocol.errors import ConfigError
from edge_protocol.task import ImageInput

RGB = ImageInput(height=16, width=24, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2))


def test_size_and_normalisation() -> None:
    """A frame of any size becomes the student's input, normalised as the release says."""
    prepare = Preprocess(RGB)
    for shape in ((64, 64), (8, 8), (16, 24)):
        raw = prepare.raw(np.full((*shape, 3), (255, 102, 0), np.uint8))
        assert raw.shape == (16, 24, 3)
        batch = prepare.batch(raw[None])
        assert batch.shape == (1, 3, 16, 24)
        assert batch.dtype == np.float32
        np.testing.assert_allclose(batch[0, :, 3, 3], [1.0, 0.0, -1.5], atol=1e-6)
    assert prepare.batch(np.zeros((0, 16, 24, 3), np.uint8)).shape == (0, 3, 16, 24)


def test_gains_undo_a_colour_cast() -> None:
    """Gains multiply each colour and stay within a byte."""
    raw = Preprocess(RGB, PreprocessConfig(gains=(2.0, 1.0, 0.5))).raw(np.full((16, 24, 3), 200, np.uint8))
    assert raw[0, 0].tolist() == [255, 200, 100]


def test_equalise_spreads_the_brightness() -> None:
    """A foggy picture gets its full range back."""
    ramp = np.linspace(150, 180, 24).astype(np.uint8)
    raw = Preprocess(RGB, PreprocessConfig(equalise=True)).raw(np.repeat(np.tile(ramp, (16, 1))[:, :, None], 3, axis=2))
    assert raw.max() > 250
    assert raw.min() < 5


def test_grey_input_and_overrides() -> None:
    """A grey student gets one channel, and a device may normalise differently."""
    grey = ImageInput(height=8, width=8, mean=(0.5,), std=(0.5,), channels=1)
    prepare = Preprocess(grey, PreprocessConfig(mean=(0.0,), std=(1.0,)))
    raw = prepare.raw(np.full((8, 8, 3), 51, np.uint8))
    assert raw.shape == (8, 8, 1)
    np.testing.assert_allclose(prepare.batch(raw[None]), 0.2, atol=1e-6)


@pytest.mark.parametrize(
    "config",
    [PreprocessConfig(gains=(1.0,)), PreprocessConfig(mean=(0.5,)), PreprocessConfig(std=(0.5, 0.5, 0.0))],
)
def test_wrong_number_of_values(config: PreprocessConfig) -> None:
    """A configuration that does not fit the input is refused at the start, not at the first frame."""
    with pytest.raises(ConfigError, match="preprocess"):
        Preprocess(RGB, config)


def test_configuration_is_checked_when_read() -> None:
    """A gain of zero would blind the device."""
    assert load_config("gains: [1.1, 1.0, 0.9]", PreprocessConfig, where="x").gains == (1.1, 1.0, 0.9)
    with pytest.raises(ConfigError, match="gains"):
        load_config("gains: [0, 1, 1]", PreprocessConfig, where="x")
