"""The demo on a user's own folders."""

import importlib.util
from pathlib import Path

import pytest
from pictures import write_image

from ssl_modules import SimCLR

SCRIPT = Path(__file__).parents[2] / "examples" / "demo.py"
spec = importlib.util.spec_from_file_location("demo", SCRIPT)
demo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(demo)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "EPOCHS", 1)
    monkeypatch.setattr(demo, "BUDGET", 1)
    monkeypatch.setattr(demo, "quieten", lambda: None)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # monkeypatch restores them after the test
        monkeypatch.setenv(name, "0")

    def main(folder):
        monkeypatch.setattr("sys.argv", ["demo.py", str(folder)])
        demo.main()
        return capsys.readouterr().out

    return main


def images(folder, count, places=("",)):
    for index in range(count):
        write_image(folder / places[index % len(places)] / f"{index}.jpg", 20 + index, 30, quality=50 + index)
    return folder


@pytest.mark.parametrize(
    ("places", "classes"),
    [(("cat", "dog"), True), (("",), False), (("cat",), False), (("", "cat", "dog"), False), (("", ".cache"), False)],
    ids=["classes", "no folders", "one folder", "images beside folders", "hidden folder"],
)
def test_folders_are_classes_where_they_can_be(tmp_path, places, classes):
    data, _ = demo.folder(images(tmp_path / "pets", 50, places))
    assert data.class_names == (places if classes else ())
    data.setup()
    assert len(data.val_set) == len(data.train_set) // 4


@pytest.mark.parametrize("places", [("cat", "dog"), ("",)], ids=["classes", "none"])
def test_a_folder_is_trained_on_and_drawn(tmp_path, monkeypatch, run, places):
    modes = []

    class Recorder(SimCLR):
        def training_step(self, batch, batch_idx):
            modes.append({part.training for part in self.modules()})
            return super().training_step(batch, batch_idx)

    monkeypatch.setattr(demo, "SimCLR", Recorder)
    out = run(images(tmp_path / "pets", 30, places))
    assert modes == [{True}] * 6  # drawing before training leaves no layer in eval mode
    assert ("k-NN, k = 20" in out) == ("linear (ridge)" in out) == (places != ("",))
    assert "2 epochs of 24 images" in out
    assert Path("demo.png").stat().st_size > 10_000


def test_what_is_wrong_is_one_line(tmp_path, run, capsys):
    few = images(tmp_path / "few", 3)
    for folder, message in (
        (few, f"error: {few}: 3 images found, but the demo needs 20; "),
        (tmp_path / "nowhere", f"error: {tmp_path / 'nowhere'}: 0 images found"),
    ):
        with pytest.raises(SystemExit):
            run(folder)
        assert message in capsys.readouterr().err.splitlines()[-1]
