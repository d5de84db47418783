r"""A Gaussian mixture as an exact diffusion model: E[x0 | x_t] and E[eps | x_t] in closed form.

With U the (D, d) basis and P the projection onto its complement, the density of the data is

    p(x0) = sum_k w_k N(x0; m + U mu_k, U V_k diag(l_k) V_k^T U^T + rho P),

and that of x_t = alpha x0 + sigma eps is again a mixture, with variances alpha^2 l + sigma^2. So
a sampler on this model meets no network error: what is measured is the sampler alone. A call is
four matrix products: into the basis, into the axes of all components at once, and back from both.
That costs O(D d + K d^2) an image, where a basis for each component would cost O(K D d).

Reference: Tipping & Bishop 1999 (a principal subspace with an isotropic remainder); the
posterior mean of a linear Gaussian model is textbook (e.g. Bishop 2006, eq. 2.116).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.nn.functional import threshold

from bench import atomic
from bench.errors import ModelError

_FORMAT: Final = "bench-mixture/1"

# A smaller responsibility changes no pixel, but it or its products are subnormal numbers, which the
# processor handles so slowly that calls at low noise took four times as long. (Leaving components
# without a share out of the products was tried: it gains a tenth at low noise and costs a fifth at
# high noise, where all have one.)
_FLOOR: Final = 1e-20


@dataclass(frozen=True, eq=False)
class Mixture:
    """K Gaussians in a d-dimensional subspace of images, isotropic outside it.

    Made by `load`, `from_moments` or `random`. "Host" tensors are float64 on the CPU; "state"
    tensors have the dtype and device of the images that the model is called with.

    Attributes:
        shape: (C, H, W) of an image; D = C H W.
        weights: (K,) positive, summing to 1; host.
        spectrum: (K, d) positive variances along each component's own axes; host.
        remainder: variance rho of each direction outside the basis.
        mean: (D,) mean m of the data; state.
        basis: (D, d) orthonormal columns U; state.
        centres: (K, d) means mu_k relative to m, in the basis; state.
        axes: (d, K d) the V_k side by side; state.
        origin: (d,) the mean m in the basis, U^T m; state.
        along: (K d,) each mean mu_k along its component's own axes, V_k^T mu_k; state.
        digest: sha256 (hex) of the numbers that define the model.
    """

    shape: tuple[int, int, int]
    weights: Tensor
    spectrum: Tensor
    remainder: float
    mean: Tensor
    basis: Tensor
    centres: Tensor
    axes: Tensor
    origin: Tensor
    along: Tensor
    digest: str

    @classmethod
    def load(
        cls,
        path: Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Mixture:
        """The mixture that `save` wrote.

        Args:
            path: safetensors file.
            device: of the images the model will be called with.
            dtype: of these images; float32 or float64.

        Raises:
            ModelError: the file is missing, incomplete, changed, or not a mixture.
        """
        remedy = "Fit a new one with `bench train mixture`, or reinstall for the one that ships."
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                label = json.loads((file.metadata() or {}).get("bench", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise ModelError(f"There is no mixture at {path}. {remedy}") from None
        except (OSError, safetensors.SafetensorError) as error:
            raise ModelError(
                f"{path} is not a whole safetensors file ({error}). {remedy}"
            ) from error
        found = label.get("format")
        if found != _FORMAT:
            said = f'says it is "{found}"' if found else "does not say what it is"
            raise ModelError(f'{path} {said}; expected "{_FORMAT}". {remedy}')
        digest = _digest(tensors)
        if digest != label.get("digest"):
            raise ModelError(
                f"{path} has been changed since it was written: the digest of its numbers is "
                f"{digest[:16]}, its label says {label.get('digest', 'nothing')[:16]}. {remedy}"
            )
        channels, height, width = label["shape"]
        double = {name: value.double() for name, value in tensors.items()}
        return cls._assemble(
            (channels, height, width),
            weights=double["weights"],
            spectrum=double["spectrum"],
            remainder=float(double["remainder"]),
            mean=double["mean"],
            basis=_orthonormal(double["basis"]),
            centres=double["centres"],
            axes=_orthonormal(double["axes"]),
            digest=digest,
            device=torch.device(device),
            dtype=dtype,
        )

    @classmethod
    def from_moments(
        cls,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor,
        shape: tuple[int, int, int],
        *,
        dtype: torch.dtype = torch.float64,
    ) -> Mixture:
        """The mixture of Gaussians with these moments, on the CPU: small exact problems.

        Args:
            weights: (K,) positive; scaled to sum to 1.
            means: (K, D).
            covariances: (K, D, D) symmetric positive definite.
            shape: (C, H, W) of an image, with C H W = D.
            dtype: of the images the model will be called with.

        Example:
            >>> import torch
            >>> means, covariances = torch.tensor([[-1.0], [1.0]]), 0.01 * torch.ones(2, 1, 1)
            >>> two = Mixture.from_moments(torch.ones(2), means, covariances, (1, 1, 1))
            >>> x0, eps = two.denoise(torch.zeros(1, 1, 1, 1, dtype=torch.float64), 1.0, 0.5)
            >>> float(x0), float(eps)
            (0.0, 0.0)
        """
        weights = weights.double() / weights.double().sum()
        mean = weights @ means.double()
        spectrum, axes = torch.linalg.eigh(covariances.double())
        tensors = {"covariances": covariances.double(), "means": means.double(), "weights": weights}
        return cls._assemble(
            shape,
            weights=weights,
            spectrum=spectrum,
            remainder=1.0,  # there is no direction outside a full basis
            mean=mean,
            basis=torch.eye(len(mean), dtype=torch.float64),
            centres=means.double() - mean,
            axes=axes,
            digest=_digest(tensors),
            device=torch.device("cpu"),
            dtype=dtype,
        )

    @classmethod
    def random(
        cls,
        shape: tuple[int, int, int],
        *,
        components: int,
        seed: int,
        dtype: torch.dtype = torch.float64,
    ) -> Mixture:
        """A mixture with random weights, means of order 1 and variances of about 0.05 to 0.5."""
        dims = math.prod(shape)
        generator = torch.Generator().manual_seed(seed)

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator, dtype=torch.float64)

        roots = normal(components, dims, dims) * (0.45 / dims) ** 0.5
        covariances = roots @ roots.mT + 0.05 * torch.eye(dims, dtype=torch.float64)
        weights = 0.5 + torch.rand(components, generator=generator, dtype=torch.float64)
        return cls.from_moments(weights, normal(components, dims), covariances, shape, dtype=dtype)

    def denoise(
        self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """E[x0 | x_t = x] and E[eps | x_t = x].

        Where sigma >= alpha, x0 is computed and eps = (x - alpha x0) / sigma; elsewhere eps is
        computed and x0 = (x - sigma eps) / alpha. Neither division then amplifies rounding.
        At sigma = 0 this gives x0 = x / alpha and eps = 0, at alpha = 0 the mean of the data.

        Args:
            x: (B, C, H, W), in the dtype and on the device of the model.
            alpha: share of the image, >= 0; a float, or (B, 1, 1, 1) for a level per image.
            sigma: share of the noise, likewise; not both are zero.

        Returns:
            x0 and eps, each like x. They cannot be differentiated through (see `log_prob`).
        """
        flat = x.reshape(len(x), -1)
        a, s = _host(alpha), _host(sigma)
        noisy = s >= a  # "first", the one computed, is x0 there and eps elsewhere
        own, other = torch.where(noisy, a, s), torch.where(noisy, s, a)
        variance = a.square() * self.spectrum + s.square()
        gain = torch.where(noisy, a * self.spectrum, s) * variance.rsqrt()
        outside = a.square() * self.remainder + s.square()
        slope = torch.where(noisy, a * self.remainder, s) / outside

        inside, white, logits = self._project(flat, a, variance)
        share = threshold(logits.softmax(1), _FLOOR, 0.0)
        white.mul_(_state(gain, x)).mul_(share[:, :, None])
        centre = (share @ self.centres).mul_(_state(noisy[:, 0], x))
        inner = torch.addmm(centre, white.flatten(1), self.axes.T)
        inner -= _state(slope[:, 0], x) * inside
        still = _state((noisy.double() - slope * a)[:, 0], x) * self.mean
        first = torch.addcmul(still, flat, _state(slope[:, 0], x)).addmm_(inner, self.basis.T)
        second = torch.addcmul(flat, first, _state(-own[:, 0], x)).div_(_state(other[:, 0], x))

        first, second = first.view_as(x), second.view_as(x)
        if bool(noisy.all()):
            return first, second
        if not bool(noisy.any()):
            return second, first
        choice = noisy[..., None].to(x.device)
        return torch.where(choice, first, second), torch.where(choice, second, first)

    def log_prob(self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
        """The log density of x_t in nats, (B,); its gradient is -eps / sigma. As `denoise`."""
        flat = x.reshape(len(x), -1)
        a, s = _host(alpha), _host(sigma)
        inside, _, logits = self._project(flat, a, a.square() * self.spectrum + s.square())
        centred = flat - _state(a[:, 0], x) * self.mean
        outside = (centred - inside @ self.basis.T).square().sum(1, keepdim=True)
        variance = _state((a.square() * self.remainder + s.square())[:, 0], x)
        dims, rank = self.basis.shape
        constant = dims * math.log(2 * math.pi) + (dims - rank) * variance.log()
        return logits.logsumexp(1) - 0.5 * (constant + outside / variance)[:, 0]

    def draw(self, z: Tensor, u: Tensor) -> Tensor:
        """Exact draws of x0: image i is a function of z[i] and u[i] alone.

        Args:
            z: (B, C, H, W) standard normals, in the dtype and on the device of the model.
            u: (B,) uniforms in (0, 1), which choose the components.

        Returns:
            (B, C, H, W) like z.
        """
        flat = z.reshape(len(z), -1)
        inside = flat @ self.basis
        bounds = self.weights.cumsum(0)[:-1].to(u.device)
        component = torch.searchsorted(bounds, u.double(), right=True)
        white = inside.new_zeros(len(z), *self.spectrum.shape)
        rows = torch.arange(len(z), device=z.device)
        white[rows, component] = inside * _state(self.spectrum.sqrt(), z)[component]
        inner = torch.addmm(self.centres[component], white.flatten(1), self.axes.T)
        root = math.sqrt(self.remainder)
        x0 = flat * root + self.mean
        return x0.addmm_(inner - root * inside, self.basis.T).view_as(z)

    @classmethod
    def _assemble(
        cls,
        shape: tuple[int, int, int],
        *,
        weights: Tensor,
        spectrum: Tensor,
        remainder: float,
        mean: Tensor,
        basis: Tensor,
        centres: Tensor,
        axes: Tensor,
        digest: str,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Mixture:
        """The model from its float64 parts, axes as (K, d, d)."""

        def state(value: Tensor) -> Tensor:
            return value.to(device, dtype).contiguous()

        return cls(
            shape=shape,
            weights=weights,
            spectrum=spectrum,
            remainder=remainder,
            mean=state(mean),
            basis=state(basis),
            centres=state(centres),
            axes=state(axes.permute(1, 0, 2).flatten(1)),
            origin=state(mean @ basis),
            along=state((centres[:, None] @ axes).flatten()),
            digest=digest,
        )

    def _project(self, flat: Tensor, a: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates, whitened coordinates in every component, and log(w_k p_k) inside the basis.

        Args:
            flat: (B, D) state.
            a: (n, 1, 1) host, with n either 1 or B; alpha.
            variance: (n, K, d) host, alpha^2 l + sigma^2.

        Returns:
            (B, d), (B, K, d) and (B, K), state; the last without the (2 pi)^(-d/2).
        """
        alpha = _state(a[:, 0], flat)
        inside = torch.addmm(-alpha * self.origin, flat, self.basis)
        white = torch.addmm(-alpha * self.along, inside, self.axes)
        white = white.view(-1, *self.spectrum.shape).mul_(_state(variance.rsqrt(), flat))
        offset = self.weights.log() - 0.5 * variance.log().sum(2)
        distance = torch.linalg.vector_norm(white, dim=2).square()
        return inside, white, torch.sub(_state(offset, flat), distance, alpha=0.5)


