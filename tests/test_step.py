"""The parts of a training step: batches, views, embeddings and the loss."""

import warnings
from dataclasses import replace

import pytest
import torch
from conformance.cases import trainer
from lightning.pytorch import seed_everything
from modules import Net, build, fit, pixels
from torch import nn
from torch.utils.data import DataLoader

from ssl_modules import SimCLR
from ssl_modules.augmentations import ReadyViews
from ssl_modules.encoders.views import encode, over_views
from ssl_modules.extractions import AllViews
from ssl_modules.objective import objective
from ssl_modules.similarities import Dot


class PatchNet(Net):
    """Returns one vector per patch."""

    def forward(self, x):
        return super().forward(x).mean((2, 3))


class ClipNet(nn.Module):
    """Returns maps [B, C, T, H, W] of clips."""

    out_channels = (4, 6)
    spatial_dims = 3

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv3d(3, 4, 3), nn.Conv3d(4, 6, 3)

    def forward(self, x):
        x = self.first(x)
        return x, self.second(x.relu())


@pytest.mark.parametrize(
    "batch",
    [
        pixels(),
        pixels() / 255,
        (pixels(), torch.arange(8)),
        ([torch.rand(8, 3, 8, 8), torch.rand(8, 3, 8, 8)], torch.arange(8), list("abcdefgh")),
        ([torch.rand(8, 3, 8, 8), torch.rand(8, 3, 8, 8)],),
        (pixels(), torch.rand(8, 1, 8, 8)),
        {"image": pixels(), "label": torch.arange(8), "path": list("abcdefgh")},
        {"views": [torch.rand(8, 3, 8, 8), torch.rand(8, 3, 8, 8)]},
    ],
)
def test_batches_of_any_loader_train(batch):
    seed_everything(0)
    module = build()
    before = module.encoder.backbone.model.layers[0].weight.clone()
    t = trainer(max_steps=1)
    t.fit(module, DataLoader([batch], batch_size=None))
    assert t.callback_metrics["train/loss"].isfinite()
    assert not torch.equal(module.encoder.backbone.model.layers[0].weight, before)


def test_without_a_trainer_the_step_is_the_aspects_one_after_another():
    module = build(extraction=AllViews(out_dim=5)).eval()
    views = [torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*self.log")
        out = module.training_step((views, torch.arange(4)), 0)
    z = nn.functional.normalize(torch.cat([module.extraction.heads(module.encoder(v)) for v in views]), dim=1)
    logits = (z @ z.T / 0.1).fill_diagonal_(-torch.inf)
    expected = nn.functional.cross_entropy(logits, torch.arange(8).roll(4))
    torch.testing.assert_close(out["loss"], expected)
    torch.testing.assert_close(out["features"], module(views[0]))
    assert not out["features"].requires_grad


def test_the_pieces_of_a_step_may_be_overridden():
    class Own(SimCLR):
        def views(self, batch, generator):
            return [view.flip(3) for view in super().views(batch, generator)]

        def embed(self, views):
            embedded = super().embed(views)
            return embedded._replace(student=[2 * z for z in embedded.student])

        def contrasts(self, batch, embedded, generator):
            return [replace(c, weight=3.0) for c in super().contrasts(batch, embedded, generator)]

        def objective(self, contrasts):
            return super().objective(contrasts) + 1

    seed_everything(0)
    module = build().eval()
    own = Own(**module.arguments).eval()
    own.load_state_dict(module.state_dict())
    own.similarity, module.similarity = Dot(), Dot()
    views = [torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)]
    z = [2 * module.extraction.heads(module.encoder(view.flip(3))) for view in views]
    [contrast] = module.extraction(z, None, torch.arange(4)[:, None], None)
    expected = 3 * objective([contrast], Dot(), module.loss) + 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*self.log")
        torch.testing.assert_close(own.training_step((views, None), 0)["loss"], expected)


