"""Tests that every public data module must pass."""

import inspect
from pathlib import Path
from typing import Any

import miniatures
import pytest
import torch
from conformance.cases import trainer
from conformance.datamodules import CASES, epoch, equal, loaded, written
from lightning.pytorch import LightningModule
from pictures import one_epoch
from processes import run_in_processes

from ssl_modules import datamodules
from ssl_modules.cli import main
from ssl_modules.datamodules import (
    BaseDataModule,
    ImageFolderDataModule,
)
from ssl_modules.datamodules.from_files import FilesDataModule

SHARED = list(inspect.signature(BaseDataModule).parameters)
FACTS = ("name", "num_classes", "dims", "mean", "std")
each_case = pytest.mark.parametrize("case", CASES, ids=str)


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
    assert "whether batches also hold the row of each" in shown


@each_case
def test_facts_stand_on_the_class(case):
    if not {*FACTS} & {*inspect.signature(case.data).parameters} and case.data is not ImageFolderDataModule:
        assert [fact for fact in FACTS if not hasattr(case.data, fact)] == []
        assert len(case.data.mean) == len(case.data.std) == case.data.dims[0]
        assert len(case.data.class_names) in (0, case.data.num_classes)  # some modules read the names from the files


@each_case
def test_facts_agree_with_the_batches(case, folder):
    data = case.build(folder, return_index=True)
    before = {fact: getattr(data, fact) for fact in (*FACTS, "target_type", "levels")}
    train, labelled, test = case.sizes
    one_epoch(data, train, labelled, test or None)
    assert before == {fact: getattr(data, fact) for fact in before}
    assert len(data.class_names) == data.num_classes
    assert data.image_size == data.dims[-1]
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
    plain = [name for name in again.arguments if name not in (*live, "augmentation", "root", "url")]
    assert {name: again.arguments[name] for name in plain} == {name: data.arguments[name] for name in plain}
    again.setup()
    assert equal(epoch(again), epoch(data))
    if live:
        with pytest.raises(ValueError, match=r"train: a checkpoint can't hold this .*TensorImages; pass it again"):
            case.data.load_from_checkpoint(path)


def rows_of_a_process(rank: int, files: list[tuple[str, miniatures.Patches]]) -> list[list[list[int]]]:
    read = []
    for case, (folder, patches) in zip(CASES, files, strict=True):
        for target, attribute, value in patches:  # patch this child process only; it exits after the test
            setattr(target, attribute, value)
        data = loaded(case, Path(folder), return_index=True, batch_size=1)
        loaders = [data.train_dataloader(), data.probe_train_dataloader()]
        loaders += [data.test_dataloader()] if case.sizes[2] else []
        read.append([[row for batch in loader for row in batch[2].tolist()] for loader in loaders])
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