def save(
    path: Path,
    *,
    shape: tuple[int, int, int],
    weights: Tensor,
    spectrum: Tensor,
    remainder: float,
    mean: Tensor,
    basis: Tensor,
    centres: Tensor,
    axes: Tensor,
    notes: Mapping[str, object],
) -> None:
    """Write a mixture as safetensors: float32, except weights and remainder in float64.

    Args:
        path: file to write, replaced in one step.
        shape: (C, H, W); this and the following as in `Mixture`.
        weights: (K,).
        spectrum: (K, d).
        remainder: positive.
        mean: (D,).
        basis: (D, d).
        centres: (K, d).
        axes: (K, d, d) orthonormal columns V_k.
        notes: how it was made, as JSON values; kept in the file.

    Raises:
        ResultError: the file cannot be written.
    """
    tensors = {
        "axes": axes.float().contiguous(),
        "basis": basis.float().contiguous(),
        "centres": centres.float().contiguous(),
        "mean": mean.float().contiguous(),
        "remainder": torch.tensor([remainder], dtype=torch.float64),
        "spectrum": spectrum.float().contiguous(),
        "weights": weights.double().contiguous(),
    }
    # One key, because safetensors writes several in random order: equal fits are equal files.
    label = {"format": _FORMAT, "shape": shape, "digest": _digest(tensors), **notes}
    atomic.write_bytes(path, safetensors.torch.save(tensors, {"bench": json.dumps(label)}))


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _host(level: float | Tensor) -> Tensor:
    """The level as (n, 1, 1) float64 on the CPU, where it is exact for every dtype."""
    return torch.as_tensor(level, dtype=torch.float64, device="cpu").reshape(-1, 1, 1)


def _state(host: Tensor, like: Tensor) -> Tensor:
    return host.to(like.device, like.dtype)


def _orthonormal(columns: Tensor) -> Tensor:
    """The nearest orthonormal columns: one Newton step undoes the rounding to float32.

    Without it, the float64 model would be exact to 1e-7 only. Convergence is quadratic.
    """
    gram = columns.mT @ columns
    return 1.5 * columns - 0.5 * columns @ gram
