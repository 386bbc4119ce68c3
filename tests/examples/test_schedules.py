"""The picture of the learning rates shows the schedules of the recipes."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import yaml

from ssl_modules import methods, optim

EXAMPLES = Path(__file__).parents[2] / "examples"
spec = importlib.util.spec_from_file_location("schedules", EXAMPLES / "schedules.py")
schedules = importlib.util.module_from_spec(spec)
spec.loader.exec_module(schedules)


def test_each_method_has_a_panel():
    assert [schedules.read(name).method for name in schedules.PANELS].count("SCE") == 1
    assert {schedules.read(name).method for name in schedules.PANELS} == {*methods.__all__}


def test_curves_and_insets_show_the_factors_of_the_recipes_schedules():
    recipes = [schedules.read(name) for name in schedules.PANELS]
    figure = schedules.draw(recipes)
    for axis, name, recipe in zip(figure.axes, schedules.PANELS, recipes, strict=True):
        config = yaml.safe_load((EXAMPLES / "configs" / f"{name}.yaml").read_text())
        given = config["model"]["init_args"]["schedule"]
        schedule = getattr(optim, given["class_path"])(**given.get("init_args", {}))
        assert axis.get_title() == f"{config['model']['class_path']}, {config['trainer']['max_epochs']:,} epochs"
        assert len(axis.lines) == (2 if recipe.warmup else 1)
        for line in [line for shown in (axis, *axis.child_axes) for line in shown.lines]:
            for share, factor in list(zip(*line.get_data(), strict=True))[::37]:
                step = round(share * recipe.steps)
                assert factor == schedule(step, recipe.steps, recipe.steps_per_epoch)
    insets = {name for axis, name in zip(figure.axes, schedules.PANELS, strict=True) if axis.child_axes}
    assert insets == {
        "byol_imagenet",
        "rince_cifar100",
        "groco_imagenet",
        "amdim_imagenet",
        "yadim_imagenet",
        "supcon_imagenet",
        "ressl_imagenet",
    }


@pytest.mark.parametrize(
    ("name", "warmup"), [("simclr_imagenet", 3120), ("rince_cifar100", 970), ("amdim_imagenet", 500)]
)
def test_the_warmup_is_that_of_whole_epochs_of_whole_batches(name, warmup):
    assert schedules.read(name).warmup == warmup


def test_another_recipe_gives_another_curve(tmp_path, monkeypatch):
    before = schedules.read("simclr_imagenet")
    shutil.copy(schedules.CONFIGS / "simclr_imagenet.yaml", tmp_path)
    changed = tmp_path / "simclr_imagenet.yaml"
    changed.write_text(changed.read_text().replace("warmup: 0.1", "warmup: 0.2"))
    monkeypatch.setattr(schedules, "CONFIGS", tmp_path)
    after = schedules.read("simclr_imagenet")
    assert (after.factors(0, 3120)[1] != before.factors(0, 3120)[1]).any()
    assert after.warmup == 2 * before.warmup


def test_the_script_writes_the_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["schedules.py", "--output", str(tmp_path / "rates.svg")])
    schedules.main()
    assert (tmp_path / "rates.svg").read_text().count("axes_") >= len(schedules.PANELS)
    assert str(tmp_path / "rates.svg") in capsys.readouterr().out
