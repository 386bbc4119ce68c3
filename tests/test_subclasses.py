"""User-defined methods: subclasses that pass on, set or compute the method's arguments."""

import inspect

import pytest
import torch
from conformance.cases import trainer
from modules import Net, loader
from timm.optim import Lars
from torch import nn

from ssl_modules import ContrastiveModule, SimCLR, load_module
from ssl_modules.augmentations import SimCLRViews
from ssl_modules.extractions import AllViews
from ssl_modules.losses import InfoNCE
from ssl_modules.similarities import Dot
from ssl_modules.utils.configurable import find_class

VIEWS = SimCLRViews(8, blur=False)


class Fixed(SimCLR):
    """Passes a fixed similarity to the method."""

    def __init__(self, **settings):
        super().__init__(similarity=Dot(), **settings)


class Wide(SimCLR):
    """Computes an aspect from its own argument."""

    def __init__(self, width=4, **settings):
        super().__init__(encoder=nn.Sequential(Net(), nn.Conv2d(8, width, 1)), **settings)


class Wider(Wide):
    """Passes a fixed width to its base class."""

    def __init__(self, **settings):
        super().__init__(width=6, **settings)


class Closed(SimCLR):
    """Takes no arguments of the method."""

    def __init__(self, temperature=0.3):
        super().__init__(VIEWS, "test_resnet", loss=InfoNCE(temperature), image_size=8)


class Margin(SimCLR):
    """Passes on all arguments, also positional ones."""

    def __init__(self, *args, margin=0.1, **kw):
        super().__init__(*args, **kw)
        self.margin = margin


ALL = list(inspect.signature(SimCLR).parameters)
SMALL = {"augmentation": VIEWS, "image_size": 8}
CASES = {
    "fixed": (lambda: Fixed(**SMALL, encoder="test_resnet"), [name for name in ALL if name != "similarity"]),
    "wide": (lambda: Wide(5, **SMALL), ["width", *(name for name in ALL if name != "encoder")]),
    "wide by name": (lambda: Wide(**SMALL, width=5), ["width", *(name for name in ALL if name != "encoder")]),
    "wider": (lambda: Wider(**SMALL), [name for name in ALL if name != "encoder"]),
    "closed": (lambda: Closed(0.6), ["temperature"]),
    "margin": (
        lambda: Margin(VIEWS, "test_resnet", AllViews(7, 5), Dot(), InfoNCE(0.7), margin=0.4, image_size=8),
        [*ALL, "margin"],
    ),
    "margin by name": (
        lambda: Margin(**SMALL, encoder="test_resnet", loss=InfoNCE(0.7), margin=0.4),
        [*ALL, "margin"],
    ),
}


def save(module, path):
    run = trainer(max_steps=1)
    run.fit(module, loader())
    run.save_checkpoint(path)
    return path


@pytest.mark.parametrize(("make", "parameters"), CASES.values(), ids=list(CASES))
def test_a_subclass_saves_and_loads(make, parameters, tmp_path):
    module = make()
    path = save(module, tmp_path / "m.ckpt")
    for again in (type(module).load_from_checkpoint(path), load_module(path)):
        assert type(again) is type(module)
        assert again.hparams == module.hparams
        assert str(again) == str(module)
        torch.testing.assert_close(again.state_dict(), module.state_dict(), rtol=0, atol=0)
    trainer(max_steps=2).fit(make(), loader(), ckpt_path=path)


@pytest.mark.parametrize(("make", "parameters"), CASES.values(), ids=list(CASES))
def test_the_signature_shows_what_a_subclass_takes_and_a_checkpoint_holds_it(make, parameters):
    module = make()
    assert set(inspect.signature(type(module)).parameters) == set(parameters)
    assert set(module.arguments) == set(module.hparams) == set(parameters)
    assert type(module)(**module.arguments).hparams == module.hparams


def test_what_stands_first_in_a_subclass_stands_first_in_its_signature():
    assert next(iter(inspect.signature(Wide).parameters)) == "width"
    by_position = [name for name, p in inspect.signature(Margin).parameters.items() if p.kind is not p.KEYWORD_ONLY]
    assert by_position == ["augmentation", "encoder", "extraction", "similarity", "loss"]


