"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # tests import onnxruntime by themselves too

PROJECT = Path(__file__).parent.parent

settings.register_profile(
    "ci",
    derandomize=True,  # the same examples for everyone: a failure is of the change, not of luck
    database=None,
    deadline=None,  # the machines share their cores
    print_blob=True,
)
settings.register_profile("search", max_examples=2000, deadline=None)  # for a person who has time
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The folder of real models; see its README."""
    named = os.environ.get("EXPORTER_ZOO")
    folder = Path(named) if named else PROJECT.parent / "shared" / "zoo"
    if not folder.is_dir():
        pytest.skip(f"no folder of real models at {folder}; EXPORTER_ZOO names it")
    return folder


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the source tree."""
    return PROJECT


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small ONNX and TFLite files; see `tests.builders.shelf`."""
    from tests.builders.shelf import fill  # noqa: PLC0415 - for those tests that ask for it

    folder = tmp_path_factory.mktemp("shelf")
    fill(folder)
    return folder


@pytest.fixture(scope="session")
def keras_shelf(shelf: Path) -> Path:
    """The same folder, with Keras files too."""
    from tests.builders.shelf import fill_keras  # noqa: PLC0415 - for those tests that ask for it

    fill_keras(shelf)
    return shelf


@pytest.fixture(scope="session")
def digits_network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The demo's network, trained once for all tests, and the accuracy that the training tells."""
    from tests.builders.digits import trained  # noqa: PLC0415 - for those tests that ask for it

    path = tmp_path_factory.mktemp("trained") / "digits.keras"
    return path, trained(path, 0)
