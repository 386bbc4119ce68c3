"""The names that checkpoints and configurations give to the classes of this package."""

import inspect
from importlib import import_module

import pytest
import torch

from ssl_modules.utils.configurable import Configurable, class_path, find_class

PACKAGES = [
    "ssl_modules",
    *(
        f"ssl_modules.{name}"
        for name in (
            "augmentations",
            "callbacks",
            "datamodules",
            "encoders",
            "evaluation",
            "extractions",
            "losses",
            "methods",
            "optim",
            "similarities",
        )
    ),
]


def public_classes(package):
    """Return the classes in ``__all__``, or, without it, those that the module defines."""
    module = import_module(package)
    own = [name for name, x in vars(module).items() if getattr(x, "__module__", None) == package and name[0] != "_"]
    found = [getattr(module, name) for name in getattr(module, "__all__", own)]
    return [x for x in found if isinstance(x, type)]


CLASSES = sorted({cls for package in PACKAGES for cls in public_classes(package)}, key=class_path)


@pytest.mark.parametrize("cls", CLASSES, ids=class_path)
def test_a_public_class_has_the_path_of_a_public_package(cls):
    package, _, name = class_path(cls).rpartition(".")
    assert package in PACKAGES
    assert cls in public_classes(package)
    assert name == cls.__name__
    assert find_class(class_path(cls)) is cls


def subclasses(cls):
    return {cls}.union(*(subclasses(c) for c in cls.__subclasses__()))


def test_every_class_that_a_checkpoint_may_hold_is_public():
    ours = {
        cls
        for cls in subclasses(Configurable) - {Configurable}
        # Leave out classes of docstring examples: the module that they name doesn't have them.
        if cls.__module__.startswith("ssl_modules.") and hasattr(import_module(cls.__module__), cls.__name__)
    }
    assert len(ours) > 50
    hidden = {cls for cls in ours if not inspect.isabstract(cls)} - {*CLASSES}
    assert not hidden


def test_a_class_of_another_package_has_the_path_that_it_is_imported_by():
    for cls in (torch.optim.SGD, torch.optim.AdamW, torch.nn.Linear):
        package, _, name = class_path(cls).rpartition(".")
        assert getattr(import_module(package), name) is cls
        assert find_class(class_path(cls)) is cls
