"""The file of an EDM network: a pickle that carries the source of the classes in it.

NVIDIA's EDM saves `{"ema": network, ...}` with Python's pickle (Karras et al. 2022,
arXiv:2206.00364; github.com/NVlabs/edm). Objects of its own classes are saved as a call of
`torch_utils.persistence._reconstruct_persistent_obj` with a dictionary: the source of the whole
module that defines the class, the name of the class, and the state of the object. So to load such a
file is to run Python code out of it.

`facts` reads what the network says of itself and runs nothing: every class and function in the
pickle is replaced by one that only holds what it is given. `load` runs the code. The modules that
this code imports, `torch_utils` and `dnnlib` of EDM's repository, need not be installed: what is
needed of them is stood in for here, seen by that code alone and left in no table of Python's.
"""

import builtins
import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import torch
from torch import nn

from bench.errors import ModelError

_CLASSES = "EDMPrecond, VPPrecond, VEPrecond or iDDPMPrecond"
_LAYOUT = f"expected NVIDIA's layout, {{'ema': network}} with an {_CLASSES}"
_VERSION = 6
"""Of the way in which objects are saved, since StyleGAN2-ADA."""


@dataclass(frozen=True)
class Facts:
    """What a network says of itself.

    Attributes:
        network: the name of its class.
        resolution: H = W of an image.
        channels: C of an image.
        labels: number of classes, 0 without.
        sigma_min: least noise level that it knows.
        sigma_max: most.
        use_fp16: whether it computes in float16 on a GPU.
    """

    network: str
    resolution: int
    channels: int
    labels: int
    sigma_min: float
    sigma_max: float
    use_fp16: bool


