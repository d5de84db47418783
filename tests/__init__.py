"""The tests; a package, because one of the dependencies installs a package of that name."""
