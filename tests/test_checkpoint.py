from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from ssl_modules import BYOL, FineTuning, SimCLR, load_module
from ssl_modules.augmentations import RandomResizedCrop, Views
from ssl_modules.encoders import Encoder
from ssl_modules.extractions import Predictor
from ssl_modules.losses import InfoNCE
from ssl_modules.optim import WarmupCosine


class Warm(SimCLR):
    def __init__(self, temperature: float = 0.5) -> None:
        views = Views([RandomResizedCrop(8)])
        super().__init__(views, "test_resnet", image_size=8, in_channels=1, loss=InfoNCE(temperature))


def plain(encoder="test_resnet"):
    return SimCLR(Views([RandomResizedCrop(8)]), encoder, image_size=8, in_channels=1)


def pixels():
    return DataLoader(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), batch_size=4)


def saved(module, path):
    trainer = pl.Trainer(barebones=True, accelerator="cpu")
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda: Warm(temperature=0.3),
        lambda: BYOL(
            Views([RandomResizedCrop(8)]), "test_resnet", Predictor(momentum=0.9), image_size=8, in_channels=1
        ),
    ],
    ids=["own", "BYOL"],
)
def test_a_checkpoint_gives_its_own_class_with_its_weights_and_arguments(make, tmp_path):
    torch.manual_seed(1)
    module = make()
    torch.manual_seed(2)
    again = load_module(saved(module, tmp_path / "last.ckpt"))
    assert type(again) is type(module)
    assert again.arguments.keys() == module.arguments.keys()
    assert getattr(again.loss, "temperature", None) == getattr(module.loss, "temperature", None)
    for name, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_what_is_no_checkpoint_of_ours(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load_module(tmp_path / "none.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "plain.pt")
    with pytest.raises(ValueError, match=r"path: .*plain.pt is no checkpoint of a ContrastiveModule"):
        load_module(tmp_path / "plain.pt")


@pytest.mark.parametrize("name", ["somewhere.Else", "builtins.print", "torch.nn.Linear"])
def test_a_checkpoint_has_no_other_class_imported_or_called(name, tmp_path):
    path = saved(Warm(), tmp_path / "last.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["ssl_modules"]["class"] = name
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=rf"is of the class {name}, which does not exist here; import the module"):
        load_module(path)


def rewritten(path, change):
    """Apply a change to the checkpoint file."""
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    return path


def of_earlier_version(checkpoint):
    del checkpoint["ssl_modules"]["version"]
    arguments = checkpoint["hyper_parameters"]
    arguments["warmup"] = arguments.pop("schedule")["init_args"]["warmup"]
    arguments["reference_batch_size"] = arguments.pop("base_batch_size")


@pytest.mark.parametrize(
    "read",
    [
        load_module,
        SimCLR.load_from_checkpoint,
        lambda path: pl.Trainer(barebones=True, accelerator="cpu", max_steps=1).fit(plain(), pixels(), ckpt_path=path),
    ],
    ids=["load_module", "load_from_checkpoint", "fit"],
)
def test_a_file_of_the_version_before_is_refused_with_the_new_names(read, tmp_path):
    path = rewritten(saved(plain(), tmp_path / "last.ckpt"), of_earlier_version)
    with pytest.raises(ValueError, match=r"checkpoint: is of ssl-modules 0\.1, .* \(now base_batch_size\)"):
        read(path)


def test_a_fine_tuned_file_of_the_version_before_is_refused(tmp_path):
    encoder = Encoder("test_resnet", image_size=8, in_channels=1)
    module = FineTuning(encoder, num_classes=2, optimizer=torch.optim.SGD)
    path = saved(module, tmp_path / "last.ckpt")
    FineTuning.load_from_checkpoint(path)

    def change(checkpoint):
        del checkpoint["ssl_modules"]
        checkpoint["hyper_parameters"]["warmup"] = checkpoint["hyper_parameters"].pop("schedule")["init_args"]["warmup"]

    with pytest.raises(ValueError, match=r"checkpoint: is of ssl-modules 0\.1"):
        FineTuning.load_from_checkpoint(rewritten(path, change))


CALLED = []


def instantiator(*arguments):
    CALLED.append(arguments)


def test_no_function_that_a_file_names_is_called(tmp_path):
    def change(checkpoint):
        checkpoint["hyper_parameters"]["_instantiator"] = f"{__name__}.instantiator"

    path = rewritten(saved(plain(), tmp_path / "last.ckpt"), change)
    assert load_module(path).arguments.keys() == SimCLR.load_from_checkpoint(path).arguments.keys()
    assert not CALLED


def test_arguments_replace_those_of_the_checkpoint(tmp_path):
    path = saved(plain(), tmp_path / "last.ckpt")
    again = load_module(path, loss=InfoNCE(0.7), base_batch_size=64)
    assert (again.loss.temperature, again.base_batch_size) == (0.7, 64)
    network = torch.nn.Conv2d(1, 4, 3)
    own = saved(plain(encoder=network), tmp_path / "own.ckpt")
    with pytest.raises(ValueError, match="encoder: a checkpoint can't hold this"):
        load_module(own)
    again = load_module(own, encoder=torch.nn.Conv2d(1, 4, 3))
    assert torch.equal(again.encoder.backbone.model.weight, network.weight)


def test_what_was_replaced_after_construction_is_stored(tmp_path):
    module = SimCLR(encoder="test_resnet", image_size=8)
    module.loss = InfoNCE(0.55)
    module.optimizer = partial(torch.optim.SGD, lr=0.77)
    module.schedule = WarmupCosine(warmup=3)
    module.base_batch_size = None
    saved(module, tmp_path / "last.ckpt")
    again = load_module(tmp_path / "last.ckpt")
    assert again.loss.temperature == 0.55
    assert again.optimizer.keywords == {"lr": 0.77}
    assert again.schedule.warmup == 3
    assert again.base_batch_size is None
