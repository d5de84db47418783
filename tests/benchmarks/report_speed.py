"""The report of 2,000 cells: seconds, and megabytes of the page.

    python tests/benchmarks/report_speed.py

Promises less than 20 s, in a process that has imported what it needs, and less than 15 MB. Exit
code 1 if a promise is broken.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.report import build
from tests.benchmarks.inception_speed import processor
from tests.report import records

SECONDS, BYTES = 20, 15e6


def main() -> int:
    """Prints what it takes; 1 if that is too much."""
    with tempfile.TemporaryDirectory() as folder:
        small = records.make(Path(folder) / "small", records.quickstart())
        build(small, Path(folder) / "warm")
        large = records.make_large(Path(folder) / "large")
        clock, cpu = time.perf_counter(), time.process_time()
        page = build(large, Path(folder) / "out").with_name("report.html")
        took, used = time.perf_counter() - clock, time.process_time() - cpu
        size = page.stat().st_size
    print(f"{took:.1f} s ({used:.1f} s of a core), {size / 1e6:.1f} MB; {processor()}")
    return int(took > SECONDS or size > BYTES)


if __name__ == "__main__":
    sys.exit(main())
