"""Numerics are set, not inherited: the last bits of a result depend on them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Runs the block with `threads` CPU threads, full float32 precision and no autotuning.

    Sums are split by the number of threads, in torch as in the BLAS behind numpy; a GPU's TF32
    rounds to 10 bits, and its autotuner chooses algorithms by the clock.
    """
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            threadpool_limits(limits=threads, user_api="blas"),
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ),
        ):
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])
