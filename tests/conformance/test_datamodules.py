"""Tests that every public data module must pass. Add a new one as one entry of CASES."""

import atexit
import errno
import functools
import inspect
import os
import re
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import miniatures
import pytest
import torch
from conformance.cases import trainer
from lightning.pytorch import LightningModule
from pictures import one_epoch
from processes import run_in_processes

from ssl_modules import datamodules
from ssl_modules.augmentations import RandomResizedCrop, Views
from ssl_modules.cli import main
from ssl_modules.datamodules import (
    BaseDataModule,
    CIFAR10DataModule,
    CIFAR100DataModule,
    COCODataModule,
    DigitsDataModule,
    FashionMNISTDataModule,
    ImageDataModule,
    ImageFolderDataModule,
    ImageNetDataModule,
    STL10DataModule,
    TensorImages,
    TinyImageNetDataModule,
)
from ssl_modules.datamodules import unreadable as faults
from ssl_modules.datamodules.from_files import FilesDataModule
from ssl_modules.datamodules.unreadable import SystemFault

SHARED = list(inspect.signature(BaseDataModule).parameters)
FACTS = ("name", "num_classes", "dims", "mean", "std")


@dataclass(frozen=True)
class Case:
    """A data module with a miniature copy of its official files."""

    data: type[BaseDataModule]
    write: Callable[[Path], miniatures.Patches] | None  # writes the files to a folder; None if there are none
    sizes: tuple[int, int, int]  # numbers of images to train on, labelled images and test images
    corrupt: str = ""  # a file that the data module reads
    missing: str = ""  # a file or folder that the data module needs
    root: str = "."  # the argument root, relative to the folder
    arguments: dict[str, Any] = field(default_factory=dict)
    name: str = ""  # if a data module has several cases

    def __str__(self) -> str:
        return self.name or self.data.__name__

    def build(self, folder: Path, **given: Any) -> BaseDataModule:
        in_files = {} if self.write is None else {"root": folder / self.root}
        return self.data(**{**in_files, "batch_size": 4, "num_workers": 0, **self.arguments, **given})


def of_digits(rows: slice) -> TensorImages:
    data = DigitsDataModule()
    data.setup()
    return TensorImages(*data.train_set[rows])


CASES = [
    Case(DigitsDataModule, None, (1437, 1437, 360), arguments={"batch_size": 64}),
    Case(
        CIFAR10DataModule,
        miniatures.write_cifar10,
        (40, 40, 10),
        "cifar-10-batches-py/data_batch_2",
        "cifar-10-batches-py/test_batch",
    ),
    Case(
        CIFAR100DataModule,
        miniatures.write_cifar100,
        (100, 100, 30),
        "cifar-100-python/train",
        "cifar-100-python/test",
    ),
    Case(
        FashionMNISTDataModule,
        miniatures.write_fashion_mnist,
        (40, 40, 12),
        "FashionMNIST/raw/train-images-idx3-ubyte",
        "FashionMNIST/raw",
    ),
    Case(
        FashionMNISTDataModule,
        miniatures.write_fashion_mnist,
        (40, 40, 12),
        "FashionMNIST/raw/t10k-labels-idx1-ubyte",
        "FashionMNIST/raw",
        arguments={"coarse": True},
        name="FashionMNISTDataModule-coarse",
    ),
    Case(
        STL10DataModule,
        miniatures.write_stl10,
        (55, 30, 12),
        "stl10_binary/unlabeled_X.bin",
        "stl10_binary/test_X.bin",
    ),
    Case(
        TinyImageNetDataModule,
        miniatures.write_tiny_imagenet,
        (200, 200, 40),
        "tiny-imagenet-200/val/val_annotations.txt",
        "tiny-imagenet-200/words.txt",
    ),
    Case(
        ImageNetDataModule,
        miniatures.write_imagenet,
        (12, 12, 3),
        "train/n01443537/n01443537_2.JPEG",
        "val",
        arguments={"classes": list(miniatures.IMAGENET_WNIDS), "image_size": 28},
    ),
    Case(
        COCODataModule,
        miniatures.write_coco,
        (10, 10, 3),
        "annotations/instances_val2017.json",
        "train2017",
        arguments={"image_size": 14, "batch_size": 2},
    ),
    Case(
        ImageFolderDataModule,
        miniatures.write_image_folder,
        (6, 6, 0),
        "train/cat/1.jpg",
        "train",
        root="train",
        arguments={"image_size": 14, "batch_size": 2},
    ),
    Case(
        ImageFolderDataModule,
        miniatures.write_image_folder,
        (6, 6, 0),
        "train/cat/1.jpg",
        "train",
        root="train",
        arguments={"image_size": 8, "batch_size": 2, "augmentation": Views([RandomResizedCrop(8)])},
        name="ImageFolderDataModule-views",
    ),
    Case(
        ImageDataModule,
        None,
        (20, 20, 8),
        arguments={"train": of_digits(slice(20)), "test": of_digits(slice(20, 28)), "num_classes": 10},
    ),
]
IN_FILES = [case for case in CASES if case.write is not None]
each_case = pytest.mark.parametrize("case", CASES, ids=str)


