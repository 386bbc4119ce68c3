"""Methods from the command line and from a notebook are saved and loaded again."""

from pathlib import Path

import pytest
import torch
import yaml
from conformance.cases import CASES, SIZE
from processes import run_script

from ssl_modules.cli import main
from ssl_modules.utils.configurable import storable

LINKED = ("image_size", "in_channels", "mean", "std")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_run_from_yaml_loads_again(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    module = storable(case.build().arguments)
    arguments = {name: value for name, value in module.items() if name not in LINKED}
    config = {
        "model": {"class_path": case.method.__name__, "init_args": arguments},
        "data": {"class_path": "DigitsDataModule", "init_args": {"batch_size": 16}},
        "trainer": {"max_epochs": 1, "limit_train_batches": 2, "accelerator": "cpu", "enable_progress_bar": False},
        "knn_probe": {"bank_size": 64},
        "linear_probe": {"bank_size": 64},
    }
    Path("given.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "given.yaml", "--print_config"])
    assert stop.value.code == 0
    Path("printed.yaml").write_text(capsys.readouterr().out)
    printed = yaml.safe_load(Path("printed.yaml").read_text())
    assert set(printed["model"]["init_args"]) == set(module) - set(LINKED)

    main(["fit", "--config", "printed.yaml"])
    path = next(tmp_path.glob("lightning_logs/*/checkpoints/last.ckpt"))
    stored = torch.load(path, weights_only=True)
    loaded = case.method.load_from_checkpoint(path)
    assert (loaded.encoder.image_size, loaded.encoder.in_channels) == (SIZE, 1)
    assert loaded.encoder.mean.item() == pytest.approx(0.28742, abs=1e-5)  # from the data module
    assert storable(loaded.arguments).keys() == module.keys()
    for name in ("extraction", "similarity", "loss"):
        assert type(getattr(loaded, name)) is type(getattr(case.build(), name))
    torch.testing.assert_close(dict(loaded.state_dict()), dict(stored["state_dict"]), rtol=0, atol=0)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """Return the folder with checkpoints of classes defined in ``__main__``, which are also loaded there."""
    folder = tmp_path_factory.mktemp("notebook")
    run_script(Path(__file__).with_name("notebook.py"), str(folder), folder=folder)
    return folder


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_class_of_a_notebook_saves_and_loads(case, notebook):
    assert (notebook / f"{case}.loaded").exists()
    with pytest.raises(ValueError, match=r"similarity: there is no class '__main__.Sharp'; define or import it first"):
        case.method.load_from_checkpoint(notebook / f"{case}.ckpt")
