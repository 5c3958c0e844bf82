"""How users' data becomes samples: the options that the forms of data read."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

from exporter.errors import UsageError
from exporter.graph.lengths import Lengths
from exporter.graph.normalization import Normalization, parse_normalization

Resize = Literal["stretch", "crop", "pad"]
RESIZES: tuple[Resize, ...] = get_args(Resize)


@dataclass(frozen=True)
class DataOptions:
    """How the files of `--data` become inputs. Each form of data reads some of the options.

    Attributes:
        normalize: pixel values of images; None to find it in the model.
        resize: "stretch" ignores the aspect ratio, "crop" fills the input and cuts the rest,
            "pad" fits the whole image and fills the rest with black; None for the choice of
            preprocessor_config.json, else "stretch".
        skip_bad: leave out files that cannot be decoded; else they are an error.
        label_column: of a table; None for the only column called label, class or target.
        sample_rate: of the sound that the model takes, in Hz, if the model does not state it.
        tokenizer: tokenizer.json, vocab.txt or a SentencePiece .model; None for the one next to the
            text, else next to the model.
        lengths: of dimensions that the model leaves open.
        model: path of the model, for files that are next to it; None for a live model.
    """

    normalize: Normalization | None = None
    resize: Resize | None = None
    skip_bad: bool = False
    label_column: str | None = None
    sample_rate: int | None = None
    tokenizer: Path | None = None
    lengths: Lengths = field(default_factory=Lengths)
    model: Path | None = None

    def given(self) -> list[str]:
        """The options that the user gave, as on the command line."""
        names = [f.name for f in fields(self) if f.name not in {"lengths", "model"}]
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name)]


def parse_resize(text: str | None) -> Resize | None:
    """Read the option `--resize` (raises UsageError for an unknown way)."""
    if text is None:
        return None
    known = next((each for each in RESIZES if each == text), None)
    if known is None:
        raise UsageError(f"there is no way to resize called {text!r}", f"use {', '.join(RESIZES)}")
    return known


def parse_normalize(text: str | None) -> Normalization | None:
    """Read the option `--normalize` (raises UsageError if it is none)."""
    return None if text is None else parse_normalization(text)
