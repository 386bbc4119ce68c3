import sys
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from strangers import (
    IMAGES,
    NAMESPACES,
    TARGETS,
    data_module,
    embed,
    own,
    pl,
    stranger,
    train_loader,
    trainer,
)
from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader, TensorDataset

from ssl_modules.callbacks import EmbeddingPlot, NeighbourGrid, OnlineKNNProbe, ViewGrid
from ssl_modules.callbacks.pictures import _rendered, names_of_classes, to_pixels
from ssl_modules.evaluation.batches import samples

NAMES = [f"digit {n}" for n in range(10)]


def flips(images, generator):
    return [images.flip(3), images.flip(2)]


def in_order():
    return DataLoader(TensorDataset(IMAGES, TARGETS), batch_size=256)


def all_of_them(**options):
    grids = [EmbeddingPlot, NeighbourGrid]
    return [*(grid(**own(), features="encoder", **options) for grid in grids), ViewGrid(augmentation=flips, **options)]


# ---------------------------------------------------------------------------------------------- what pictures show


class Drawn:
    """Keeps the figures instead of publishing them."""

    def __init__(self, monkeypatch):
        self.figures = []
        for module in ("drawing", "views"):
            publish = f"ssl_modules.callbacks.{module}.publish"
            monkeypatch.setattr(publish, lambda figure, *_: self.figures.append(figure))

    @property
    def last(self):
        return self.figures[-1]


@pytest.fixture
def drawn(monkeypatch):
    return Drawn(monkeypatch)


def cells(figure):
    """Return each image of a grid with its title and colour, row by row."""
    [axis] = figure.axes
    titles = [(text.get_text(), text.get_color()) for text in axis.texts]
    return [(np.asarray(image.get_array()), *title) for image, title in zip(axis.images, titles, strict=True)]


def test_embedding_is_the_principal_components_of_each_class(tmp_path, drawn):
    module = stranger()
    plot = EmbeddingPlot(**own(), features="encoder", class_names=NAMES)
    trainer(tmp_path, [plot], max_epochs=1).fit(module, train_loader())
    expected = PCA(2).fit_transform(normalize(embed(module, IMAGES[300:500]).astype(float)))
    expected *= np.sign(expected[np.abs(expected).argmax(0), [0, 1]])
    [axis] = drawn.last.axes
    for target, points in enumerate(axis.collections):
        assert points.get_label() == f"digit {target}"
        found = {tuple(point) for point in points.get_offsets().data.round(4) + 0.0}
        assert found == {tuple(point) for point in expected[TARGETS[300:500] == target].round(4) + 0.0}
    assert len({tuple(points.get_facecolor()[0]) for points in axis.collections}) == 10
    assert "200 images" in axis.get_title()


@pytest.mark.parametrize("kind", [EmbeddingPlot, NeighbourGrid])
def test_a_picture_without_a_trainer_is_that_with_one(kind, tmp_path, drawn):
    module = stranger()
    picture = kind(**own(), features="encoder")
    trainer(tmp_path, [picture], max_epochs=1).fit(module, train_loader())
    rendered = [
        np.asarray(_rendered(figure)) for figure in (drawn.last, kind(**own(), features="encoder").draw(module))
    ]
    np.testing.assert_array_equal(*rendered)
    with pytest.raises(ValueError, match=r"expected a Trainer, got None; without one, take draw\(module\)"):
        picture.evaluate(module)


def test_views_without_a_trainer_are_those_with_one(tmp_path, drawn):
    module, grid = stranger(), ViewGrid(augmentation=flips, images=3)
    trainer(tmp_path, [grid], max_epochs=1).fit(module, in_order())
    figure = grid.draw(module, next(iter(in_order())))
    np.testing.assert_array_equal(*(np.asarray(_rendered(f)) for f in (drawn.last, figure)))


