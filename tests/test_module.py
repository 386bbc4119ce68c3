import inspect
import warnings
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conformance.cases import trainer
from lightning.pytorch import LightningDataModule, seed_everything
from modules import Net, build, loader, needs_vectors, pixels
from timm.optim import Lars
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ssl_modules import ContrastiveModule, SimCLR
from ssl_modules.augmentations import Augmentation, RandomResizedCrop, ReadyViews, SimCLRViews, Views, policy
from ssl_modules.batch import read_batch
from ssl_modules.encoders.views import encode_views
from ssl_modules.extractions import AllViews, Predictor, Queue
from ssl_modules.losses import Alignment, AveragePrecisionLoss, InfoNCE
from ssl_modules.objective import objective
from ssl_modules.optim import WarmupCosine
from ssl_modules.similarities import Cosine, Dot


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


# ---- batches and views -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "batch",
    [
        pixels(),
        pixels() / 255,
        (pixels(), torch.arange(8)),
        ([torch.rand(8, 3, 8, 8), torch.rand(8, 3, 8, 8)], torch.arange(8), list("abcdefgh")),
        ([torch.rand(8, 3, 8, 8), torch.rand(8, 3, 8, 8)],),
        (pixels(), torch.rand(8, 1, 8, 8)),
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
    for view, maps in zip(views, encode_views(module.encoder, views), strict=True):
        torch.testing.assert_close(maps, module.encoder(view))


def test_views_of_bytes_and_of_floats_do_not_mix():
    module = build().eval()
    x = pixels(4)
    as_bytes, as_floats = encode_views(module.encoder, [x, x / 255])
    torch.testing.assert_close(as_bytes, as_floats)


def test_patch_views_become_maps_of_the_grid():
    module = build(PatchNet()).eval()
    view = torch.rand(2, 3, 4, 3, 6, 6)  # [N, rows, cols, ch, h, w]
    [(m,)] = encode_views(module.encoder, [view])
    assert m.shape == (2, 8, 3, 4)
    for row in range(3):
        for col in range(4):
            torch.testing.assert_close(m[:, :, row, col], module.encoder(view[:, row, col])[0].flatten(1))


def test_patches_that_are_no_vectors_are_refused():
    with pytest.raises(ValueError, match=r"encoder: gives a map of \[6, 6\] per patch where one vector is needed"):
        encode_views(build().encoder, [torch.rand(2, 3, 4, 3, 6, 6)])


def test_clips_go_through_all_views():
    module = build(ClipNet()).eval()
    clips = [torch.rand(4, 3, 6, 8, 8), torch.rand(4, 3, 6, 8, 8)]  # [N, ch, T, H, W]
    assert [tuple(m.shape) for m in encode_views(module.encoder, clips, spatial_dims=3)[0]] == [
        (4, 4, 4, 6, 6),
        (4, 6, 2, 4, 4),
    ]
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
            "batch: 1 image is too few for batch norm; use a batch size of at least 2 and drop_last",
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
        batch, message = ([batch[0]],), r"views: expected 2 per image, .* got 1; .*ReadyViews\(\[8\]\)"
    with pytest.raises(error, match=message):
        module.training_step(batch, 0)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"augmentation": policy("simclr", 96)}, ValueError, r"makes views of \[96\] pixels, but image_size=8"),
        ({"augmentation": "simclr-96"}, ValueError, "is now 'simclr' with image_size=96"),
        ({"augmentation": Augmentation()}, TypeError, r"augmentation: Augmentation has no sizes; .* sizes = \(8, 8\)"),
        ({"augmentation": Views([RandomResizedCrop(8)], 1)}, ValueError, "views: expected at least 2 per image, got 1"),
        ({"loss": "InfoNCE"}, TypeError, "loss: expected an object of the class Loss, got 'InfoNCE'"),
        (
            {"similarity": InfoNCE()},
            TypeError,
            r"similarity: expected .* the class Similarity, got InfoNCE\(",
        ),
        (
            {"loss": InfoNCE},
            TypeError,
            r"loss: expected .*, got the class InfoNCE; give an instance, InfoNCE\(...\)",
        ),
        ({"loss": nn.CrossEntropyLoss}, TypeError, "loss: expected .* Loss, got the class CrossEntropyLoss$"),
        ({"extraction": None}, TypeError, "extraction: expected an object of the class Extraction, got None"),
        ({"schedule": 0.1}, TypeError, "schedule: expected an object of the class Schedule, got 0.1"),
        ({"optimizer": None}, TypeError, "optimizer: expected a function of parameter groups, .* got None"),
        ({"base_batch_size": 0}, ValueError, "base_batch_size: .* got 0"),
        ({"momentum": 0.9}, TypeError, "unexpected keyword argument 'momentum'"),
    ],
)
def test_constructor_errors_name_the_argument(given, error, message):
    with pytest.raises(error, match=message):
        build(**given)


