import inspect
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from ssl_modules.augmentations import RandomHorizontalFlip, RandomResizedCrop, Views
from ssl_modules.extractions import AllViews, LabelRanks, LocalMaps, PatchContext, Predictor, Queue
from ssl_modules.losses import GroCoLoss, InfoNCE, RINCELoss, SCELoss
from ssl_modules.optim import WarmupCosine
from ssl_modules.similarities import Cosine, ScaledDot
from ssl_modules.utils.configurable import Configurable, build, storable, to_config


class Part(Configurable):
    def __init__(self, a: int, b: float = 2.0, *, c: str | None = None) -> None:
        self.sum = a + b


class Child(Part):
    def __init__(self, a: int = 5, **kwargs) -> None:
        super().__init__(a + 1, **kwargs)


class Heir(Part):
    pass


class Positional(Configurable):
    def __init__(self, *args, **kwargs) -> None:
        pass


HERE = Part.__module__


def test_arguments_are_those_of_the_objects_own_constructor_with_defaults():
    assert Part(1, c="x").arguments == {"a": 1, "b": 2.0, "c": "x"}
    assert Heir(1).arguments == {"a": 1, "b": 2.0, "c": None}
    child = Child(b=3.0)
    assert child.arguments == {"a": 5, "b": 3.0, "c": None}
    assert child.sum == 9.0
    assert Child(**child.arguments).sum == 9.0
    assert str(inspect.signature(Part)) == "(a: int, b: float = 2.0, *, c: str | None = None)"
    assert str(inspect.signature(Child)) == "(a: int = 5, *, b: float = 2.0, c: str | None = None)"
    assert inspect.signature(Heir) == inspect.signature(Part)


def test_arguments_without_a_name_are_refused():
    assert Positional(x=1).arguments == {"x": 1}
    with pytest.raises(TypeError, match=r"Positional: got 2 arguments by position, .*pass them by name"):
        Positional(1, 2)


def test_the_outermost_constructor_builds_what_a_checkpoint_holds():
    class Own(Configurable):
        def __init__(self, part, scale=1.0):
            self.part = part

    config = storable(Own(InfoNCE(0.3)).arguments)
    again = Own(**config)
    assert isinstance(again.part, InfoNCE)
    assert again.part.temperature == 0.3
    assert storable(again.arguments) == config
    with pytest.raises(ValueError, match=r"part: a checkpoint can't hold this torch\.Tensor; pass it again"):
        Own(**storable(Own(torch.zeros(1)).arguments))


def test_wrong_arguments_fail_as_ever():
    with pytest.raises(TypeError, match=r"Part.__init__\(\) missing 1 required positional argument: 'a'"):
        Part()


def test_plain_form_and_back():
    augmentation = Views([RandomResizedCrop(8, scale=(0.3, 1.0)), RandomHorizontalFlip(p=0.25)], views=3)
    config = to_config(augmentation)
    assert config["class_path"] == "ssl_modules.augmentations.Views"
    assert config["init_args"]["views"] == 3
    assert config["init_args"]["transforms"][1]["init_args"] == {"p": 0.25}
    images = torch.rand(4, 3, 12, 12)
    g = torch.Generator()
    again = build("augmentation", config)
    for a, b in zip(augmentation(images, g.manual_seed(0)), again(images, g.manual_seed(0)), strict=True):
        assert torch.equal(a, b)


def test_numbers_of_numpy_become_plain():
    config = storable({"mean": (np.float64(0.5), np.float32(0.25)), "size": np.int64(3), "flag": np.bool_(True)})
    assert config == {"mean": [0.5, 0.25], "size": 3, "flag": True}
    assert [type(x) for x in (*config["mean"], config["size"], config["flag"])] == [float, float, int, bool]


@pytest.mark.parametrize("optimizer", [partial(torch.optim.SGD, lr=0.5, momentum=0.9), torch.optim.AdamW])
def test_optimisers_are_stored_as_class_and_arguments(optimizer):
    again = build("optimizer", to_config(optimizer))
    parameter = nn.Parameter(torch.zeros(1))
    a, b = optimizer([parameter]), again([parameter])
    assert type(a) is type(b)
    assert a.param_groups == b.param_groups


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (nn.Linear(1, 1), "torch.nn.modules.Linear"),
        (lambda parameters: None, "builtins.function"),
        (partial(torch.optim.SGD, [], lr=0.1), "functools.partial"),
        ([InfoNCE(), nn.ReLU()], "builtins.list"),
    ],
)
def test_what_has_no_plain_form_is_named_when_it_is_missing(value, kind):
    config = storable({"thing": value, "other": 1})
    assert config == {"thing": {"not_stored": kind}, "other": 1}
    with pytest.raises(ValueError, match=rf"thing: .*{kind}; pass it again: load_from_checkpoint\(path, thing=...\)"):
        build("thing", config["thing"])


def test_a_checkpoint_names_only_classes_of_our_kind_that_are_there():
    with pytest.raises(ValueError, match=r"loss: there is no class 'nowhere.Loss'; define or import it first"):
        build("loss", {"class_path": "nowhere.Loss"})
    with pytest.raises(ValueError, match=r"loss: 'subprocess.Popen' is neither a Configurable nor an optimiser or sch"):
        build("loss", {"class_path": "subprocess.Popen", "init_args": {"args": ["true"]}})
    assert build("loss", {"class_path": f"{HERE}.Part", "init_args": {"a": 2}}).sum == 4.0


def test_live_objects_pass_through():
    loss = InfoNCE()
    assert build("loss", loss) is loss
    assert build("mapping", {"a": [1, 2]}) == {"a": [1, 2]}


@pytest.mark.parametrize(
    "thing",
    [
        SCELoss(positive_weight=0.3),
        RINCELoss((0.1, 0.2), modes="out-in"),
        GroCoLoss(5),
        Cosine(),
        ScaledDot(),
        AllViews(7, same_view_negatives=True, positive_count="large"),
        LocalMaps([(-1, -2)], out_dim=None),
        Queue(size=9, ranks=LabelRanks(cumulative=True), momentum_schedule="cosine"),
        Predictor(momentum=0.5),
        PatchContext(8, (2, 4)),
        WarmupCosine(7),
    ],
    ids=lambda x: type(x).__name__,
)
def test_a_part_is_shown_as_the_call_that_makes_it(thing):
    again = eval(repr(thing), globals())
    assert type(again) is type(thing)
    assert to_config(again) == to_config(thing)