def test_embedding_of_a_choice_of_images(tmp_path, drawn):
    plot = EmbeddingPlot(**own(), size=50, projection="tsne")
    trainer(tmp_path, [plot], max_epochs=1).fit(stranger(), train_loader())
    assert sum(len(points.get_offsets()) for points in drawn.last.axes[0].collections) == 50


@pytest.mark.parametrize("projection", ["pca", "tsne"])
def test_clusters_stay_apart_in_the_plane(projection):
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(90) % 3
    features = torch.eye(8)[targets] + 0.05 * torch.randn(90, 8, generator=generator)
    with threadpool_limits(1, "openmp"):  # with several threads, t-SNE adds in random order
        points, again = (EmbeddingPlot(projection=projection).project(features) for _ in range(2))
    _, nearest = NearestNeighbors(n_neighbors=5).fit(points).kneighbors(points)
    assert (targets[nearest] == targets[:, None]).all()
    assert torch.equal(points, again)


def test_neighbours_are_the_nearest_images(tmp_path, drawn):
    module = stranger()
    grid = NeighbourGrid(**own(), features="encoder", queries=3, k=4, class_names=NAMES)
    trainer(tmp_path, [grid], max_epochs=1).fit(module, train_loader())
    found = cells(drawn.last)
    assert len(found) == 3 * 5
    features = normalize(embed(module, IMAGES).astype(float))
    search = NearestNeighbors(n_neighbors=4).fit(features[:300])
    for first in range(0, 15, 5):
        image, title, _ = found[first]
        [query] = [i for i in range(300, 500) if np.array_equal(image, IMAGES[i, 0])]
        assert title == f"{NAMES[TARGETS[query]]}\ntest image"
        distances, nearest = search.kneighbors(features[query : query + 1])
        for cell, distance, index in zip(found[first + 1 : first + 5], distances[0], nearest[0], strict=True):
            np.testing.assert_array_equal(cell[0], IMAGES[index, 0])
            assert cell[1] == f"{NAMES[TARGETS[index]]}\n{1 - distance**2 / 2:.3f}"
            assert cell[2] == ("green" if TARGETS[index] == TARGETS[query] else "red")


def test_neighbours_in_a_part_of_the_training_images(drawn, tmp_path):
    bank = samples(train_loader(), list(range(40)), size=40)[0]
    grid = NeighbourGrid(**own(), queries=2, k=3, bank_size=40)
    trainer(tmp_path, [grid], max_epochs=1).fit(stranger(), train_loader())
    found = cells(drawn.last)
    for near, _, _ in found[1:4] + found[5:8]:
        assert any(np.array_equal(near, image[0]) for image in bank)


def test_views_of_an_augmentation(tmp_path, drawn):
    trainer(tmp_path, [ViewGrid(augmentation=flips, images=4)]).fit(stranger(), in_order())
    assert len(drawn.figures) == 1
    found = cells(drawn.last)
    assert [title for _, title, _ in found] == ["image", "view 1", "view 2"] + [""] * 9
    expected = [view for image in IMAGES[:4, 0] for view in (image, image.flip(1), image.flip(0))]
    for (view, _, _), image in zip(found, expected, strict=True):
        np.testing.assert_array_equal(view, image)


def test_views_that_the_loader_makes(tmp_path, drawn):
    module = stranger()
    step = module.training_step
    module.training_step = lambda batch, batch_idx: step((batch[0][0], batch[1]), batch_idx)
    loader = DataLoader([((IMAGES[:8], 1 - IMAGES[:8]), TARGETS[:8])], batch_size=None)
    trainer(tmp_path, [ViewGrid(images=5)], max_epochs=1).fit(module, loader)
    found = cells(drawn.last)
    assert [title for _, title, _ in found] == ["view 1", "view 2"] + [""] * 8
    np.testing.assert_array_equal(found[3 * 2 + 1][0], 1 - IMAGES[3, 0])