@functools.cache
def written(write: Callable[[Path], miniatures.Patches]) -> tuple[Path, miniatures.Patches]:
    """Write the files once; return their folder and their patches. Tests must not change the files."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return folder, write(folder)


@pytest.fixture
def folder(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the case's files, patched so that their sizes and checksums are accepted."""
    if case.write is None:
        return tmp_path
    folder, patches = written(case.write)
    miniatures.apply(monkeypatch, patches)
    return folder


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the files that tests may damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return len(first) == len(second) and all(equal(a, b) for a, b in zip(first, second, strict=True))


def epoch(data: BaseDataModule, number: int = 0) -> list[Any]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def loaded(case: Case, folder: Path, **given: Any) -> BaseDataModule:
    data = case.build(folder, **given)
    data.setup()
    return data


def test_every_public_data_module_has_a_case():
    public = {x for name in datamodules.__all__ if isinstance(x := getattr(datamodules, name), type)}
    concrete = {x for x in public if issubclass(x, BaseDataModule) and not inspect.isabstract(x)}
    assert {case.data for case in CASES} == concrete


@pytest.mark.parametrize("case", CASES, ids=str)
def test_its_signature_shows_the_shared_arguments_and_only_what_it_takes(case):
    parameters = inspect.signature(case.data).parameters
    assert {*SHARED} <= {*parameters}
    assert not [p for p in parameters.values() if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    of_given_data = {"train", "test", "num_classes", "dims", "target_type", "levels", "class_names"}
    own = {*inspect.signature(case.data.__init__).parameters}
    assert not of_given_data & {*parameters} - own
    in_files = {"image_size", "decode_size", "augmentation", "unreadable"}
    assert issubclass(case.data, FilesDataModule) == (in_files <= {*parameters})
    # A class that changes the default of a shared argument must list it in its signature.
    shared = inspect.signature(BaseDataModule).parameters
    changed = {name for name in SHARED if parameters[name].default != shared[name].default}
    assert changed <= own


@pytest.mark.parametrize("name", sorted({case.data.__name__ for case in CASES}))
def test_help_on_the_command_line_explains_the_shared_arguments(name, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["fit", f"--data.help={name}"])
    assert exit_.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"--data.{argument} " in shown for argument in SHARED)
    assert "images per batch and process (device)" in shown
    assert "whether batches also hold the row of each image" in shown


@each_case
def test_facts_stand_on_the_class(case):
    if not {*FACTS} & {*inspect.signature(case.data).parameters} and case.data is not ImageFolderDataModule:
        assert [fact for fact in FACTS if not hasattr(case.data, fact)] == []
        assert len(case.data.mean) == len(case.data.std) == case.data.dims[0]
        assert len(case.data.class_names) in (0, case.data.num_classes)  # some are read from the files


@each_case
def test_facts_agree_with_the_batches(case, folder):
    data = case.build(folder, return_index=True)
    before = {fact: getattr(data, fact) for fact in (*FACTS, "target_type", "levels")}
    train, labelled, test = case.sizes
    one_epoch(data, train, labelled, test or None)
    assert before == {fact: getattr(data, fact) for fact in before}
    assert len(data.class_names) == data.num_classes
    assert data.image_size == data.dims[1]
    assert torch.equal(torch.cat([batch[1] for batch in data.probe_train_dataloader()]), data.labelled_targets())


@each_case
def test_the_order_depends_on_seed_and_epoch_only(case, folder):
    state = torch.get_rng_state()
    first, same, other = loaded(case, folder), loaded(case, folder), loaded(case, folder, seed=1)
    assert equal(epoch(first), epoch(same))
    assert equal(epoch(first, 1), epoch(same, 1))
    assert not equal(epoch(first), epoch(first, 1))
    assert not equal(epoch(first), epoch(other))
    assert torch.equal(torch.get_rng_state(), state)


@each_case
def test_a_validation_part_is_drawn_by_the_seed_and_not_trained_on(case, folder):
    def rows(**given: Any) -> list[Any]:
        data = loaded(case, folder, val_size=2, **given)
        assert len(data.labelled_set) == case.sizes[1] - 2
        assert len(data.train_set) == case.sizes[0] - 2
        return list(data.val_dataloader())

    assert equal(rows(), rows())
    assert not all(equal(rows(), rows(seed=seed)) for seed in (1, 2, 3))


@each_case
def test_a_resumed_epoch_gives_the_rest_bit_for_bit(case, folder):
    whole = epoch(loaded(case, folder), 1)
    stopped = loaded(case, folder).train_dataloader()
    stopped.sampler.set_epoch(1)
    next(iter(stopped))
    resumed = loaded(case, folder).train_dataloader()
    resumed.load_state_dict(stopped.state_dict())
    assert equal(list(resumed), whole[1:])


