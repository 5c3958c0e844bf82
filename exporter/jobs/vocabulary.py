"""The tokenizer and configuration files next to a model whose vocabulary is cut on both sides."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import NotAllowedError, UsageError
from exporter.formats.model import Model
from exporter.output.files import refuse_existing_file
from exporter.planning.cut import Cut, CutOptions, plan_cut

if TYPE_CHECKING:
    from exporter.tokens.files import TokenFiles


@dataclass(frozen=True, eq=False)
class TokenCut:
    """The options of a cut, completed for the files of a tokenizer.

    Attributes:
        files: None if none have to follow the cut.
        notes: which tokens are kept too, one sentence each.
    """

    options: CutOptions
    files: TokenFiles | None = None
    notes: tuple[str, ...] = ()

    def texts(self, cut: Cut) -> dict[str, str]:
        """Name -> content of each file that belongs to the cut model."""
        chosen = cut.selection
        return {} if self.files is None else self.files.rewritten(chosen.kept, chosen.units)


def complete_tokens(model: Model, options: CutOptions, path: Path | None) -> TokenCut:
    """The options, which keep all tokens that the files next to a model need.

    Args:
        path: of the model; None if it has none, then no files follow.

    Raises:
        NotAllowedError: the user removes a token that the files name.
    """
    folder = None if path is None else path.parent
    if not options.cuts_input or folder is None:
        return TokenCut(options)
    from exporter.tokens.files import TokenFiles

    files = TokenFiles.in_folder(folder)
    if not files.texts:
        return TokenCut(options)
    selection = plan_cut(model, options).selection
    closed = not options.keep_ids
    needed = files.needed(selection.kept, selection.units, closed=closed)
    lost = sorted(set(needed).difference(selection.kept))
    if options.allow_remove_special:
        lost = [unit for unit in lost if needed[unit] == "a part of other tokens"]
    special = [unit for unit in lost if needed[unit] != "a part of other tokens"]
    if options.remove is not None and special:
        raise NotAllowedError(
            f"{selection.describe_unit(special[0])} is {needed[special[0]]}",
            "leave it out of --remove, or use --allow-remove-special",
        )
    counts = Counter(needed[unit] for unit in lost)
    notes = tuple(f"{count} tokens are kept too: {why}" for why, count in counts.items())
    if lost:
        kept = (*selection.kept, *lost)
        kept = kept if options.keep_order else tuple(sorted(kept))
        options = replace(options, keep=kept, remove=None)
    if options.keep_ids:
        unknown = options.unknown_id if options.unknown_id is not None else files.unknown
        return TokenCut(replace(options, unknown_id=unknown), None, notes)
    return TokenCut(options, files, notes)


def check_token_files(options: CutOptions, source: Path, out: Path, *, force: bool) -> None:
    """Refuse to replace the tokenizer of the original, before any work is done.

    Raises:
        UsageError: the result would be in the folder of the original.
        OutputError: a file exists.
    """
    if not options.cuts_input or options.keep_ids:
        return
    from exporter.tokens.files import TokenFiles

    files = TokenFiles.in_folder(source.parent)
    if files.texts and out.parent.resolve() == source.parent.resolve():
        raise UsageError(
            f"{next(iter(files.texts))} next to the result would replace the file of the original",
            "write the result into another folder, or use --keep-ids",
        )
    for name in files.texts:
        refuse_existing_file(out.with_name(name), force=force)
