import lightning.pytorch as pl
import pytest
import torch

from ssl_modules import BYOL, SimCLR, load_module
from ssl_modules.augmentations import RandomResizedCrop, Views
from ssl_modules.losses import InfoNCE


class Warm(SimCLR):
    def __init__(self, temperature: float = 0.5) -> None:
        views = Views([RandomResizedCrop(8)])
        super().__init__(views, "test_resnet", image_size=8, in_channels=1, loss=InfoNCE(temperature))


def saved(module, path):
    trainer = pl.Trainer(barebones=True, accelerator="cpu")
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda: Warm(temperature=0.3),
        lambda: BYOL(Views([RandomResizedCrop(8)]), "test_resnet", image_size=8, in_channels=1, momentum=0.9),
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
    with pytest.raises(ValueError, match=rf"is of the class {name}, which is not there; import the module"):
        load_module(path)
