"""The command line, with the metric `fd_tiny` known here and in the jobs that it submits.

python -m tests.tiny run sweep.yaml
"""

from bench import executors
from bench.cli import main
from tests import fakes

if __name__ == "__main__":
    fakes.register()
    executors.Job = fakes.TinyJob  # type: ignore[misc]
    main()