class Alone(Predictor):
    """Compares each image only with itself."""

    def forward(self, student, teacher, ids, generator):
        own = 2 * torch.eye(len(ids), dtype=torch.int8) - 1
        return [replace(c, relation=own) for c in super().forward(student, teacher, ids, generator)]


def test_a_loss_that_has_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match=r"loss: AveragePrecisionLoss is 0 whatever .* as Alone gives no negatives"):
        build(extraction=Alone(16, 8, 16), loss=AveragePrecisionLoss())
    build(extraction=Alone(16, 8, 16), loss=Alignment())
    build(extraction=Predictor(16, 8, 16), loss=AveragePrecisionLoss())


def test_an_extraction_that_does_not_fit_the_maps_is_refused():
    class Wide(AllViews):
        def build(self, out_channels, sizes=(), normalised=False):
            super().build([c + 1 for c in out_channels], sizes, normalised)

    with pytest.raises(ValueError, match=r"extraction: Wide doesn't fit the maps of Net, channels \[8\] and shapes "):
        build(extraction=Wide())


def test_the_rehearsal_leaves_no_trace():
    module, other = build(extraction=Queue(out_dim=4, size=8)), Queue(out_dim=4, size=8)
    other.build((8,))
    assert all(part.training for part in module.modules())
    for (name, buffer), (_, untouched) in zip(module.extraction.named_buffers(), other.named_buffers(), strict=True):
        assert torch.equal(buffer, untouched), name
    assert not [name for name, p in module.named_parameters() if p.grad is not None]
    assert module.extraction._waiting is None


# ---- hyper-parameters ------------------------------------------------------------------------------------------------


def save(module, path):
    t = trainer(max_steps=1)
    t.fit(module, loader())
    t.save_checkpoint(path)
    return path


def test_an_aspect_that_was_replaced_is_the_one_that_a_checkpoint_holds(tmp_path):
    class Own(SimCLR):
        def __init__(self, loss=InfoNCE(), encoder="test_resnet"):
            super().__init__(SimCLRViews(8, strength=0.5, blur=False), encoder, loss=loss, image_size=8)
            self.save_hyperparameters()  # users call it, though it stores live objects

    module = Own(loss=InfoNCE(0.3))
    module.loss = InfoNCE(0.9)
    t = trainer()
    t.strategy.connect(module)
    t.save_checkpoint(tmp_path / "own.ckpt")
    assert Own.load_from_checkpoint(tmp_path / "own.ckpt", weights_only=True).loss.temperature == 0.9


def test_one_object_serves_several_modules():
    extraction = AllViews(out_dim=4)
    one, other = build(extraction=extraction), build(extraction=extraction)
    assert extraction.heads is None
    assert {id(p) for p in one.extraction.parameters()}.isdisjoint(id(p) for p in other.extraction.parameters())


def test_an_extraction_that_is_built_belongs_to_another_module():
    module = build()
    with pytest.raises(ValueError, match="extraction: this AllViews belongs to another module; give each module a new"):
        build(extraction=module.extraction)
    built = AllViews()
    built.build((8,))
    with pytest.raises(ValueError, match="extraction: this AllViews belongs to another module"):
        build(extraction=built)


