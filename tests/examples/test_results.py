"""The tables of README and docs hold the measured values."""

import importlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conformance.cases import trainer

from ssl_modules.datamodules import FashionMNISTDataModule, TensorImages

FOLDER = Path(__file__).parents[2] / "examples" / "results"


@pytest.fixture
def scripts(monkeypatch):
    """Return a function that imports a script of the folder by its name."""
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module
    for name in ("digits", "table", "paired", "run", "rows"):
        sys.modules.pop(name, None)


@pytest.fixture
def table(scripts):
    pytest.importorskip("matplotlib")
    return scripts("table")


@pytest.fixture
def run(scripts):
    return scripts("run")


def test_the_pages_hold_what_the_script_writes(table):
    for path, content in ((table.PAGE, table.page()), (table.README, table.short())):
        text = path.read_text()
        assert table.filled(text, content) == text, f"run {FOLDER / 'table.py'}"


def test_values_are_means_over_seeds(table):
    runs = [json.loads(line) for line in (FOLDER / "scattered.jsonl").read_text().splitlines()]
    of_simclr = [100 * run["knn"] for run in runs if run["row"] == "SimCLR"]
    [row] = [line for line in table.short().splitlines() if line.startswith("| SimCLR |")]
    assert row.split(" | ")[1].split(" ± ")[0] == f"{sum(of_simclr) / len(of_simclr):.1f}"


def worse_than_raw_pixels(table, name, metric):
    """Return the trained rows whose mean is not above that of raw pixels."""
    rows = table.lines(name)
    means = {row: sum(run[metric] for run in runs) / len(runs) for row, runs in rows.items()}
    return {row for row in rows if means[row] <= means["raw pixels"]} - {*table.REFERENCES}


def says(table, sentence):
    """Return whether the page has this sentence, with any line breaks."""
    return sentence in " ".join(table.PAGE.read_text().split())


def test_the_page_says_which_rows_beat_raw_pixels_on_scattered_images(table):
    assert worse_than_raw_pixels(table, "scattered", "knn") == {"CPC, its encoder"}
    assert says(table, "All trained rows except CPC beat raw pixels by k-NN.")
    knn = {row: 100 * sum(run["knn"] for run in runs) / len(runs) for row, runs in table.lines("scattered").items()}
    cpc, amdim = (knn[f"{name}, its encoder"] - knn[f"untrained, {name}'s encoder"] for name in ("CPC", "AMDIM"))
    assert says(table, f"CPC improves its untrained encoder by {cpc:.0f} points, AMDIM by {amdim:.0f}.")
    without_labels = {row: value for row, value in knn.items() if row not in table.WITH_LABELS}
    assert max(without_labels, key=without_labels.get) == "AMDIM, its encoder"


def test_the_page_says_which_rows_beat_raw_pixels_on_fashion_mnist(table):
    without_labels = {*table.ROWS} - {*table.REFERENCES, *table.WITH_LABELS}
    [raw] = table.lines("fashion")["raw pixels"]
    assert says(table, f"Raw pixels reach a k-NN accuracy of {100 * raw['knn']:.1f} %.")
    assert without_labels - worse_than_raw_pixels(table, "fashion", "knn") == {
        *("SimCLR", "lightly's SimCLR", "YADIM", "AMDIM, its encoder"),
        *("SimCLR, 4 views", "GroCo, 4 views", "S2R2, 4 views"),
    }
    assert says(
        table,
        "Without labels, only SimCLR (ours and lightly's), YADIM, AMDIM, and SimCLR, GroCo and S2R2 with 4 views reach "
        "more.",
    )
    assert not worse_than_raw_pixels(table, "fashion", "linear")
    assert says(table, "By linear accuracy, all trained rows beat raw pixels.")
    assert without_labels - worse_than_raw_pixels(table, "fashion", "coarse") == {"BYOL", "SimSiam"}
    assert says(table, "By coarse retrieval, raw pixels beat all rows without labels except BYOL and SimSiam.")


