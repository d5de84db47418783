"""The commands; the only place that prints and exits."""


def main() -> None:
    """Entry point of `bench`."""