class Untrained(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.weight * 1.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@each_case
def test_a_checkpoint_restores_the_arguments(case, folder, tmp_path):
    data = case.build(folder, seed=3, val_size=1)
    run = trainer(max_steps=1)
    run.fit(Untrained(), datamodule=data)
    path = tmp_path / "data.ckpt"
    run.save_checkpoint(path)
    stored = torch.load(path, weights_only=True)["datamodule_hyper_parameters"]
    live = {name: case.arguments[name] for name in ("train", "test") if name in case.arguments}
    again = case.data.load_from_checkpoint(path, **live)
    assert {*stored} >= {*again.arguments} == {*inspect.signature(case.data).parameters}
    plain = [name for name in again.arguments if name not in (*live, "augmentation", "root")]
    assert {name: again.arguments[name] for name in plain} == {name: data.arguments[name] for name in plain}
    again.setup()
    assert equal(epoch(again), epoch(data))
    if live:
        with pytest.raises(ValueError, match=r"train: a checkpoint can't hold this .*TensorImages; pass it again"):
            case.data.load_from_checkpoint(path)


def fail_at_open(monkeypatch: pytest.MonkeyPatch, is_broken: Callable[[str], bool], code: int) -> None:
    """Make the system refuse to open some files."""
    real = open

    def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
        if is_broken(str(path)):
            raise OSError(code, os.strerror(code), str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)  # of pathlib


@pytest.mark.parametrize("case", IN_FILES, ids=str)
def test_faults_of_the_storage_that_pass_change_nothing(case, folder, monkeypatch):
    right = epoch(loaded(case, folder))
    monkeypatch.setattr(faults, "sleep", lambda seconds: None)
    opened: Counter[str] = Counter()

    def is_broken(path: str) -> bool:
        opened[path] += str(folder) in path
        return opened[path] == 1  # at the first time

    fail_at_open(monkeypatch, is_broken, errno.EIO)
    # torchvision opens all files of a part, so that each of CIFAR's takes one more try.
    monkeypatch.setattr(faults, "WAITS", (0.1,) * 10)
    assert equal(epoch(loaded(case, folder)), right)
    assert opened


@pytest.mark.parametrize("case", IN_FILES, ids=str)
def test_faults_of_the_system_end_the_run(case, folder, monkeypatch):
    broken = case.corrupt if case.data is not STL10DataModule else "stl10_binary/train_y.bin"  # images are mapped
    fail_at_open(monkeypatch, lambda path: path.endswith(broken), errno.EMFILE)
    with pytest.raises(SystemFault, match=rf"{re.escape(broken)}: can't be read .*ulimit -n"):
        epoch(loaded(case, folder))


def trouble(case: Case, folder: Path) -> str:
    """Read everything once; return the errors and warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            data = loaded(case, folder)
            list(data.train_dataloader())
            list(data.probe_train_dataloader())
            data.teardown()
        except (OSError, ValueError) as error:
            return str(error)
    return "\n".join(str(warning.message) for warning in caught)


@pytest.mark.parametrize("case", IN_FILES, ids=str)
def test_a_corrupt_file_is_named(case, copied):
    path = copied / case.corrupt
    path.write_bytes(path.read_bytes()[:-20])
    assert str(path) in trouble(case, copied)


@pytest.mark.parametrize("case", IN_FILES, ids=str)
def test_a_missing_file_is_named_with_a_fix(case, copied):
    path = copied / case.missing
    path.rename(copied / "elsewhere")
    message = trouble(case, copied)
    assert message.startswith("root: expected ")
    assert str(path) in message
    assert "; " in message


def rows_of_a_process(rank: int, files: list[tuple[str, miniatures.Patches]]) -> list[list[list[int]]]:
    read = []
    for case, (folder, patches) in zip(CASES, files, strict=True):
        for target, attribute, value in patches:  # patch this child process only; it exits after the test
            setattr(target, attribute, value)
        data = loaded(case, Path(folder), return_index=True, batch_size=1)
        loaders = [data.train_dataloader(), data.probe_train_dataloader()]
        loaders += [data.test_dataloader()] if case.sizes[2] else []
        read.append([[row for *_, index in loader for row in index.tolist()] for loader in loaders])
    return read


def test_two_processes_see_every_image_once():
    files = [("", []) if case.write is None else written(case.write) for case in CASES]
    for case, *of_both in zip(CASES, *run_in_processes(rows_of_a_process, files), strict=True):
        train, *evaluated = zip(*of_both, strict=True)
        sizes = [size for size in case.sizes if size]
        assert len({*train[0], *train[1]}) == len(train[0]) + len(train[1]) == sizes[0] // 2 * 2, case
        for (even, odd), size in zip(evaluated, sizes[1:], strict=True):
            assert even == list(range(0, size, 2)), case
            assert odd == [*range(1, size, 2), *([0] if size % 2 else [])], case  # odd sizes repeat the first image