def test_views_of_patches_form_a_grid(tmp_path, drawn):
    def cut(images, generator):
        return [images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5)]  # [N, 2, 2, 1, 4, 4]

    trainer(tmp_path, [ViewGrid(augmentation=cut, images=1)]).fit(stranger(), in_order())
    found, image = cells(drawn.last)[1][0], IMAGES[0, 0].numpy()
    assert found.shape == (9, 9)
    assert (found[4] == 1).all()
    assert (found[:, 4] == 1).all()
    np.testing.assert_array_equal(np.delete(np.delete(found, 4, 0), 4, 1), image)


def test_pixels():
    expected = (IMAGES[:5, 0] * 255).byte().float() / 255
    for images in ((IMAGES[:5] * 255).byte(), expected[:, None]):
        np.testing.assert_array_equal(to_pixels(images), expected)
        color = torch.cat([images, images.flip(3), images], dim=1)
        np.testing.assert_array_equal(to_pixels(color)[..., 1], expected.flip(2))


def test_pixels_of_normalised_images_span_each_of_them():
    pixels = to_pixels(torch.stack([IMAGES[0] * 4 - 1, IMAGES[1] * 2 - 1, torch.full((1, 8, 8), 7.0)]))
    np.testing.assert_allclose(pixels[:2], IMAGES[:2, 0] / IMAGES[:2, 0].amax((1, 2), keepdim=True), atol=1e-6)
    assert (pixels[2] == 0).all()


# ---------------------------------------------------------------------------------------- where pictures are saved


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_files_where_no_logger_takes_images(tmp_path, namespace):
    fit = trainer(tmp_path, all_of_them(), namespace)
    fit.fit(stranger(namespace), train_loader())
    epochs = [f"{name}_epoch{end}.png" for name in ("embedding", "neighbours") for end in ("0_step5", "1_step10")]
    assert {file.name for file in (tmp_path / "pictures").iterdir()} == {"views_epoch0_step0.png", *epochs}
    for file in (tmp_path / "pictures").iterdir():
        picture = matplotlib.image.imread(file)
        assert picture.std() > 0.05  # not blank
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (border == 1).all()  # nothing is cut off


class Recorder(pl.loggers.CSVLogger):
    def log_image(self, key, images, step):
        self.images = [*getattr(self, "images", []), (key, images[0], step)]


def test_loggers_that_take_images_get_them(tmp_path):
    logger, board = Recorder(tmp_path), pl.loggers.TensorBoardLogger(tmp_path)
    loggers = [logger, board, pl.loggers.CSVLogger(tmp_path)]
    trainer(tmp_path, all_of_them(), logger=loggers, max_epochs=1).fit(stranger(), train_loader())
    assert [(key, step) for key, _, step in logger.images] == [("views", 0), ("embedding", 5), ("neighbours", 5)]
    for _, picture, _ in logger.images:
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert picture.std() > 10
    assert not list(tmp_path.rglob("*.png"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    events = EventAccumulator(board.log_dir)
    events.Reload()
    assert sorted(events.Tags()["images"]) == ["embedding", "neighbours", "views"]


def test_files_beside_what_a_logger_writes(tmp_path):
    logger = pl.loggers.CSVLogger(tmp_path / "logs")
    trainer(tmp_path, all_of_them(), logger=logger, max_epochs=1).fit(stranger(), train_loader())
    assert len(list((tmp_path / "logs/lightning_logs/version_0/pictures").glob("*.png"))) == 3


def test_a_folder_of_ones_own_beside_a_logger(tmp_path):
    folder = tmp_path / "mine"
    fit = trainer(tmp_path, all_of_them(folder=str(folder)), logger=Recorder(tmp_path), max_epochs=1)
    fit.fit(stranger(), train_loader())
    assert len(list(folder.iterdir())) == 3


def test_without_matplotlib_it_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for make in (EmbeddingPlot, NeighbourGrid, ViewGrid):
        with pytest.raises(ModuleNotFoundError, match=r"pictures need matplotlib: pip install 'ssl-modules\[viz\]'"):
            make()


# ------------------------------------------------------------------------------- the pass that the callbacks share


def test_pictures_share_the_pass(tmp_path):
    def images_seen(callbacks):
        module, seen = stranger(), []
        module.encoder.register_forward_hook(lambda part, x, output: seen.append(0 if part.training else len(output)))
        trainer(tmp_path, callbacks).fit(module, train_loader())
        return sum(seen)

    data = {**own(), "features": "encoder"}
    probes = [OnlineKNNProbe(**data)]
    # Before training, each picture reads a trial batch of each part that it uses.
    assert images_seen([*probes, EmbeddingPlot(**data), NeighbourGrid(**data)]) == images_seen(probes) + 64 + 128


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EmbeddingPlot(size=1), "size: expected a number of at least 2, got 1"),
        (lambda: EmbeddingPlot(projection="lda"), "projection: expected 'pca' or 'tsne', got 'lda'"),
        (lambda: NeighbourGrid(k=0), "k: expected a number of at least 1, got 0"),
        (lambda: NeighbourGrid(queries=0), "queries: expected a number of at least 1, got 0"),
        (lambda: ViewGrid(images=0), "images: expected a number of at least 1, got 0"),
        (lambda: to_pixels(IMAGES[0]), r"images: expected \[N, C, H, W\], to be shown, got \[1, 8, 8\]"),
        (lambda: samples([IMAGES], [0]), "to show some of its samples, got a list"),
    ],
)
def test_constructor_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_module_without_an_augmentation_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"augmentation: .* Stranger has no augmentation; give a function"):
        trainer(tmp_path, [ViewGrid()]).fit(stranger(), train_loader())