def changed(module):
    """Change something of each aspect, and of the schedule."""
    module.loss.temperature = 0.9
    module.schedule.warmup = 3
    module.extraction.out_dim = 1
    module.similarity.eps = 5.0
    module.augmentation.views = 7


@pytest.mark.parametrize("own", [False, True])
def test_what_is_changed_in_one_module_changes_no_other_and_no_default(own):
    def read(holder):
        numbers = holder.loss.temperature, holder.schedule.warmup, holder.extraction.out_dim
        return (*numbers, holder.similarity.eps, holder.augmentation.views)

    given = {
        "augmentation": SimCLRViews(8, blur=False),
        "extraction": AllViews(),
        "similarity": Cosine(),
        "loss": InfoNCE(0.1),
        "schedule": WarmupCosine(0.1),
    }
    make = partial(build, **given) if own else partial(SimCLR, encoder="test_resnet")
    before, module = make(), make()
    expected = (0.1, 0.1, 128, Cosine().eps, 2)
    changed(module)
    assert read(module) == (0.9, 3, 1, 5.0, 7)
    assert read(before) == expected
    assert read(make()) == expected
    assert read(SimpleNamespace(**given)) == expected
    defaults = {name: p.default for name, p in inspect.signature(SimCLR).parameters.items()}
    assert read(SimpleNamespace(**{**defaults, "augmentation": before.augmentation})) == expected


def test_a_momentum_of_the_extraction_gives_any_method_a_teacher():
    module = build(extraction=Predictor(16, 8, 16, momentum=0.5, momentum_schedule="constant"))
    assert (module.teacher.momentum, module.teacher.schedule) == (0.5, "constant")
    assert fit(module, max_steps=1).callback_metrics["train/loss"].isfinite()
    assert build().teacher is None


def test_a_notebooks_checkpoint_loads_by_itself_with_its_own_aspects(tmp_path):
    module = build(
        "test_resnet",
        extraction=AllViews(hidden_dim=7, out_dim=5),
        similarity=Dot(),
        loss=InfoNCE(0.7, mode="in"),
        optimizer=partial(torch.optim.AdamW, lr=0.25),
    )
    path = save(module, tmp_path / "m.ckpt")
    torch.load(path, weights_only=True)
    loaded = SimCLR.load_from_checkpoint(path)
    assert (loaded.loss.temperature, loaded.loss.mode) == (0.7, "in")
    assert isinstance(loaded.similarity, Dot)
    assert loaded.optimizer.keywords == {"lr": 0.25}
    torch.testing.assert_close(loaded.state_dict(), module.state_dict(), rtol=0, atol=0)
    assert SimCLR.load_from_checkpoint(path, loss=InfoNCE(0.1)).loss.temperature == 0.1
    assert loaded.hparams == module.hparams


@pytest.mark.parametrize(
    ("name", "value"),
    [("encoder", Net()), ("optimizer", lambda groups: torch.optim.SGD(groups, lr=0.5))],
)
def test_what_a_checkpoint_can_not_hold_must_be_passed_again(name, value, tmp_path):
    module = build("test_resnet", **{name: value}) if name != "encoder" else build(value)
    path = save(module, tmp_path / "m.ckpt")
    with pytest.raises(
        ValueError, match=rf"{name}: a checkpoint can't hold this .* load_from_checkpoint\(path, {name}"
    ):
        SimCLR.load_from_checkpoint(path)
    given = {"encoder": Net()} if name == "encoder" else {"optimizer": value}
    loaded = SimCLR.load_from_checkpoint(path, **given)
    torch.testing.assert_close(loaded.state_dict(), module.state_dict(), rtol=0, atol=0)
    trainer(max_steps=2).fit(build(**{"encoder": "test_resnet", **given}), loader(), ckpt_path=path)


