"""A parrot without its class: the modes on a published network, in both formats.

Expected values are NumPy's, of what the runtime answers for the whole network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exporter.formats import open_model
from exporter.formats.model import RunOptions
from exporter.graph import Array
from exporter.jobs.job import Job
from exporter.jobs.prune import Pruned, prune_model
from exporter.planning.cut import CutOptions

KINDS = ("onnx", "tflite")


@pytest.fixture(scope="module")
def parrot(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("parrot") / "parrot.npy"
    with Image.open(zoo / "images" / "parrot.jpg") as picture:
        pixels = np.asarray(picture.convert("RGB").resize((224, 224)), np.float32)
    np.save(target, pixels[None] / 127.5 - 1)
    return target


@pytest.fixture(scope="module", params=KINDS)
def network(request: pytest.FixtureRequest, zoo: Path) -> Any:
    return open_model(zoo / f"mobilenet_v1_025_224_float.{request.param}")


@pytest.fixture(scope="module")
def labels(zoo: Path) -> tuple[str, ...]:
    return tuple((zoo / "labels" / "imagenet_1001.txt").read_text("utf-8").splitlines())


def answer(model: Any, picture: Path) -> Array:
    (name,) = model.graph().inputs
    (values,) = model.runner(RunOptions())({name: np.load(picture)}).values()
    return np.asarray(values[0])


def without_macaw(network: Any, parrot: Path, labels: tuple[str, ...], **choice: Any) -> Pruned:
    job = Job(data=parrot)
    done = prune_model(network, CutOptions(remove="macaw", labels=labels, **choice), job)
    assert done.results.passed
    return done


def test_zero_warns_of_the_share_of_removed_units(
    network: Any, parrot: Path, labels: tuple[str, ...]
) -> None:
    macaw = labels.index("macaw")
    whole = answer(network, parrot)
    assert labels[whole.argmax()] == "macaw"
    done = without_macaw(network, parrot, labels, mode="zero")
    left = answer(done.model, parrot)
    others = np.delete(whole.astype(np.float64), macaw)
    assert left[macaw] > 0
    assert (
        f"the zeroed units still hold {left[macaw]:.1%} of the probability on these inputs"
        in done.warnings
    )
    np.testing.assert_allclose(
        np.delete(left, macaw), others / others.sum() * (1 - left[macaw]), atol=1e-6
    )


def test_masked_class_has_no_probability(
    network: Any, parrot: Path, labels: tuple[str, ...]
) -> None:
    macaw = labels.index("macaw")
    others = np.delete(answer(network, parrot).astype(np.float64), macaw)
    for choice in ({"mode": "mask"}, {"restore_width": True}):
        left = answer(without_macaw(network, parrot, labels, **choice).model, parrot)
        assert left[macaw] == 0
        np.testing.assert_allclose(np.delete(left, macaw), others / others.sum(), atol=1e-6)


def test_absolute_probabilities_do_not_change(
    network: Any, parrot: Path, labels: tuple[str, ...]
) -> None:
    macaw = labels.index("macaw")
    whole = answer(network, parrot)
    sliced = without_macaw(network, parrot, labels, probabilities="absolute")
    np.testing.assert_array_equal(answer(sliced.model, parrot), np.delete(whole, macaw))
    assert any("1028 bytes stay in the head" in warning for warning in sliced.warnings)
    masked = without_macaw(network, parrot, labels, mode="mask", probabilities="absolute")
    expected = whole.copy()
    expected[macaw] = 0
    np.testing.assert_array_equal(answer(masked.model, parrot), expected)
