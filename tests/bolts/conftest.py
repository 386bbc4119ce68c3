"""Run in an environment of their own, by ``make test-bolts``, where pl_bolts is installed; elsewhere left out."""

import importlib.util

if importlib.util.find_spec("pl_bolts") is None:
    collect_ignore_glob = ["test_*.py"]
