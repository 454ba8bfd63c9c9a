"""What every test shares: the optional folder of reference data, and reproducible randomness."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "neuro", deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("neuro")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - it seeds the libraries that draw from numpy's global state


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with reference data, weights and golden vectors; a test that needs it skips aloud where it is absent."""
    folder = Path(os.environ.get("NEURO_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"reference folder {folder} is absent; set NEURO_SHARED to run this test")
    return folder
