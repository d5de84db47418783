"""Small pickles in the layout of NVIDIA's EDM: objects that bring the source of their classes.

The networks are exact denoisers of a Gaussian, so that what is loaded can be held against a
formula. `persistent_class` does what that of EDM's `torch_utils.persistence` does when it saves;
nothing of this is what the package loads such files with.
"""

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

MEAN, VARIANCE = (0.3, -0.2, 0.1), (0.2, 0.5, 0.05)
"""Of each channel of the data."""

SIDE = 4

SOURCE = """
import numpy as np
import torch
from torch_utils import persistence
from torch.nn.functional import silu


class Same(torch.autograd.Function):  # as in the attention of EDM's networks
    @staticmethod
    def forward(ctx, x):
        return np.float32(1) * x


@persistence.persistent_class
class Gaussian(torch.nn.Module):
    def __init__(self, mean, variance):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("variance", torch.tensor(variance).view(1, -1, 1, 1))

    def forward(self, x, sigma):
        return Same.apply((self.variance * x + sigma**2 * self.mean) / (self.variance + sigma**2))


class Precond(torch.nn.Module):
    sigma_min, sigma_max = 0, float("inf")

    def __init__(self, side=4, channels=3, labels=0, use_fp16=False, mean=(), variance=()):
        super().__init__()
        self.img_resolution, self.img_channels = side, channels
        self.label_dim, self.use_fp16 = labels, use_fp16
        self.sigma_min, self.sigma_max = self.sigma_min, self.sigma_max
        self.model = Gaussian(mean, variance)

    def forward(self, x, sigma, class_labels=None, force_fp32=False, **more):
        assert x.dtype == torch.float32 and sigma.dtype == torch.float32
        dtype = torch.float32
        if self.use_fp16 and not force_fp32:
            assert x.device.type == "cuda"
            dtype = torch.float16
        return self.model(x.to(dtype), sigma.reshape(-1, 1, 1, 1)).to(torch.float32)

    def round_sigma(self, sigma):
        return torch.as_tensor(sigma)


@persistence.persistent_class
class EDMPrecond(Precond):
    pass


@persistence.persistent_class
class VEPrecond(Precond):
    sigma_min, sigma_max = 0.02, 100


@persistence.persistent_class
class iDDPMPrecond(Precond):
    sigma_min, sigma_max = 0.0064, 20291.0

    def forward(self, x, sigma, **more):
        return super().forward(x, self.round_sigma(sigma), **more)

    def round_sigma(self, sigma):
        return 2 ** torch.as_tensor(sigma).log2().round()


@persistence.persistent_class
class Loss:
    def __init__(self):
        self.P_mean = -1.2
"""


@contextmanager
def repository() -> Iterator[dict[str, ModuleType]]:
    """The modules of EDM's repository that a saving process has, for as long as it saves."""
    names = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util", "networks")
    made = {name: ModuleType(name) for name in names}

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("this is called by its name alone")

    class EasyDict(dict[str, Any]):
        pass

    def persistent_class(original: type) -> type:
        class Decorator(original):  # type: ignore[misc]
            def __reduce__(self) -> tuple[Any, ...]:
                meta = {
                    "type": "class",
                    "version": 6,
                    "module_src": made["networks"].source,
                    "class_name": original.__name__,
                    "state": self.__dict__,
                }
                return _reconstruct_persistent_obj, (meta,), None

        return Decorator

    for thing, module in (
        (_reconstruct_persistent_obj, "torch_utils.persistence"),
        (persistent_class, "torch_utils.persistence"),
        (EasyDict, "dnnlib.util"),
    ):
        thing.__module__, thing.__qualname__ = module, thing.__name__
        setattr(made[module], thing.__name__, thing)
    made["torch_utils"].persistence = made["torch_utils.persistence"]  # type: ignore[attr-defined]
    sys.modules.update(made)
    try:
        yield made
    finally:
        for name in names:
            del sys.modules[name]


def write(
    path: Path, network: str = "EDMPrecond", *, source: str = SOURCE, **settings: Any
) -> Path:
    """A file like those of NVIDIA's, with a network of class `network` made with `settings`."""
    settings = {"mean": MEAN, "variance": VARIANCE, "side": SIDE, **settings}
    with repository() as modules:
        modules["networks"].source = source  # type: ignore[attr-defined]
        exec(source, vars(modules["networks"]))
        made = vars(modules["networks"])[network](**settings)
        data = {
            "ema": made.eval().requires_grad_(False),
            "loss_fn": vars(modules["networks"])["Loss"](),
            "augment_pipe": None,
            "dataset_kwargs": modules["dnnlib.util"].EasyDict(path="cifar10-32x32.zip"),
        }
        path.write_bytes(pickle.dumps(data))
    return path


def exact(x: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
    """x0 and eps of the Gaussian at alpha and sigma."""
    mean, variance = (torch.tensor(v, dtype=x.dtype).view(1, -1, 1, 1) for v in (MEAN, VARIANCE))
    eps = sigma * (x - alpha * mean) / (alpha**2 * variance + sigma**2)
    return (x - sigma * eps) / alpha, eps