def test_class_names_of_the_datamodule(tmp_path, drawn):
    data = data_module()
    data.class_names = NAMES
    trainer(tmp_path, [EmbeddingPlot()], max_epochs=1).fit(stranger(), datamodule=data)
    assert [points.get_label() for points in drawn.last.axes[0].collections] == NAMES


def test_class_names_of_a_level():
    data = SimpleNamespace(class_names=("0", "1", "2"), levels={"digit": ("0", "1", "2"), "half": ("low", "high")})
    labels = torch.tensor([1, 0, 1])
    assert names_of_classes(labels, data, level=1) == {0: "low", 1: "high"}
    assert names_of_classes(labels, data, level=0) == {0: "0", 1: "1"}
    assert names_of_classes(2 * labels, data, level=1) == {0: "0", 2: "2"}  # a label has no name


def test_class_names_may_be_a_dict_of_labels_of_any_size():
    names = {7: "seven", 10**12: "large"}
    assert names_of_classes(torch.tensor([10**12, 7, 7]), given=names) == names
    with pytest.raises(ValueError, match=r"class_names: .* a label 8"):
        names_of_classes(torch.tensor([7, 8]), given=names)


def test_clips_and_videos_show_the_middle_frame():
    videos = torch.rand(2, 3, 1, 5, 8, 8)
    shown = to_pixels(videos[:, 0, :, 2])
    assert np.array_equal(to_pixels(videos), shown)
    assert np.array_equal(to_pixels(videos[:, 0]), shown)


def test_a_grid_of_clips_and_their_views_shows_the_middle_frames(monkeypatch):
    grids = []
    monkeypatch.setattr("ssl_modules.callbacks.views.image_grid", lambda rows, *_: grids.append(rows))
    clips = torch.rand(2, 2, 1, 5, 8, 8)
    grid = ViewGrid(augmentation=lambda videos, generator: [1 - videos[:, 1], videos[:, 0]])
    grid.draw(torch.nn.Identity(), (clips, torch.zeros(2), torch.arange(2), torch.zeros(2, 2)))
    for row, video in zip(grids[0], clips, strict=True):
        middle = [to_pixels(frame[None])[0] for frame in (video[0, :, 2], 1 - video[1, :, 2], video[0, :, 2])]
        assert all(np.array_equal(image, expected) for image, expected in zip(row, middle, strict=True))