def test_the_page_says_how_far_lightlys_rows_are_from_ours(scripts, table):
    paired, rows, found = scripts("paired"), table.lines("scattered"), []
    for method in ("SimCLR", "MoCo"):
        peer = f"lightly's {method}"
        for metric in ("knn", "linear"):
            middle, half = paired.interval(paired.gains([*rows[method], *rows[peer]], peer, method, metric))
            assert abs(middle) < half < 3
            found.append(f"{middle:+.1f} ± {half:.1f}")
    knn, linear, *of_moco = found
    assert says(
        table,
        f"We found no difference to lightly: its SimCLR minus ours is {knn} (k-NN) and {linear} (linear), its MoCo "
        f"minus ours {' and '.join(of_moco)}.",
    )


def test_the_page_says_how_far_s2r2_is_from_simclr(scripts, table):
    paired, rows = scripts("paired"), table.lines("scattered")
    runs = [*rows["S2R2, 4 views"], *rows["SimCLR, 4 views"]]
    gains = [paired.gains(runs, "S2R2, 4 views", "SimCLR, 4 views", metric) for metric in ("knn", "linear")]
    knn, linear = map(paired.difference, gains)
    assert says(table, f"S2R2 is behind SimCLR with the same four views: k-NN {knn} and linear {linear}.")
    assert all(paired.verdict(values).endswith("does not show it") for values in gains)


def test_the_page_says_what_longer_runs_change(table):
    first, long = (
        {row: table.lines(name)[row] for row in table.lines(name)} for name in ("scattered", "scattered_large")
    )

    def gain(row, metric):
        return 100 * (long[row][0][metric] - sum(run[metric] for run in first[row]) / len(first[row]))

    trained = long.keys() - {*table.REFERENCES}
    assert len(trained) == 5
    assert all(gain(row, metric) > 0 for row in trained for metric in table.COLUMNS if metric != "ood")
    assert {row for row in trained if gain(row, "ood") > 0} == {"SimCLR"}
    assert [round(gain(row, "knn")) for row in ("SCE", "SwAV", "SimCLR")] == [14, 13, 8]
    assert says(table, "SCE gains 14 points of k-NN accuracy, SwAV 13 and SimCLR 8.")


def test_every_row_uses_the_settings_that_its_search_chose(run):
    search = run.Table(FOLDER / "search.jsonl")
    for name in (*run.SETS, "scattered_large"):
        for line in run.Table(FOLDER / f"{name}.jsonl").lines:
            assert (line["crop"], line["rate"]) == (search.crop(), search.rate(line["row"])), line["row"]
            assert line["part"] == "test"
    assert all(line["part"] == "val" for line in search.lines)


def test_differences_are_paired_by_seed(table):
    runs = [{"row": "MoCo", "seed": seed, "knn": knn} for seed, knn in enumerate((0.5, 0.6, 0.7))]
    others = [{"row": "SimCLR", "seed": seed, "knn": knn} for seed, knn in enumerate((0.4, 0.5, 0.6))]

    def difference(lines):
        return table.difference(table.gains(lines, "MoCo", "SimCLR", "knn"))

    assert difference([*runs, *others]) == "+10.0 ± 0.0"
    assert difference([*runs[:1], *others]) == "+10.0"
    assert difference(runs) == ""


def test_seeds_are_those_given_or_those_of_the_row(run):
    search = run.Table(FOLDER / "search.jsonl")

    def seeds(given):
        jobs = run.row_jobs("scattered", search, ["SimCLR", "BYOL"], given, device="cpu", large=False)
        return [(job["row"], job["seed"]) for job in jobs]

    assert seeds(None) == [("SimCLR", 0), ("SimCLR", 1), ("SimCLR", 2), ("BYOL", 0)]
    assert seeds([4, 7]) == [("SimCLR", 4), ("SimCLR", 7), ("BYOL", 4), ("BYOL", 7)]


