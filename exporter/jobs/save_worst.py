"""Save the input on which a failed check differs most, for a replay."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from exporter.data.samples import Samples
from exporter.output.draft import new_file


def save_input(samples: Samples, index: int, path: Path) -> None:
    """Write one sample as an `.npz` that `--data` reads.

    Args:
        samples: of a job; inputs of any name.
        index: of the sample.
        path: replaced if it exists.

    Raises:
        OutputError: the file cannot be written.
    """

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, values in samples.values.items():
                entry = zipfile.ZipInfo(f"{name}.npy")  # with a fixed date
                with archive.open(entry, "w") as file:
                    one = np.asarray(values[index])[np.newaxis]
                    np.lib.format.write_array(file, one, allow_pickle=False)

    with new_file(path, force=True) as draft:
        draft.write(write)
        draft.publish()
