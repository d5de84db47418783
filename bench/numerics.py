"""Numerics are set, not inherited: the last bits of a result depend on them. And memory."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from threadpoolctl import threadpool_limits

_threads: ContextVar[int | None] = ContextVar("_threads", default=None)
"""What `pinned` has set in this thread."""


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Runs the block with `threads` CPU threads, full float32 precision and no autotuning.

    Sums are split by the number of threads, in torch as in the BLAS behind numpy; a GPU's TF32
    rounds to 10 bits, and its autotuner chooses algorithms by the clock. Inside a block with the
    same number nothing is done: looking for the loaded libraries takes milliseconds.
    """
    if _threads.get() == threads:
        yield
        return
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    inside = _threads.set(threads)
    try:
        with (
            threadpool_limits(limits=threads, user_api="blas"),
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ),
        ):
            yield
    finally:
        _threads.reset(inside)
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was wanting, on a GPU or here."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    # torch on the CPU has no type for it.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def free_memory() -> None:
    """Gives back what nothing refers to any more, also to the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