def test_a_later_fit_of_a_resumed_module_has_views_of_its_own(tmp_path):
    path = save(build(), tmp_path / "m.ckpt")
    module = build()
    trainer(max_steps=2).fit(module, loader(), ckpt_path=path)
    seed = module._run_seed
    assert seed == torch.load(path, weights_only=True)["ssl_modules"]["seed"]
    trainer(max_steps=1).fit(module, loader())
    assert module._run_seed != seed


# ---- optimisation ----------------------------------------------------------------------------------------------------


def fit(module, **given):
    t = trainer(**{"max_epochs": 1, **given})
    t.fit(module, loader(batch_size=4, n=32))
    return t


def test_biases_and_norms_do_not_decay():
    module = build("test_resnet", optimizer=partial(torch.optim.SGD, lr=0.1, weight_decay=0.5))
    decay, no_decay = fit(module).optimizers[0].param_groups
    assert (decay["weight_decay"], no_decay["weight_decay"]) == (0.5, 0)
    norms = [p for m in module.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d) for p in m.parameters()]
    assert {id(p) for p in norms} <= {id(p) for p in no_decay["params"]}
    assert len(decay["params"]) + len(no_decay["params"]) == len(list(module.parameters()))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_learning_rate_is_in_proportion_to_the_images_of_an_optimiser_step(accumulate):
    t = fit(build(base_batch_size=16), accumulate_grad_batches=accumulate)
    assert t.lr_scheduler_configs[0].scheduler.base_lrs == [pytest.approx(0.1 * 4 * accumulate / 16)] * 2
    assert fit(build()).lr_scheduler_configs[0].scheduler.base_lrs == [0.1, 0.1]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_schedule_steps_once_per_optimiser_step(accumulate):
    rates = []

    class Watched(SimCLR):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
            rates.append(optimizer.param_groups[0]["lr"])
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    arguments = {**build().arguments, "schedule": WarmupCosine(0.25)}
    fit(Watched(**arguments), accumulate_grad_batches=accumulate)
    steps = 8 // accumulate
    schedule = WarmupCosine(steps // 4)
    assert rates == pytest.approx([0.1 * schedule(s, steps) for s in range(steps)])


def test_a_loader_without_a_length_needs_max_steps():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(pixels())

    stream = DataLoader(Stream(), batch_size=4)
    with pytest.raises(ValueError, match="max_epochs: a schedule needs an end"):
        trainer(max_epochs=1).fit(build(), stream)
    t = trainer(max_steps=4)
    module = build()
    t.fit(module, stream)
    assert t.optimizers[0].param_groups[0]["lr"] < 0.02  # near the end of the cosine
    assert t.global_step == 4


def test_a_loader_without_a_batch_size_can_not_scale_the_learning_rate():
    with pytest.raises(ValueError, match="base_batch_size: the training loader has no batch_size"):
        trainer(max_steps=1).fit(build(base_batch_size=16), DataLoader([pixels()], batch_size=None))


def test_a_schedule_needs_an_end():
    with pytest.raises(ValueError, match="max_epochs: a schedule needs an end"):
        fit(build(), max_epochs=-1)


@pytest.mark.parametrize(
    ("arguments", "warned"), [({}, True), ({"weight_decay": 1e-6}, False), ({"always_adapt": True}, False)]
)
def test_lars_without_weight_decay_warns_that_it_adapts_nothing(arguments, warned):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(build(optimizer=partial(Lars, lr=0.1, **arguments)), max_steps=1)
    assert any("timm's Lars adapts no group" in str(w.message) for w in caught) == warned


# ---- validation, test, prediction ------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [None, 3])
def test_validation_and_test_log_loss_and_how_early_anchors_find_a_positive(block):
    module = build(anchor_block=block)
    views = [torch.rand(6, 3, 8, 8), torch.rand(6, 3, 8, 8)]
    data = DataLoader([(views, torch.arange(6))], batch_size=None)
    [validated] = trainer().validate(module, data, verbose=False)
    [tested] = trainer().test(module, data, verbose=False)
    module.eval()
    batch, generator = read_batch((views, None)), torch.Generator()
    contrasts = module.contrasts(batch, module.embed(module.views(batch, generator)), generator)
    loss = objective(contrasts, module.similarity, module.loss).item()
    scores = Cosine()(contrasts[0].anchors, contrasts[0].candidates).fill_diagonal_(-2)
    own = torch.arange(12).roll(6)
    hits = (scores.argmax(1) == own).float().mean().item()
    ahead = (scores - scores.gather(1, own[:, None])).sign().add(1).div(2)  # a tie counts half, also with itself
    reciprocal_rank = (0.5 + ahead.sum(1)).reciprocal().mean().item()  # average precision with one positive
    values = {"loss": loss, "contrast_top1": hits, "contrast_ap": reciprocal_rank}
    assert validated == pytest.approx({f"val/{name}": value for name, value in values.items()}, rel=1e-5)
    assert tested == pytest.approx({f"test/{name}": value for name, value in values.items()}, rel=1e-5)


def test_a_single_image_left_for_last_does_not_stop_validation():
    module = build()
    t = trainer()
    with_last, without = (t.validate(module, loader(n=n), verbose=False)[0] for n in (9, 8))
    assert with_last == without


def test_several_validation_loaders_have_values_of_their_own():
    [first, second] = trainer().validate(build(), [loader(), loader(batch_size=4)], verbose=False)
    assert first["val/loss/dataloader_idx_0"] != second["val/loss/dataloader_idx_1"]


def test_validation_views_are_the_same_at_every_time():
    module = build()
    data = DataLoader(TensorDataset(pixels()), batch_size=4)
    results = [trainer().validate(module, data, verbose=False) for _ in range(2)]
    assert results[0] == results[1]


def test_the_share_is_found_in_full_precision_under_autocast():
    seen = []

    class Watched(Cosine):
        def forward(self, x, y):
            scores = super().forward(x, y)
            seen.append(scores.dtype)
            return scores

    module = build(similarity=Watched())
    data = DataLoader(TensorDataset(pixels()), batch_size=8)
    trainer(precision="bf16-mixed").validate(module, data, verbose=False)
    assert set(seen) == {torch.float32}


class Indexed(LightningDataModule):
    def predict_dataloader(self):
        return DataLoader(TensorDataset(pixels(), torch.zeros(8), torch.arange(100, 108)), batch_size=4)


def test_prediction_gives_features_and_index():
    module = build()
    (features, index), (_, second) = trainer().predict(module, Indexed())
    torch.testing.assert_close(features, module.eval()(pixels()[:4]))
    assert torch.cat([index, second]).tolist() == list(range(100, 108))
    with pytest.raises(TypeError, match="batch: expected images to predict, got views"):
        module.predict_step(([torch.rand(2, 3, 8, 8)] * 2,), 0)


def test_export_refuses_another_ending(tmp_path):
    with pytest.raises(ValueError, match=r"path: expected a file ending in .safetensors or .pt, got 'encoder.onnx'"):
        build().export_encoder(tmp_path / "encoder.onnx")


def test_a_method_of_ones_own_is_one_call():
    module = ContrastiveModule(
        SimCLRViews(8), Net(), AllViews(), Dot(), InfoNCE(), image_size=8, optimizer=partial(torch.optim.SGD, lr=0.1)
    )
    assert fit(module, max_steps=1).callback_metrics["train/loss"].isfinite()


@needs_vectors
def test_a_compiled_encoder_in_half_precision_learns_as_the_plain_one_does():
    losses = []
    for given, precision in (({}, "32-true"), ({"compile": True}, "bf16-mixed")):
        seed_everything(0)
        module = build(**given)
        run = trainer(max_epochs=1, limit_train_batches=2, precision=precision)
        run.fit(module, DataLoader(TensorDataset(pixels()), batch_size=4))
        losses.append(run.callback_metrics["train/loss_epoch"].item())
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
