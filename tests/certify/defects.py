"""Plants one defect at a time into a copy of the package, and asks the certificate what is wrong.

    python tests/certify/defects.py [WORD ...]

Writes defects.md beside this file: each defect with the findings that it made wrong. With words,
only the defects whose line has one of them are planted, and the other rows stay as they are.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_suffix(".md")


@dataclass(frozen=True)
class Defect:
    """`new` in place of `old` in a file of the package.

    `name` is what is certified: a sampler, or the grids.
    """

    what: str
    name: str
    file: str
    old: str
    new: str


def _in(file: str, name: str, *defects: tuple[str, str, str]) -> list[Defect]:
    return [Defect(what, name, file, old, new) for what, old, new in defects]


_HISTORY = "history = [eps, *history[:3]]\n        if b.sigma == 0"
DEFECTS = [
    *_in(
        "samplers/implicit.py",
        "ddim",
        ("step ratio inverted", "r = -math.expm1(2 * (a.lam - b.lam))",
         "r = math.exp(a.lam - b.lam)"),
        ("eta not squared", "injected = eta**2 *", "injected = eta *"),
        ("direction keeps its full length", "math.sqrt(b.sigma**2 - variance)", "b.sigma"),
        ("missing noise scale", "math.sqrt(injected) * noise()", "noise()"),
        ("sigma-hat adds noise at the last step", "a.sigma**2 * r if b.sigma > 0 else 0.0",
         "a.sigma**2 * r"),
        ("sigma-hat keeps the network's eps", "x0, eps = clip_x0(x, x0, a)",
         "x0, _ = clip_x0(x, x0, a)"),
        ("alpha and sigma swapped", "b.alpha * x0 +", "b.sigma * x0 +"),
    ),
    *_in(
        "samplers/ancestral.py",
        "ddpm",
        ("small and large swapped", 'if variance == "small"', 'if variance == "large"'),
        ("noise at the last step", "if b.sigma > 0:", "if True:"),
        ("posterior mean with the ratio inverted", "math.exp(a.lam - b.lam) * eps",
         "math.exp(b.lam - a.lam) * eps if b.sigma > 0 else b.alpha * x0"),
        ("one draw used at every step", "x = x + sigma * math.sqrt(r) * noise()",
         "z = z if a is not grid.points[0] else noise()\n"
         "            x = x + sigma * math.sqrt(r) * z"),
    ),
    *_in(
        "samplers/classical.py",
        "euler",
        ("alpha and sigma swapped", "return b.alpha * x0 + b.sigma * eps  #",
         "return b.sigma * x0 + b.alpha * eps  #"),
        ("d sigma / dt twice as large", "g2 / (2 * point.sigma)", "g2 / point.sigma"),
        ("d log alpha / dlam on VP of the wrong sign", "return -2 * f * point.sigma**2 / g2",
         "return 2 * f * point.sigma**2 / g2"),
    ),
    *_in(
        "samplers/classical.py",
        "heun",
        ("correction of twice the size", "0.5 * of_slope", "of_slope"),
        ("corrected-last without effect", "if corrected_last or i < len(grid) - 1:", "if True:"),
        ("slope at b with the noise level of a", "ode.slope(*denoise(x, b), b)",
         "ode.slope(*denoise(x, a), a)"),
    ),
    *_in(
        "samplers/classical.py",
        "rk4",
        ("wrong weight of the middle slopes", "2 * (k2 + k3)", "1.5 * (k2 + k3)"),
        ("middle not in the middle", "u = 0.5 * (self.u(a) + self.u(b))",
         "u = 0.45 * self.u(a) + 0.55 * self.u(b)"),
        ("fourth slope from the second", "end_slope * h * k3", "end_slope * h * k2"),
    ),
    *_in(
        "samplers/classical.py",
        "ab",
        ("Lagrange polynomial with a node inverted", "math.prod((v - w) / (u - w)",
         "math.prod((v - w) / (w - u)"),
        ("Gauss points at the wrong places", "/ math.sqrt(3))", "/ math.sqrt(2))"),
        ("history one short", "nodes = [u, *nodes[: order - 1]]\n        slopes = "
         "[ode.slope(x0, eps, a), *slopes[: order - 1]]",
         "nodes = [u, *nodes[: max(order - 2, 0)]]\n        slopes = "
         "[ode.slope(x0, eps, a), *slopes[: max(order - 2, 0)]]"),
    ),
    *_in(
        "samplers/pseudo_numerical.py",
        "ipndm",
        ("wrong Adams-Bashforth coefficient", "-9 / 24", "9 / 24"),
        ("off by one in the history", f"{_HISTORY} or a.alpha == 0:",
         f"{_HISTORY.replace(':3', ':2')} or a.alpha == 0:"),
        ("Adams-Bashforth 2 as 2, -1", "(3 / 2, -1 / 2)", "(2.0, -1.0)"),
    ),
    *_in(
        "samplers/pseudo_numerical.py",
        "pndm",
        ("Runge-Kutta with equal weights", "(e1 + 2 * (e2 + e3) + e4) / 6",
         "(e1 + e2 + e3 + e4) / 4"),
        ("step of the wrong sign", "b.alpha * (b.s - a.s) * eps", "b.alpha * (a.s - b.s) * eps"),
    ),
    *_in(
        "samplers/pseudo_numerical.py",
        "plms",
        ("start without its second slope", "0.5 * (eps + eps_b)", "eps"),
    ),
    *_in(
        "samplers/dpm_solver.py",
        "dpm-solver",
        ("correction of order 2 half as large", "math.expm1(h) * (eps_s - eps)",
         "0.5 * math.expm1(h) * (eps_s - eps)"),
        ("order 3 from its first point", "_phi(h) * (eps_2 - eps)", "_phi(h) * (eps_1 - eps)"),
        ("point inside the step in t, not in lambda", "at(lam=a.lam + h / 2)",
         "at(t=0.5 * (a.t + b.t))"),
        ("end of fast-0 in the wrong order", '"fast-0": [2, 1]', '"fast-0": [1, 2]'),
        ("phi without its -1", "return math.expm1(h) / h - 1", "return math.expm1(h) / h"),
    ),
    *_in(
        "samplers/dpm_solver_pp.py",
        "dpm-solver++",
        ("inverted step ratio in 2M", "h / (2 * gap) * first", "gap / (2 * h) * first"),
        ("half the curvature in 3M", "h * (mean_square * h", "h * (0.5 * mean_square * h"),
        ("off by one in the history", "*history[: order - 1]]", "*history[:order]]"),
        ("noise of half the variance", "math.expm1(-2 * eta * h)", "math.expm1(-eta * h)"),
        ("state not shrunk where noise is added", "math.exp(-eta * h) if eta > 0 else 1.0", "1.0"),
        ("lt10 as at most 10", "lowered = len(grid) <", "lowered = len(grid) <="),
        ("2S with the whole step to its middle", "math.expm1(-h / 2) * d", "math.expm1(-h) * d"),
        ("noise at the last step", "if eta > 0 and b.sigma > 0:", "if eta > 0:"),
    ),
    *_in(
        "samplers/deis.py",
        "deis",
        ("alpha of the wrong end", "rows.append([b.alpha * integral",
         "rows.append([a.alpha * integral"),
        ("degree one short", "max(i - order, 0) : i + 1", "max(i - order + 1, 0) : i + 1"),
        ("integration by parts with the wrong sign", "- lagrange.deriv()(u) @ s_du",
         "+ lagrange.deriv()(u) @ s_du"),
    ),
    *_in(
        "samplers/unipc.py",
        "unipc",
        ("corrector never applied", "if corrector and used:", "if corrector and not used:"),
        ("inverted step ratio", "r = [(lam - a.lam) / h", "r = [h / (lam - a.lam)"),
        ("bh1 and bh2 swapped", 'if variant == "bh1"', 'if variant == "bh2"'),
        ("a_1 = 1", "0.5 * minus_b / r[0]", "minus_b / r[0]"),
        ("off by one in the history", "*history[: order - 1]]", "*history[:order]]"),
        ("lowered one step late", "left = len(grid) - i if", "left = len(grid) - i + 1 if"),
    ),
    *_in(
        "samplers/edm.py",
        "edm",
        ("churn not divided by n", "min(s_churn / len(grid),", "min(s_churn,"),
        ("churn's noise as a difference", "math.sqrt(max(b.s**2 - a.s**2, 0.0))",
         "max(b.s - a.s, 0.0)"),
        ("alpha of the wrong end", "0.5 * b.alpha * (b.s - a.s)", "0.5 * a.alpha * (b.s - a.s)"),
        ("s-min without effect", "s_min <= a.s <= limit", "a.s <= limit"),
        ("s-noise left out", "s_noise * noise()", "noise()"),
    ),
    *_in(
        "samplers/sde.py",
        "reverse-sde",
        ("kappa not squared in the drift", "0.5 * (1 + kappa**2)", "0.5 * (1 + kappa)"),
        ("noise of g dt", "kappa * math.sqrt(g2 * dt)", "kappa * math.sqrt(g2) * dt"),
    ),
    *_in(
        "samplers/sde.py",
        "reverse-diffusion",
        ("mean of the forward step inverted", "(2 - a.alpha / b.alpha)", "(b.alpha / a.alpha)"),
        ("forward variance with s for s^2", "a.sigma**2 * -math.expm1(2 * (a.lam - b.lam))",
         "a.sigma**2 * -math.expm1(a.lam - b.lam)"),
    ),
    *_in(
        "samplers/sde.py",
        "pc",
        ("norms over the batch", "linalg.vector_norm(z, dim=(1, 2, 3), keepdim=True)",
         "linalg.vector_norm(z)"),
        ("Langevin drift twice as large", "(z - 0.5 * root * eps)", "(z - root * eps)"),
    ),
    *_in(
        "samplers/sde.py",
        "annealed-langevin",
        ("drift twice as large", "0.5 * step_size * eps", "step_size * eps"),
        ("no change of scale between levels", "level.alpha / before.alpha * x", "x"),
    ),
    *_in(
        "samplers/restart.py",
        "restart",
        ("s-noise left out", "s_noise * noise()", "noise()"),
        ("one interval more", "for _ in range(k):", "for _ in range(k + 1):"),
        ("levels even in s", "bottom.s ** (1 / rho), points)[:-1] ** rho",
         "bottom.s ** (1 / rho), points)[:-1] ** (rho - 1)"),
    ),
    *_in(
        "samplers/er_sde.py",
        "er-sde",
        ("curvature of twice the size", "(0.5 * (s - s_2))", "(0.25 * (s - s_2))"),
        ("noise of half the variance", "-math.expm1(2 * log_q)", "-math.expm1(log_q)"),
    ),
    *_in(
        "samplers/few_step.py",
        "consistency",
        ("noise on top of the least noise", "math.sqrt(b.s**2 - s_min**2)", "b.s"),
    ),
    *_in(
        "samplers/adaptive.py",
        "dpm-solver-adaptive",
        ("lower order kept", "return (higher, lower), rms(", "return (lower, lower), rms("),
        ("weight of order 3 half as large", "spread(r / r1 * (", "spread(0.5 * r / r1 * ("),
    ),
    *_in(
        "diffusion/march.py",
        "rk45",
        ("wrong Dormand-Prince coefficient", "-25360 / 2187", "-25360 / 2178"),
        ("steps accepted with ten times the error", "taken = ~(error > 1.0)",
         "taken = ~(error > 10.0)"),
        ("error not relative to the state", "atol + rtol * torch.maximum(y.abs(), new.abs())",
         "atol + rtol"),
    ),
    *_in(
        "diffusion/probability_flow.py",
        "exact-flow",
        ("sine and cosine swapped", "spread(cosine, y) * eps - spread(sine, y) * x0",
         "spread(sine, y) * eps - spread(cosine, y) * x0"),
    ),
    *_in(
        "diffusion/spacing.py",
        "grids",
        ("uniform over T - 1", "np.arange(n) * T // n", "np.arange(n) * (T - 1) // n"),
        ("quadratic up to 0.9 T", "_QUADRATIC_TOP = 0.8", "_QUADRATIC_TOP = 0.9"),
        ("quadratic rounded", "np.floor(np.linspace(0.0, math.sqrt(top), n) ** 2 + 1e-9)",
         "np.round(np.linspace(0.0, math.sqrt(top), n) ** 2)"),
        ("trailing off by one", "* schedule.num_train / n) - 1)", "* schedule.num_train / n))"),
        ("karras with rho inverted", "bottom ** (1 / power), n) ** power",
         "bottom ** power, n) ** (1 / power)"),
        ("sigma-min with a point too few", "else steps + 1\n    if trained",
         "else steps\n    if trained"),
        ("cosine in sigma / alpha", "-np.log(np.tan(angles[1:-1]))",
         "-np.log(np.sin(angles[1:-1]))"),
        ("edm starts where the schedule does", "sigma_max=min(_EDM_SIGMA_MAX,",
         "sigma_max=max(_EDM_SIGMA_MAX,"),
    ),
    *_in(
        "diffusion/schedule.py",
        "grids",
        ("log alpha without its half", "0.5 * np.cumsum(np.log1p", "np.cumsum(np.log1p"),
        ("alpha and sigma swapped in flow's inverse", "np.logaddexp(0.0, lam)))\n        alpha",
         "np.logaddexp(0.0, -lam)))\n        alpha"),
        ("cosine with another offset below", "/ (1 + offset)", "/ (1 + 2 * offset)"),
        ("betas even, not their roots", "math.sqrt(beta_max), T) ** 2",
         "math.sqrt(beta_max), T) ** 1"),
        ("drift of the noisier side", "self.betas[math.ceil(t)]", "self.betas[int(t) + 1]"),
        ("edm starts at 1", "The start's own sigma.\"\"\"\n        return start.sigma",
         "The start's own sigma.\"\"\"\n        return 1.0"),
    ),
]  # fmt: skip


_ASK = """
import sys
from bench.certify import findings
for finding in findings(sys.argv[1]):
    if finding.ok is False:
        print(finding.check, flush=True)
        if len(sys.argv) > 2:
            break
