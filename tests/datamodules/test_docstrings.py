import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["base", "digits", "fashion_mnist", "images", "loader", "sampler"])
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(f"ssl_modules.datamodules.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