def test_a_run_that_the_file_has_is_not_repeated(run, tmp_path, monkeypatch):
    lines = run.Table(tmp_path / "lines.jsonl")
    job = {"kind": "row", "row": "SimCLR", "set": "scattered", "seed": 0, "device": "cuda"}
    lines.add({**job, "knn": 0.5})
    monkeypatch.setattr(run, "ProcessPoolExecutor", None)  # it would be called for a job that is missing
    run.finish([{**job, "device": "cpu"}], run.Table(tmp_path / "lines.jsonl"), 1)


def test_a_failed_run_does_not_stop_the_others_and_the_script_ends_with_an_error(run, tmp_path, monkeypatch):
    def measured(job):
        if job["row"] == "MoCo":
            raise ValueError("no")
        return {"knn": 0.5}

    monkeypatch.setattr(run, "_run", measured)
    monkeypatch.setattr(run, "ProcessPoolExecutor", lambda count, *_, **__: ThreadPoolExecutor(count))
    common = {"kind": "row", "set": "scattered", "seed": 0, "device": "cpu", "epochs": 5}
    jobs = [{**common, "row": row} for row in ("MoCo", "SimCLR")]
    with pytest.raises(SystemExit, match="1 of 2 runs failed: MoCo, seed 0"):
        run.finish(jobs, run.Table(tmp_path / "lines.jsonl"), 1)
    assert [line["row"] for line in run.Table(tmp_path / "lines.jsonl").lines] == ["SimCLR"]
    run.finish(jobs[1:], run.Table(tmp_path / "lines.jsonl"), 1)


def test_the_header_of_a_config_gives_the_spread_over_its_seeds(scripts):
    digits, run = scripts("digits"), scripts("run")
    lines = run.Table(digits.LINES)
    for name in digits.NAMES:
        runs, text = lines.find(config=name), (digits.CONFIGS / f"{name}.yaml").read_text()
        assert [line["seed"] for line in runs] == list(digits.SEEDS), name
        assert digits.with_result(text, digits.result(runs)) == text, f"run {FOLDER / 'digits.py'}"


def test_a_header_gets_its_result_below_the_time_or_in_place_of_the_old_one(scripts):
    digits = scripts("digits")
    runs = [{"k-NN": [0.9, high], "linear": [0.95, 0.99]} for high in (0.97, 0.981)]
    lines = digits.result(runs)
    assert lines.replace("\n#            ", "") == (
        "#   result    k-NN 97.0 to 98.1 %, linear 99.0 % after the last epoch "
        "(seeds 0 to 1; untrained 90.0 % and 95.0 %)"
    )
    header, rest = "# A method.\n#\n#   time      a minute\n{}#\n# A note.\n", "seed_everything: 0\n"
    expected = header.format(lines + "\n") + rest
    for old in ("", "#   result    k-NN 1 %,\n#             and more\n", lines + "\n"):
        assert digits.with_result(header.format(old) + rest, lines) == expected


@pytest.mark.slow
@pytest.mark.parametrize("row", ["ReSSL", "SimSiam", "SupCon, labels", "SwAV"])
def test_a_row_trains_on_the_images_of_the_set(scripts, monkeypatch, row):
    images = torch.randint(256, (256, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    noise = TensorImages(images, torch.stack([torch.arange(256) % 10, torch.arange(256) % 5], dim=1))
    monkeypatch.setattr(FashionMNISTDataModule, "prepare_data", lambda self: None)
    monkeypatch.setattr(FashionMNISTDataModule, "load", lambda self: (noise, noise))
    job = {"row": row, "set": "fashion", "seed": 0, "part": "test", "crop": 0.4, "rate": 0.001, "epochs": 5}
    module, data = scripts("rows").build(job)
    t = trainer(max_steps=1)
    t.fit(module, data.train_dataloader())
    assert t.callback_metrics["train/loss"].isfinite()
    assert data.test_set.targets.shape == (256, 2)  # class and coarse class
