"""These tests need pl_bolts. ``make test-bolts`` runs them in its own environment; elsewhere they are left out."""

import importlib.util

if importlib.util.find_spec("pl_bolts") is None:
    collect_ignore_glob = ["test_*.py"]
