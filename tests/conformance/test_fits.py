"""Aspects that fit each other train a step; otherwise, building the module raises an error."""

from functools import partial

import pytest
import torch
from conformance.cases import ENCODER, images, one_batch, trainer

import ssl_modules
import ssl_modules.methods
from ssl_modules.extractions import AllViews, LocalMaps, PatchContext, Predictor, Prototypes, Queue
from ssl_modules.losses import InfoNCE

METHODS = ssl_modules.methods.__all__
EXTRACTIONS = {
    "AllViews": partial(AllViews, out_dim=16),
    "LocalMaps": LocalMaps,
    "PatchContext": partial(PatchContext, out_dim=8),
    "Queue": partial(Queue, out_dim=16, size=64),
    "Predictor": partial(Predictor, 32, 16, 32),
    "Prototypes": partial(Prototypes, 32, 16, prototypes=20),
}
ONE_VIEW = r"views: expected at least 2 per image, got 1; .* such as \"simclr\""
NO_PATCHES = (
    r"distances: in a grid of \d x \d patches none lies 6 .* an augmentation that cuts more patches, .* \"cpc\""
)
NO_REFERENCE = r"reference_scores: .* such as .*Queue\(reference=True\)"


def refusal(method, extraction):
    """Return the error expected of a pair that doesn't fit, or None if it fits."""
    if method == "CPC":
        return None if extraction == "PatchContext" else ONE_VIEW
    if extraction == "PatchContext":
        return NO_PATCHES
    reads_reference = method in ("SCE", "ReSSL", "SwAV")
    return NO_REFERENCE if reads_reference and extraction != "Prototypes" else None


def build(method, **given):
    own_encoder = {} if method == "AMDIM" else {"encoder": ENCODER}
    sgd = partial(torch.optim.SGD, lr=0.01)
    return getattr(ssl_modules, method)(**{**own_encoder, "optimizer": sgd, "base_batch_size": None, **given})


@pytest.mark.slow
@pytest.mark.parametrize("extraction", EXTRACTIONS)
@pytest.mark.parametrize("method", METHODS)
def test_every_extraction_in_every_method_trains_or_is_refused(method, extraction):
    make = partial(build, method, extraction=EXTRACTIONS[extraction]())
    if message := refusal(method, extraction):
        with pytest.raises(ValueError, match=message):
            make()
        return
    module = make()
    before = {name: p.clone() for name, p in module.named_parameters()}
    t = trainer(max_steps=1)
    t.fit(module, one_batch((images(16, 3, 32), torch.zeros(16))))
    assert t.callback_metrics["train/loss"].isfinite()
    assert any(not torch.equal(p, before[name]) for name, p in module.named_parameters() if name.startswith("encoder."))


def test_what_the_message_names_fits():
    labels = {"loss": ssl_modules.losses.SCELoss(), "extraction": Queue(size=64, reference=True)}
    assert build("SimCLR", **labels).teacher is not None
    assert build("CPC", augmentation="simclr", extraction=AllViews()).teacher is None
    assert build("SimCLR", augmentation="cpc", extraction=PatchContext()).augmentation.patches == (8, 4)
    with pytest.raises(ValueError, match=r"InfoNCE is 0 whatever .* take a loss without negatives, Alignment\(\)"):
        build("SimCLR", extraction=_WithoutNegatives())
    assert build("SimCLR", extraction=_WithoutNegatives(), loss=ssl_modules.losses.Alignment()).teacher is None


class _WithoutNegatives(AllViews):
    def forward(self, student, teacher, ids, generator):
        same = torch.eye(len(ids), dtype=torch.int8) * 2 - 1
        return [ssl_modules.Contrast(student[0], student[1], same)]


def test_a_rehearsal_leaves_no_trace():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    extraction = Queue(out_dim=16, size=64, batch_norm=True)
    module = build("SimCLR", augmentation="moco", extraction=extraction, loss=InfoNCE(0.2))
    drawn = torch.get_rng_state()
    torch.manual_seed(0)
    again = build("SimCLR", augmentation="moco", extraction=extraction, loss=InfoNCE(0.2))
    assert not torch.equal(before, drawn)  # by drawing the weights
    assert torch.equal(torch.get_rng_state(), drawn)
    assert int(module.extraction.pointer) == 0
    assert all(m.training for m in (*module.extraction.modules(), *module.teacher.modules()))
    for name, value in module.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    norms = [m for m in module.extraction.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    assert norms
    assert all(int(m.num_batches_tracked) == 0 for m in norms)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [8, 28, 32, 64, 96])  # sizes of the data modules with small images
@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_its_views_at_every_size(method, size, channels):
    encoder = "amdim" if method == "AMDIM" else ENCODER
    module = build(method, encoder=encoder, image_size=size, in_channels=channels)
    batch = ssl_modules.batch.read_batch(images(2, channels, size))
    views = module.views(batch, torch.Generator().manual_seed(0))
    assert [v.shape[-3] for v in views] == [channels] * len(module.augmentation.sizes)
    assert all(v.isfinite().all() for v in views)
    assert module(images(2, channels, size)).shape == (2, module.encoder.out_channels[-1])