def facts(path: Path) -> Facts:
    """What the network in `path` says of itself, read without running any code of the file.

    Raises:
        ModelError: there is no such file, it is torn, or holds something else.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}).") from error
    return _facts(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)  # a sweep asks for each of its cells
def _facts(path: Path, modified: int, size: int) -> Facts:
    ema = _ema(_unpickled(path, _Reader), path)
    if not isinstance(ema, _Saved):
        raise ModelError(f"{path} holds no saved network under 'ema'; {_LAYOUT}.")

    def number(key: str) -> float:
        value = ema.state.get(key)
        if not isinstance(value, int | float):
            raise ModelError(
                f"{path} holds a {ema.name} without {key} (found: {value!r}); {_LAYOUT}."
            )
        return value

    return Facts(
        network=ema.name,
        resolution=int(number("img_resolution")),
        channels=int(number("img_channels")),
        labels=int(number("label_dim")),
        sigma_min=float(number("sigma_min")),
        sigma_max=float(number("sigma_max")),
        use_fp16=bool(number("use_fp16")),
    )


def load(path: Path) -> nn.Module:
    """The network in `path`, on the CPU, for inference. Runs the code in the file.

    Raises:
        ModelError: the file is torn or holds something else, or its code fails.
    """
    network = _ema(_unpickled(path, _Loader), path)
    if not isinstance(network, nn.Module):
        raise ModelError(f"{path} holds no network under 'ema'; {_LAYOUT}.")
    return network.eval().requires_grad_(False)


def _unpickled(path: Path, unpickler: Callable[[BinaryIO], pickle.Unpickler]) -> object:
    try:
        with path.open("rb") as file:
            return unpickler(file).load()
    except ModelError:
        raise
    except MemoryError:
        raise
    # A damaged pickle may raise anything, as may the code in it.
    except Exception as error:
        raise ModelError(
            f"{path} cannot be unpickled ({type(error).__name__}: {error}). It is torn, needs "
            f"another version of PyTorch, or is no pickle of EDM's: {_LAYOUT}. Copy it again, or "
            "load it in a function of your own, kind: torch."
        ) from error


def _ema(data: object, path: Path) -> object:
    if isinstance(data, Mapping) and "ema" in data:
        return data["ema"]
    found = f"a dictionary of {', '.join(map(repr, data))}" if isinstance(data, dict) else ""
    raise ModelError(f"{path} holds {found or f'a {type(data).__name__}'}; {_LAYOUT}.")


class _Inert(dict[Any, Any]):
    """In place of every class and function: takes whatever it is given and does nothing.

    A dictionary, because some of those in place of which it stands are.
    """

    def __new__(cls, *_: object, **__: object) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        pass

    def append(self, item: object) -> None:
        pass


@dataclass(frozen=True)
class _Saved:
    """An object of a class whose source is in the file: the name of the class, and its state."""

    name: str
    state: Mapping[str, Any]

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> "_Saved":
        return cls(str(meta["class_name"]), meta["state"] or {})


_SAVED = ("torch_utils.persistence", "_reconstruct_persistent_obj")


class _Reader(pickle.Unpickler):
    """Reads numbers, texts and dictionaries, and the states of saved objects; runs nothing."""

    def find_class(self, module: str, name: str, /) -> Any:
        return _Saved.of if (module, name) == _SAVED else _Inert


class _Loader(pickle.Unpickler):
    """Loads saved objects by the source in the file, with stand-ins for EDM's own modules."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._stand_ins = _stand_ins()
        self._made: dict[str, dict[str, Any]] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) == _SAVED:
            return self._reconstructed
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _on_the_cpu
        if module in self._stand_ins:
            return getattr(self._stand_ins[module], name)
        return super().find_class(module, name)

    def _reconstructed(self, meta: Mapping[str, Any]) -> object:
        """An object of a class in the file, with its state and without its constructor."""
        if meta["version"] != _VERSION or meta["type"] != "class":
            raise ModelError(
                f"{meta['class_name']} was saved as a {meta['type']} of version {meta['version']}; "
                f"expected a class of version {_VERSION}."
            )
        made = self._module(meta["module_src"])[meta["class_name"]]
        built = made.__new__(made)
        if hasattr(built, "__setstate__"):
            built.__setstate__(meta["state"])
        else:
            built.__dict__.update(meta["state"])
        return built

    def _module(self, source: str) -> dict[str, Any]:
        """The names that a source defines; run once for all objects that bring it."""
        if source not in self._made:
            name = f"edm_pickle_source_{len(self._made)}"
            names = {
                "__name__": name,
                "__builtins__": vars(builtins) | {"__import__": self._import},
            }
            # What model.trust is for.
            exec(compile(source, f"<{name}>", "exec"), names)
            self._made[source] = names
        return self._made[source]

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: tuple[str, ...] = (),
        level: int = 0,
    ) -> ModuleType:
        """`import` as the code in the file sees it."""
        root = name.partition(".")[0]
        if level or root not in self._stand_ins:
            return __import__(name, globals, locals, fromlist, level)
        if name not in self._stand_ins:
            raise ImportError(f"there is no stand-in for {name} of EDM's repository")
        return self._stand_ins[name if fromlist else root]


def _stand_ins() -> dict[str, ModuleType]:
    """What the sources of networks import of EDM's repository, as far as inference needs it."""

    class EasyDict(dict[str, Any]):
        """A dictionary whose values are attributes as well."""

        def __getattr__(self, name: str) -> Any:
            try:
                return self[name]
            except KeyError:
                raise AttributeError(name) from None

        def __setattr__(self, name: str, value: object) -> None:
            self[name] = value

        def __delattr__(self, name: str) -> None:
            del self[name]

    made = {
        name: ModuleType(name)
        for name in (
            *("torch_utils", "torch_utils.persistence", "torch_utils.misc"),
            *("dnnlib", "dnnlib.util"),
        )
    }
    # Decorators for classes that are to be saved; here none is.
    vars(made["torch_utils.persistence"]).update(
        persistent_class=lambda made: made,
        import_hook=lambda hook: hook,
        is_persistent=lambda thing: False,
    )
    vars(made["torch_utils"]).update(
        persistence=made["torch_utils.persistence"], misc=made["torch_utils.misc"]
    )
    vars(made["dnnlib.util"]).update(EasyDict=EasyDict)
    vars(made["dnnlib"]).update(util=made["dnnlib.util"], EasyDict=EasyDict)
    return made


def _on_the_cpu(data: bytes) -> object:
    """Weights, also those that were saved on a GPU."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