def test_arguments_by_position_have_the_names_of_the_base_class():
    module = CASES["margin"][0]()
    assert module.margin == 0.4
    assert type(module.similarity) is Dot
    assert module.arguments["loss"].temperature == 0.7
    assert (module.arguments["encoder"], module.arguments["margin"]) == ("test_resnet", 0.4)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Fixed(**SMALL, similarity=Dot()), "got multiple values for keyword argument 'similarity'"),
        (lambda: Wide(**SMALL, encoder="test_resnet"), "got multiple values for keyword argument 'encoder'"),
        (lambda: Closed(image_size=8), "unexpected keyword argument 'image_size'"),
        (lambda: Fixed(**SMALL, marging=0.1), "unexpected keyword argument 'marging'"),
        (lambda: Margin(VIEWS, augmentation=VIEWS), "got multiple values for argument 'augmentation'"),
    ],
)
def test_what_a_subclass_does_not_take_is_refused(make, error):
    with pytest.raises(TypeError, match=error):
        make()


# ---- defaults of another version -------------------------------------------------------------------------------------


class Earlier(SimCLR):
    def __init__(self, loss=InfoNCE(0.3), extraction=AllViews(out_dim=5), scale=2.0, **settings):
        super().__init__(loss=loss, extraction=extraction, **settings)
        self.scale = scale


class OfEarlier(Earlier):
    def __init__(self, **settings):
        super().__init__(**settings)


class Later(SimCLR):
    def __init__(self, loss=InfoNCE(0.9), extraction=AllViews(out_dim=6), scale=3.0, **settings):
        super().__init__(loss=loss, extraction=extraction, **settings)
        self.scale = scale


class OfLater(Later):
    def __init__(self, **settings):
        super().__init__(**settings)


@pytest.mark.parametrize(("earlier", "later"), [(Earlier, Later), (OfEarlier, OfLater)], ids=["own", "of the base"])
def test_a_changed_default_does_not_change_an_old_checkpoint(earlier, later, tmp_path):
    path = save(earlier(**SMALL, encoder="test_resnet"), tmp_path / "m.ckpt")
    loaded = later.load_from_checkpoint(path)
    assert (loaded.loss.temperature, loaded.extraction.out_dim, loaded.scale) == (0.3, 5, 2.0)
    fresh = later(**SMALL, encoder="test_resnet")
    assert (fresh.loss.temperature, fresh.extraction.out_dim, fresh.scale) == (0.9, 6, 3.0)


def test_a_checkpoint_holds_the_recipe_of_the_method_and_of_its_base():
    hparams = SimCLR(VIEWS, "test_resnet", image_size=8).hparams
    assert set(hparams) == set(ALL) == set(inspect.signature(ContrastiveModule).parameters)
    assert hparams["optimizer"]["init_args"] == {"lr": 0.3, "momentum": 0.9, "weight_decay": 1e-6}
    assert find_class(hparams["optimizer"]["class_path"]) is Lars
    of_schedule = {"warmup": 0.1, "ramp": "s/W", "floor": 0.0, "per": "step"}
    assert hparams["schedule"] == {"class_path": "ssl_modules.optim.WarmupCosine", "init_args": of_schedule}
    assert hparams["similarity"]["class_path"] == "ssl_modules.similarities.Cosine"
    assert hparams["loss"]["class_path"] == "ssl_modules.losses.InfoNCE"
    assert hparams["extraction"]["class_path"] == "ssl_modules.extractions.AllViews"
    assert hparams["augmentation"]["class_path"] == "ssl_modules.augmentations.SimCLRViews"
    assert (hparams["base_batch_size"], hparams["small_stem"], hparams["anchor_block"]) == (256, None, None)


class Counting:
    """A mixin that doesn't depend on this package."""

    def __init__(self, *args, count=3, **kwargs):
        super().__init__(*args, **kwargs)
        self.count = count


class Counted(Counting, SimCLR):
    pass


class CountedAndFixed(Counting, SimCLR):
    def __init__(self, margin=0.1, **settings):
        super().__init__(encoder="test_resnet", **settings)
        self.margin = margin


@pytest.mark.parametrize("cls", [Counted, CountedAndFixed])
def test_arguments_of_a_mixin_are_stored(cls, tmp_path):
    given = {"encoder": "test_resnet"} if cls is Counted else {"margin": 0.3}
    module = cls(count=5, image_size=8, **given)
    assert "count" in inspect.signature(cls).parameters
    fit = trainer()
    fit.strategy.connect(module)
    fit.save_checkpoint(tmp_path / "last.ckpt")
    again = cls.load_from_checkpoint(tmp_path / "last.ckpt")
    assert again.count == 5
    assert cls is Counted or again.margin == 0.3
