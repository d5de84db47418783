"""Plants defects and pure refactorings into a copy of the package, and asks the fingerprint.

    python tests/regression/planted.py [WORD ...]

Of each defect of tests/certify/defects.py the fingerprint has to name the sampler that it is in, or
what all samplers stand on where it is in the grids; of a refactoring it has to say nothing. Prints
a row for each, and one for all refactorings at once, and exits with the number of those where it
does not. With words, only those whose row has one of them.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.certify.defects import DEFECTS, Defect, _in, ask

ROOT = Path(__file__).parents[2]

REFACTORINGS = [
    *_in(
        "samplers/implicit.py",
        "ddim",
        ("1 - exp for expm1", "r = -math.expm1(2 * (a.lam - b.lam))",
         "r = 1 - math.exp(2 * (a.lam - b.lam))"),
        ("noise before its size", "math.sqrt(injected) * noise()", "noise() * injected**0.5"),
        ("the other summand first", "b.alpha * x0 + math.sqrt(b.sigma**2 - variance) * eps",
         "math.sqrt(b.sigma**2 - variance) * eps + x0 * b.alpha"),
    ),
    *_in(
        "samplers/ancestral.py",
        "ddpm",
        ("product the other way round", "math.exp(a.lam - b.lam) * eps",
         "eps * math.exp(a.lam - b.lam)"),
    ),
    *_in(
        "samplers/classical.py",
        "heun",
        ("half as a division", "0.5 * of_slope", "of_slope / 2"),
        ("slopes multiplied out", "2 * (k2 + k3)", "2 * k2 + 2 * k3"),
    ),
    *_in(
        "samplers/pseudo_numerical.py",
        "pndm",
        ("weights in front", "(e1 + 2 * (e2 + e3) + e4) / 6",
         "(e1 / 6 + e2 / 3 + e3 / 3 + e4 / 6)"),
        ("fractions as decimals", "(3 / 2, -1 / 2)", "(1.5, -0.5)"),
    ),
    *_in(
        "samplers/dpm_solver.py",
        "dpm-solver",
        ("one fraction", "return math.expm1(h) / h - 1", "return (math.expm1(h) - h) / h"),
    ),
    *_in(
        "samplers/dpm_solver_pp.py",
        "dpm-solver++",
        ("half in front", "h / (2 * gap) * first", "0.5 * (h / gap) * first"),
        ("exp for expm1", "math.expm1(-h / 2) * d", "(math.exp(-h / 2) - 1) * d"),
    ),
    *_in(
        "samplers/deis.py",
        "deis",
        ("product the other way round", "- lagrange.deriv()(u) @ s_du",
         "- s_du @ lagrange.deriv()(u)"),
    ),
    *_in(
        "samplers/unipc.py",
        "unipc",
        ("half in the denominator", "0.5 * minus_b / r[0]", "minus_b / (2 * r[0])"),
    ),
    *_in(
        "samplers/edm.py",
        "edm",
        ("half at the end", "0.5 * b.alpha * (b.s - a.s)", "b.alpha * (b.s - a.s) / 2"),
    ),
    *_in(
        "samplers/sde.py",
        "reverse-sde",
        ("square as a product", "0.5 * (1 + kappa**2)", "(1 + kappa * kappa) / 2"),
        ("under one root", "kappa * math.sqrt(g2 * dt)", "math.sqrt(kappa**2 * g2 * dt)"),
    ),
    *_in(
        "samplers/restart.py",
        "restart",
        ("another name", "for _ in range(k):", "for _round in range(k):"),
    ),
    *_in(
        "samplers/er_sde.py",
        "er-sde",
        ("half as a division", "(0.5 * (s - s_2))", "((s - s_2) / 2)"),
    ),
    *_in(
        "samplers/few_step.py",
        "consistency",
        ("third binomial", "math.sqrt(b.s**2 - s_min**2)",
         "math.sqrt((b.s - s_min) * (b.s + s_min))"),
    ),
    *_in(
        "diffusion/march.py",
        "rk45",
        ("a fraction as a decimal", "-25360 / 2187", "-11.595793324188385"),
    ),
    *_in(
        "diffusion/spacing.py",
        "grids",
        ("product the other way round", "np.arange(n) * T // n", "T * np.arange(n) // n"),
    ),
    *_in(
        "diffusion/schedule.py",
        "grids",
        ("half inside the sum", "0.5 * np.cumsum(np.log1p", "np.cumsum(0.5 * np.log1p"),
    ),
]  # fmt: skip

_ASK = """
import json
from bench import arithmetic
found = arithmetic.compare(arithmetic.measure(), arithmetic.read().cases)
named = {}
for name, changes in found.named().items():
    named[name] = max((change.size for change in changes if change.size is not None), default=None)
print(json.dumps([named, found.rounding]))
"""


def named_by(*planted: Defect) -> tuple[dict[str, float | None], float]:
    """What the fingerprint names, with the largest change of each, and what it calls rounding."""
    named, rounding = json.loads(ask(planted, _ASK)[-1])
    return named, rounding


def is_right(defect: Defect, named: dict[str, float | None]) -> bool:
    """Whether the sampler of a defect is named, and otherwise only what stands on the same code."""
    if defect.name == "grids":
        return bool({"schedules", "spacings"} & named.keys()) and len(named) <= 2
    return defect.name in named and not {"schedules", "spacings", "noise"} & named.keys()


def main(words: list[str]) -> int:
    """Plants them and prints what came of it; how often that is wrong."""
    wrong = 0
    every = [(d.name, d.what, [d]) for d in [*DEFECTS, *REFACTORINGS]]
    every.append(("all", "refactorings at once", REFACTORINGS))
    chosen = [row for row in every if not words or any(w in f"{row[0]} {row[1]}" for w in words)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = pool.map(lambda row: named_by(*row[2]), chosen)
        for (name, what, planted), (named, rounding) in zip(chosen, answers, strict=True):
            is_defect = planted[0] in DEFECTS
            good = is_right(planted[0], named) if is_defect else not named
            wrong += not good
            said = ", ".join(
                f"{each} by {size:.1g}" if size is not None else each
                for each, size in named.items()
            )
            kind = "defect" if is_defect else "refactoring"
            row = [name, what, kind, said or f"nothing ({rounding:.0e})"]
            print(f"| {' | '.join(row)} |{'' if good else ' WRONG'}", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} right")
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
