"""Images and features of consecutive samples of a cell: the work inside a chunk."""

import resource
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from bench import samplers
from bench.chunks import Chunk, Identity
from bench.diffusion.denoiser import Denoiser, Pair
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point
from bench.errors import CellError
from bench.metrics.facts import ImageFacts
from bench.metrics.images import to_uint8
from bench.metrics.protocol import Extractor
from bench.models import Model
from bench.sweep import EXACT, Cell


def identity(extractor: Extractor) -> Identity:
    """Which extractor it is, as chunks say it."""
    return [extractor.digest, extractor.numerics]


class Sampling:
    """A cell with its model at hand.

    Args:
        cell: what to sample.
        model: its loaded model.
        batch: images per model call; sample i always belongs to batch i // batch.
        device: where the model is.
    """

    def __init__(self, cell: Cell, model: Model, batch: int, device: str) -> None:
        self._cell, self._model, self._batch, self._device = cell, model, batch, device
        self._grid = None if cell.sampler == EXACT else cell.grid()

    def chunk(self, index: int, samples: range, extractors: Mapping[str, Extractor]) -> Chunk:
        """Images of `samples`, with their features and facts.

        Args:
            index: number of the chunk, for messages.
            samples: consecutive; starts at a multiple of the batch size.
            extractors: by name.

        Raises:
            CellError: images that are not finite, or another NFE than declared.
        """
        parts: dict[str, list[Tensor]] = {name: [] for name in extractors}
        made: list[Tensor] = []
        facts: list[Future[ImageFacts]] = []
        seconds = {"sampling": 0.0, "features": 0.0}
        calls: list[int] = []
        # Facts about images are the host's work, which goes on while a device makes the next batch.
        with ThreadPoolExecutor(1) as aside:
            for batch in self._batches(samples):
                began = self._clock()
                x, spent = self._sample(batch)
                calls += spent
                images = to_uint8(self._finite(x, batch, index))
                sampled = self._clock()
                for name, extractor in extractors.items():
                    parts[name].append(extractor(images).cpu())
                made.append(images.cpu())
                facts.append(aside.submit(ImageFacts.of, made[-1]))
                seconds["sampling"] += sampled - began
                seconds["features"] += self._clock() - sampled
        return Chunk(
            features={name: torch.cat(part).numpy() for name, part in parts.items()},
            extractors={name: identity(extractor) for name, extractor in extractors.items()},
            facts=ImageFacts.merged(each.result() for each in facts),
            images=torch.cat(made).numpy(),
            calls=calls,
            seconds=seconds,
            peak_memory_mb=self._peak_memory_mb(),
        )

    def _batches(self, samples: range) -> Iterator[range]:
        for start in range(samples.start, samples.stop, self._batch):
            yield range(start, min(start + self._batch, samples.stop))

    def _sample(self, batch: range) -> tuple[Tensor, list[int]]:
        """Images (B, C, H, W) of a batch, and the model calls of each: those declared, if any."""
        denoiser = self._model.denoiser()
        x = self._run(denoiser, batch)
        calls, declared = denoiser.nfe_of(len(batch)), self._cell.nfe
        if declared is not None and set(calls) != {declared}:
            counted = " to ".join(str(n) for n in sorted({min(calls), max(calls)}))
            raise CellError(
                f"{self._name}: the sampler called the model {counted} times and declares "
                f"{declared}. Correct `calls` where it is registered."
            )
        return x, calls

    def _run(self, denoiser: Denoiser, batch: range) -> Tensor:
        cell, shape = self._cell, self._model.shape
        noise = Noise(cell.seed, batch, shape, device=self._device)
        if self._grid is None:
            drawn = self._model.draw(noise)
            if drawn is None:
                raise CellError(f"{self._name}: the model has no exact draws. Use a sampler.")
            return drawn
        assert cell.final is not None
        chosen = samplers.get(cell.sampler)
        return samplers.sample(
            chosen, denoiser, self._grid, noise, final=cell.final, params=cell.params
        )

    def _finite(self, x: Tensor, batch: range, index: int) -> Tensor:
        """`x`, or the error that says which of its images are not finite, and since when."""
        broken = (~_finite_rows(x)).nonzero().flatten().tolist()
        if not broken:
            return x
        raise CellError(
            f"{self._name}: {len(broken)} of the {len(batch)} images {batch[0]} to {batch[-1]} "
            f"(chunk {index}) are not finite, the first is sample {batch[broken[0]]}"
            f"{self._since(batch)}. {self._remedy}"
        )

    @property
    def _remedy(self) -> str:
        dtype = self._model.dtype
        if dtype == "float32":
            return "Look at the model's output there, or take smaller steps."
        largest = torch.finfo(getattr(torch, dtype)).max
        return (
            f"{dtype} holds numbers up to {largest:.4g}, and the network may need larger ones: "
            "write dtype: float32."
        )

    def _since(self, batch: range) -> str:
        """The first model call with numbers that are not finite, by running the batch again."""
        calls = 0
        found = ""

        def watch(x: Tensor, point: Point) -> Pair:
            nonlocal calls, found
            calls += 1
            pair = self._model.pair(x, point)
            if not found and not all(bool(_finite_rows(part).all()) for part in (x, *pair)):
                declared = self._cell.nfe
                of = "" if declared is None else f" of {declared}"
                # Of samplers with one call a step, which is what most people count in.
                what = "step" if declared == self._cell.steps_effective else "model call"
                sigma = float(torch.as_tensor(point.sigma).max())
                found = f", at {what} {calls}{of} (sigma {sigma:.3g})"
            return pair

        self._run(Denoiser(watch), batch)
        return found

    @property
    def _name(self) -> str:
        return f"Cell {self._cell.short} ({self._cell.label})"

    def _clock(self) -> float:
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _peak_memory_mb(self) -> float:
        if self._device == "cuda":
            return round(torch.cuda.max_memory_allocated() / 2**20, 1)
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1)


def _finite_rows(x: Tensor) -> Tensor:
    return x.isfinite().flatten(1).all(dim=1)