"""


def wrong_findings(defect: Defect, *, first: bool = False) -> list[str]:
    """What the certificate says is wrong with the defect planted, or the first of it."""
    return list(dict.fromkeys(ask([defect], _ASK, defect.name, *(["first"] if first else []))))


def ask(planted: Sequence[Defect], code: str, *words: str) -> list[str]:
    """The lines that code prints where the package has the defects."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "bench"
        shutil.copytree(ROOT / "bench", package, ignore=shutil.ignore_patterns("assets", "*.pyc"))
        (package / "assets").symlink_to(ROOT / "bench" / "assets")
        for defect in planted:
            file = package / defect.file
            source = file.read_text("utf-8")
            assert source.count(defect.old) == 1, f"{defect.file} has not one of: {defect.old}"
            file.write_text(source.replace(defect.old, defect.new), "utf-8")
        run = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if run.returncode:
        raise RuntimeError(f"{', '.join(each.what for each in planted)}: {run.stderr}")
    return run.stdout.splitlines()


def line(defect: Defect, found: list[str]) -> str:
    """A row of the list."""
    return f"| {defect.name} | {defect.what} | {', '.join(found) or '**nothing**'} |"


def read_rows() -> dict[tuple[str, ...], str]:
    """The rows of the list as it is, by name and defect."""
    rows = LIST.read_text("utf-8").splitlines() if LIST.exists() else []
    return {tuple(row[2:].split(" | ")[:2]): row for row in rows if row.startswith("| ")}


def main(words: list[str]) -> int:
    """Plants the defects, writes the list; the number of those that were not found."""
    chosen = [d for d in DEFECTS if not words or any(w in f"{d.name} {d.what}" for w in words)]
    rows, missed = read_rows(), 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for defect, found in zip(chosen, pool.map(wrong_findings, chosen), strict=True):
            row = rows[defect.name, defect.what] = line(defect, found)
            missed += not found
            print(row, flush=True)
    kept = [rows[d.name, d.what] for d in DEFECTS if (d.name, d.what) in rows]
    LIST.write_text(HEAD + "\n".join(kept) + "\n", "utf-8")
    print(f"{len(chosen) - missed} of {len(chosen)} found")
    return missed


HEAD = """\
# Planted defects, and what found them

Written by `python tests/certify/defects.py`. Each defect alone is planted into a copy of the
package, and `bench certify` is asked about the sampler that it is in; the last column has the
findings that are wrong then.

| certified | defect | found by |
| --- | --- | --- |
"""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
