"""Folding batch norm changes no answer and leaves no batch norm."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from edge_models.students import Student
from edge_protocol.errors import ExportError
from export.fold import folded


def test_a_folded_student_answers_the_same(student: Student) -> None:
    """After batch norm has seen data, the folded copy agrees and the original is untouched."""
    seen = deepcopy(student)
    with torch.no_grad():
        seen.train()(torch.randn(8, 3, 32, 32) + 0.5)
    before = len(seen.state_dict())
    plain = folded(seen)
    seen.eval()
    x = torch.randn(4, 3, 32, 32)
    assert torch.allclose(plain(x)[1], seen(x)[1], atol=1e-5)
    assert not any("running" in name for name in plain.state_dict())
    assert len(seen.state_dict()) == before


def test_batch_norm_after_a_linear_layer_is_folded_too() -> None:
    """A linear layer takes its batch norm in."""
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU())
    model(torch.randn(16, 4))
    x = torch.randn(3, 4)
    assert torch.allclose(folded(model)(x), model.eval()(x), atol=1e-5)
    assert len(folded(model).state_dict()) == 2


def test_a_batch_norm_elsewhere_is_an_error() -> None:
    """A batch norm that follows nothing foldable is named."""
    with pytest.raises(ExportError, match="batch norm '1' cannot be folded"):
        folded(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4)))