def test_a_loss_of_ones_own_is_added_and_reaches_the_encoder():
    seen = []

    class Own(SimCLR):
        def extra_loss(self, batch, features, embeddings):
            seen.append((batch.targets, features.shape, [z.shape for z in embeddings]))
            return features.square().mean()

    module = Own(**build().arguments).eval()
    views, targets = [torch.rand(4, 3, 8, 8)] * 2, torch.arange(4)
    t = trainer(max_steps=1)
    t.fit(module, DataLoader([(views, targets)], batch_size=None))
    [(given, features, embeddings)] = seen
    assert torch.equal(given, targets)
    assert (features, embeddings) == ((4, 8), [(4, 128)] * 2)
    extra = t.callback_metrics["train/extra_loss"]
    assert extra > 0
    assert "train/extra_loss" not in fit(build(), max_steps=1).callback_metrics

    class Only(Own):
        def objective(self, contrasts):
            return 0 * super().objective(contrasts)

    module = Only(**build().arguments)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*self.log")
        out = module.training_step((views, targets), 0)
    out["loss"].backward()
    torch.testing.assert_close(out["loss"].detach(), out["features"].square().mean())
    assert module.encoder.backbone.model.layers[0].weight.grad.any()
    assert not any(p.grad.any() for p in module.extraction.parameters())


def test_views_of_several_sizes_are_encoded_each_as_if_alone():
    module = build().eval()
    views = [torch.rand(4, 3, 8, 8), torch.rand(4, 3, 6, 6), torch.rand(4, 3, 8, 8)]
    for view, maps in zip(views, over_views(module.encoder, views, "joint"), strict=True):
        torch.testing.assert_close(maps, module.encoder(view))


def test_views_of_bytes_and_of_floats_do_not_mix():
    module = build().eval()
    x = pixels(4)
    as_bytes, as_floats = over_views(module.encoder, [x, x / 255], "joint")
    torch.testing.assert_close(as_bytes, as_floats)


def test_patch_views_become_maps_of_the_grid():
    module = build(PatchNet()).eval()
    view = torch.rand(2, 3, 4, 3, 6, 6)  # [N, rows, cols, ch, h, w]
    (m,) = encode(module.encoder, view)
    assert m.shape == (2, 8, 3, 4)
    for row in range(3):
        for col in range(4):
            torch.testing.assert_close(m[:, :, row, col], module.encoder(view[:, row, col])[0].flatten(1))


def test_patches_that_are_no_vectors_are_refused():
    with pytest.raises(ValueError, match=r"encoder: gives a map of \[6, 6\] per patch where one vector is needed"):
        encode(build().encoder, torch.rand(2, 3, 4, 3, 6, 6))


def test_clips_go_through_all_views():
    module = build(ClipNet()).eval()
    clips = [torch.rand(4, 3, 6, 8, 8), torch.rand(4, 3, 6, 8, 8)]  # [N, ch, T, H, W]
    maps = encode(module.encoder, clips[0], spatial_dims=3)
    assert [tuple(m.shape) for m in maps] == [(4, 4, 4, 6, 6), (4, 6, 2, 4, 4)]
    torch.testing.assert_close(module(clips[0]), module.encoder(clips[0])[1].mean((2, 3, 4)))
    trainer(max_steps=1).fit(module, DataLoader([(clips, torch.arange(4))], batch_size=None))


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ([8, 8, 8], r"expected 2 per image, .* got 3; .*augmentation=ReadyViews\(\[8, 8, 8\]\)"),
        ([8, 6], r"expected view 1 to have 8 x 8 pixels, .* got 6 x 6"),
    ],
)
def test_views_that_the_module_was_not_built_for_are_refused(views, message):
    batch = [torch.rand(4, 3, side, side) for side in views]
    with pytest.raises(ValueError, match=message):
        build().training_step((batch, torch.arange(4)), 0)
    build(augmentation=ReadyViews(views)).training_step((batch, torch.arange(4)), 0)  # as the message suggests


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (
            pixels(1),
            ValueError,
            "batch: 1 image has no negatives; use a batch size of at least 2 and drop_last",
        ),
        (torch.rand(4, 8, 8), TypeError, r"batch: expected images \[N, ch, height, width\]"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.int64), TypeError, "images: expected uint8, or float in .*torch.int64"),
        (pixels() * 1.0, ValueError, r"images: float images have to lie in \[0, 1\]"),
        ([torch.rand(4, 3, 8, 8)], ValueError, None),
    ],
)
def test_batches_that_can_not_be_are_refused(batch, error, message):
    module = build(in_channels=3)
    if message is None:  # one ready-made view
        batch, message = ([batch[0]],), r"views: expected 2 per image, .* got 1; give the images without the list"
    with pytest.raises(error, match=message):
        module.training_step(batch, 0)
