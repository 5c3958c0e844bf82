"""Trim a network: score its channel groups, choose widths, remove channels, refit their readers.

1. `score`: the original runs on the calibration samples. For each group the Gram matrices of its
   readers give the order in which units are removed (`eliminate`). One narrower network for each
   group, refitted on most of the samples, shows on the others how sensitive the outputs are to its
   errors.
2. `path`: the widths of all groups, from the whole network to the narrowest one (`allocate`).
3. `build`: all channels are removed at once; then the readers are refitted in running order, each
   on what the trimmed network really computes before it (`refit`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from exporter.channels.cut import Narrowed
from exporter.channels.groups import ChannelGroup, Channels, find_channels
from exporter.data.samples import Samples
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array, Graph
from exporter.graph.edits import Plan, Replace
from exporter.graph.multiply_adds import multiply_adds
from exporter.trimming.allocate import Scored, Step, path
from exporter.trimming.costs import Costs
from exporter.trimming.design import Chosen
from exporter.trimming.eliminate import Regression, eliminate
from exporter.trimming.moments import Moments, with_ridge
from exporter.trimming.network import batches, values_of
from exporter.trimming.outputs import Observed, Reference
from exporter.trimming.products import ProductToFit, in_waves, products_of
from exporter.trimming.refit import refit

_SCORE_RIDGE = 1e-5
_MOMENT_BYTES = 1 << 29  # of the Gram matrices that are summed in one pass
_ROWS_PER_COLUMN = 12  # more rows change a fit little
_LEAST_ROWS = 2048
_NARROW = 0.3  # cost of the network that shows which outputs count
_SHARE_OF_PROBES, _MOST_PROBES = 4, 128  # every fourth sample at most
_PROBE_ERROR = 0.03  # of a group, as a share of the variance of the outputs of its readers


@dataclass(frozen=True)
class FitOptions:
    """How channels are scored and refitted.

    Attributes:
        multiple: the widths that stay are multiples of it.
        ridge: as a share of the mean variance of a column.
        refits: False only removes channels.
    """

    multiple: int = 8
    ridge: float = 1e-3
    refits: bool = True


def no_progress(_message: str) -> None:
    """Report nothing."""


class Trimmer:
    """One network that is trimmed on calibration samples.

    Args:
        model: float32, of any kind that is run.
        samples: to calibrate on; labels are not used.
        options: of the runtime.
        sized: the graph with the lengths that costs are counted with; that of the model if None.

    Attributes:
        rows: product -> the rows that the samples gave for its last fit; only of fitted products.
    """

    def __init__(
        self,
        model: Model,
        samples: Samples,
        options: RunOptions,
        fit: FitOptions | None = None,
        progress: Callable[[str], None] = no_progress,
        *,
        sized: Graph | None = None,
    ) -> None:
        self._sized = model.graph() if sized is None else sized
        self.model, self.samples, self.options = model, samples, options
        self._fit, self._progress = fit or FitOptions(), progress
        self.rows: dict[str, int] = {}
        self._variances: dict[str, Array] = {}  # of the outputs of each product

    @cached_property
    def graph(self) -> Graph:
        return self.model.graph()

    @cached_property
    def channels(self) -> Channels:
        return find_channels(self.graph)

    @cached_property
    def products(self) -> tuple[ProductToFit, ...]:
        return products_of(self.graph, self.channels)

    @cached_property
    def observed(self) -> Observed:
        return Observed.of(self.graph)

    # --- scores -----------------------------------------------------------------------------------

    @cached_property
    def scored(self) -> tuple[Scored, ...]:
        """The groups with the order of their units, and their sensitivity.

        They are scored twice. The second time, outputs that narrow networks do not have do not
        count: what only removed channels need is removed first.
        """
        first = self._scored({})
        known = multiply_adds(self._sized) is not None
        steps = self._path(first, "multiply-adds" if known else "parameters")
        step = next((each for each in steps if each.cost <= _NARROW), steps[-1])
        kept = {e.group.name: e.elimination.kept(step.widths[e.group.name]) for e in first}
        return self._scored(kept)

    def _scored(self, kept: Mapping[str, Array]) -> tuple[Scored, ...]:
        """Score the groups by the errors of these units of each group; of all without an entry."""
        found = []
        reference = Reference(self.model, self.observed, self._divided[1], self.options)
        narrow = Narrowed(self.graph, self.channels.groups, kept)
        for groups in self._chunks():
            readers = self._readers(groups)
            self._progress(f"measuring what {len(readers)} products read")
            fitting, probing = (self._original_moments(readers, part) for part in self._divided)
            every = {name: each.plus(probing[name]) for name, each in fitting.items()}
            for group in groups:
                each = self._score(group, every, narrow)
                found.append(self._with_sensitivity(each, fitting, reference))
        return tuple(found)

    def path(self, by: str = "multiply-adds") -> list[Step]:
        """The widths from the whole network to the narrowest one; see `allocate.path`."""
        return self._path(self.scored, by)

    def _path(self, scored: Sequence[Scored], by: str) -> list[Step]:
        costs = Costs(self._sized, self.channels.groups, by)
        work = Costs(self._sized, self.channels.groups, "work") if by == "multiply-adds" else costs
        return path(scored, costs, work)

    def _readers(self, groups: Iterable[ChannelGroup]) -> list[ProductToFit]:
        names = {group.name for group in groups}
        return [each for each in self.products if names & each.units.keys()]

    def _chunks(self) -> Iterator[list[ChannelGroup]]:
        """Groups in running order, as many at a time as their matrices have room."""
        chunk: list[ChannelGroup] = []
        size = 0
        for group in self.channels.groups:
            needed = sum(8 * each.design.columns**2 for each in self._readers([group]))
            if chunk and size + needed > _MOMENT_BYTES:
                yield chunk
                chunk, size = [], 0
            chunk.append(group)
            size += needed
        if chunk:
            yield chunk

    def _original_moments(
        self, readers: Sequence[ProductToFit], samples: Samples
    ) -> dict[str, Moments]:
        moments = {each.node.name: Moments(each.design.columns) for each in readers}
        first = 0
        for values in self._values(self.model, readers, samples):
            for each in readers:
                rows = self._rows(each, values[each.data], each.design.places, first)
                moments[each.node.name].add(rows)
            first += len(values[readers[0].data])
        return {name: each.finish() for name, each in moments.items()}

    def _values(
        self, model: Model, readers: Sequence[ProductToFit], samples: Samples
    ) -> Iterator[Mapping[str, Array]]:
        feeds = batches(samples, self.graph)
        return values_of(model, (each.data for each in readers), feeds, self.options)

    def _rows(self, product: ProductToFit, values: Array, places: Array, first: int) -> Array:
        """The rows of a batch: at the same positions in the original and in a trimmed network."""
        number = self.products.index(product)
        chosen = Chosen(first, self._rows_per_sample(product), number)
        return product.design.rows(values, places, chosen)

    def _rows_per_sample(self, product: ProductToFit) -> int:
        wanted = max(_LEAST_ROWS, _ROWS_PER_COLUMN * product.design.columns)
        return max(1, -(-wanted // max(1, self.samples.count)))

    def _score(
        self, group: ChannelGroup, moments: Mapping[str, Moments], narrow: Narrowed
    ) -> Scored:
        self._progress(f"scoring {group.units} units of {group.name}")
        regressions = []
        for each in self._readers([group]):
            gram, _ = moments[each.node.name].centered(centers=each.bias is not None)
            weights = each.weights
            variance = np.einsum("io,io->o", weights, gram @ weights)
            self._variances[each.node.name] = variance
            count = _outputs_of(each, narrow)
            weights, variance = count(weights), count(variance)
            regular, _ = with_ridge(gram, _SCORE_RIDGE)
            regressions.append(
                Regression(regular, weights, each.units[group.name], float(variance.sum()))
            )
        return Scored(group, eliminate(regressions, group.units), multiple=self._fit.multiple)

    # --- sensitivity ------------------------------------------------------------------------------

    @cached_property
    def _divided(self) -> tuple[Samples, Samples]:
        """Samples to fit on, and others to probe with: a fit on few samples is exact on them."""
        count = self.samples.count
        probes = np.arange(0, count, max(_SHARE_OF_PROBES, -(-count // _MOST_PROBES)))
        others = np.setdiff1d(np.arange(count), probes)
        return self.samples.at(others.tolist()), self.samples.at(probes.tolist())

    def _with_sensitivity(
        self,
        scored: Scored,
        moments: Mapping[str, Moments],
        reference: Reference,
    ) -> Scored:
        """Remove units of this group alone, and see how much the outputs change."""
        errors = scored.elimination.errors
        removed = int(np.searchsorted(errors, _PROBE_ERROR))
        removed = min(max(removed, 1), scored.group.units - 1)
        if removed < 1 or errors[removed] <= 0.0:
            return scored
        kept = {scored.group.name: scored.elimination.kept(scored.group.units - removed)}
        narrowed = Narrowed(self.graph, [scored.group], kept)
        edits = [
            edit
            for each in self._readers([scored.group])
            for edit in self._fitted(each, narrowed, moments[each.node.name], original=True)
        ]
        model = self.model.apply(Plan(narrowed.edits())).apply(Plan(tuple(edits)))
        error = reference.compare(model).error
        return replace(scored, sensitivity=error / float(errors[removed]))

    # --- the trimmed network ----------------------------------------------------------------------

    def build(self, widths: Mapping[str, int]) -> Model:
        """The network with so many units of each group, its readers refitted."""
        kept = {
            each.group.name: each.elimination.kept(widths[each.group.name])
            for each in self.scored
            if widths.get(each.group.name, each.group.units) < each.group.units
        }
        return self.without(kept)

    def without(self, kept: Mapping[str, Array]) -> Model:
        """The network with these units of each group; others stay whole."""
        narrowed = Narrowed(self.graph, self.channels.groups, kept)
        edits = narrowed.edits()
        if not edits:
            return self.model
        trimmed = self.model.apply(Plan(edits))
        if not self._fit.refits:
            return trimmed
        assert self.scored  # noqa: S101 - a fit needs the variances that it measures
        first = min(self.graph.positions[each.node.name] for each in self._narrower(kept))
        later = tuple(e for e in self.products if self.graph.positions[e.node.name] >= first)
        for number, wave in enumerate(in_waves(self.graph, later)):
            self._progress(f"refitting step {number + 1}")
            changes = self._refit(trimmed, narrowed, wave)
            trimmed = trimmed.apply(Plan(tuple(changes)))
        return trimmed

    def _narrower(self, kept: Mapping[str, Array]) -> list[ProductToFit]:
        return [each for each in self.products if each.units.keys() & kept.keys()]

    def _refit(
        self, trimmed: Model, narrowed: Narrowed, wave: Sequence[ProductToFit]
    ) -> list[Replace]:
        """New kernels and biases of some products, on what the trimmed network computes now."""
        left = {each.node.name: self._left(each, narrowed) for each in wave}
        moments = {
            each.node.name: Moments(len(left[each.node.name][1]), each.design.columns)
            for each in wave
        }
        new_values, old_values = (
            self._values(model, wave, self.samples) for model in (trimmed, self.model)
        )
        first = 0
        for new, old in zip(new_values, old_values, strict=True):
            for each in wave:
                rows = self._rows(each, new[each.data], left[each.node.name][0], first)
                others = self._rows(each, old[each.data], each.design.places, first)
                moments[each.node.name].add(rows, others)
            first += len(new[wave[0].data])
        self.rows.update((name, each.finish().count) for name, each in moments.items())
        return [
            edit
            for each in wave
            for edit in self._fitted(each, narrowed, moments[each.node.name], original=False)
        ]

    def _left(self, product: ProductToFit, narrowed: Narrowed) -> tuple[Array, Array]:
        """The places of the design in the narrower kernel, and the columns that are left."""
        design = product.design
        axis = design.consumer.contraction.kernel_axis
        positions = narrowed.positions(product.kernel, axis, product.kernel_use)
        if positions is None:
            positions = np.arange(design.kernel_shape[axis])
        columns = design.columns_of(positions)
        stays = np.isin(design.places[:, 0], positions)
        numbers = np.searchsorted(positions, design.places[stays])
        return numbers, columns

    def _fitted(
        self, product: ProductToFit, narrowed: Narrowed, moments: Moments, *, original: bool
    ) -> list[Replace]:
        """The new kernel and bias.

        Args:
            original: the moments are of the original network alone; its rows are narrowed.
        """
        design, use = product.design, product.kernel_use
        places, columns = self._left(product, narrowed)
        if original:
            narrow = Moments(0, 0)
            narrow.count, narrow.sums = moments.count, moments.sums[columns]
            narrow.gram, narrow.cross = (
                moments.gram[np.ix_(columns, columns)],
                moments.gram[columns],
            )
            narrow.other_sums = moments.sums
            moments = narrow
        outputs = narrowed.positions(product.kernel, design.operation.kernel_axis, use)
        kernel = product.values
        variance = self._variances[product.node.name]
        if outputs is not None:
            variance = _outputs_of(product, narrowed)(variance)
            kernel = np.take(kernel, outputs, design.operation.kernel_axis)
        shape = narrowed.take(product.kernel, use, product.values).shape
        weights, shift = refit(
            moments,
            design.weights(kernel),
            columns,
            self._fit.ridge,
            float(variance.sum()),
            has_bias=product.bias is not None,
        )
        changes = [Replace(product.kernel, design.kernel(weights, shape, places), (use,))]
        if product.bias is not None:
            name, bias_use, sign = product.bias
            read = self.graph.tensors[name].read
            assert read is not None  # noqa: S101 - narrows the type; `products_of` has checked it
            bias = narrowed.take(name, bias_use, read())
            changes.append(Replace(name, bias + sign * shift.reshape(bias.shape), (bias_use,)))
        return changes


def _outputs_of(product: ProductToFit, narrowed: Narrowed) -> Callable[[Array], Array]:
    """Takes the columns of the outputs that stay; the last axis has all of a product's outputs."""
    axis = product.design.operation.kernel_axis
    positions = narrowed.positions(product.kernel, axis, product.kernel_use)
    if positions is None:
        return np.asarray
    channels = product.design.kernel_shape[axis]

    def taken(values: Array) -> Array:
        found = values.reshape(*values.shape[:-1], -1, channels)[..., positions]
        return found.reshape(*values.shape[:-1], -1)

    return taken
