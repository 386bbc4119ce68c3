"""The policies of the methods have the operations and the values of the papers."""

import pytest
from augmentations.policy_classes import CLASSES

from ssl_modules.augmentations import (
    POLICIES,
    BYOLViews,
    ColorJitter,
    GaussianBlur,
    GroCoViews,
    JointViews,
    MoCoViews,
    PatchGrid,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomShift,
    RandomSolarize,
    ReSSLViews,
    SCEViews,
    YADIMViews,
    policy,
)
from ssl_modules.utils.configurable import build, storable, to_config

MOCO_JITTER, BYOL_JITTER = (0.4, 0.4, 0.4, 0.1, 0.8), (0.4, 0.4, 0.2, 0.1, 0.8)  # the last is the probability
FLIP, GRAY = RandomHorizontalFlip(p=0.5), RandomGrayscale(p=0.2)


def operations(augmentation):
    """Return the operations of each view as plain data, with all arguments; operations that views share come first."""
    if isinstance(augmentation, JointViews):
        shared = to_config(list(augmentation.shared))
        return [[*shared, *view] for part in augmentation.parts for view in operations(part)]
    return [to_config(list(augmentation.transforms))] * augmentation.views


def same(augmentation, *views):
    assert operations(augmentation) == to_config(views)


@pytest.mark.parametrize(
    ("size", "strength", "blur"),
    [(8, 0.5, False), (32, 0.5, False), (63, 0.5, False), (64, 1.0, True), (96, 1.0, True), (224, 1.0, True)],
)
def test_simclr_has_the_values_of_the_paper(size, strength, blur):
    crop, flip, jitter, grayscale, *last = policy("simclr", size).transforms
    assert policy("simclr", size).sizes == (size, size)
    assert (type(crop), type(flip)) == (RandomResizedCrop, RandomHorizontalFlip)
    assert (crop.size, crop.scale, crop.ratio, crop.interpolation) == (size, (0.08, 1.0), (3 / 4, 4 / 3), "bilinear")
    assert flip.p == 0.5
    assert (type(jitter), type(grayscale)) == (ColorJitter, RandomGrayscale)
    assert jitter.brightness == jitter.contrast == jitter.saturation == 0.8 * strength
    assert (jitter.hue, jitter.p) == (0.2 * strength, 0.8)
    assert grayscale.p == 0.2
    assert [type(operation) for operation in last] == [GaussianBlur] * blur
    assert all((operation.sigma, operation.p) == ((0.1, 2.0), 0.5) for operation in last)


@pytest.mark.parametrize(
    ("name", "size", "blur"),
    [
        ("moco", 32, False),
        ("moco", 63, False),
        ("moco", 64, True),
        ("moco", 96, True),
        ("moco", 224, True),
        ("rince", 32, False),
        ("rince", 96, False),
        ("rince", 224, False),
        ("simsiam", 32, False),
        ("simsiam", 224, True),
        ("supcon", 32, False),
        ("supcon", 224, False),
    ],
)
def test_moco_rince_simsiam_and_supcon_have_the_values_of_the_papers(name, size, blur):
    view = [RandomResizedCrop(size, (0.2, 1.0)), ColorJitter(*MOCO_JITTER), GRAY, *[GaussianBlur(p=0.5)] * blur, FLIP]
    same(policy(name, size), view, view)
    assert policy(name, size).sizes == (size, size)


@pytest.mark.parametrize(("size", "blur"), [(32, False), (63, False), (64, True), (224, True)])
def test_byol_has_the_values_of_the_paper(size, blur):
    common = [RandomResizedCrop(size, (0.08, 1.0)), FLIP, ColorJitter(*BYOL_JITTER), GRAY]
    first = common + [GaussianBlur(p=1.0)] * blur
    second = [*common, *[GaussianBlur(p=0.1)] * blur, RandomSolarize(threshold=0.5, p=0.2)]
    same(policy("byol", size), first, second)
    assert policy("byol", size).sizes == (size, size)


@pytest.mark.parametrize("size", [7, 32, 96, 127])
def test_sce_is_weak_and_strong_for_small_images(size):
    crop = RandomResizedCrop(size, (0.2, 1.0))
    same(policy("sce", size), [crop, FLIP], [crop, ColorJitter(*MOCO_JITTER), GRAY, GaussianBlur(13, p=0.5), FLIP])


def strong(size, scale, blur, solarize):
    crop = RandomResizedCrop(size, scale)
    return [crop, ColorJitter(*BYOL_JITTER), GRAY, GaussianBlur(13, p=blur), *[RandomSolarize(p=0.2)] * solarize, FLIP]


@pytest.mark.parametrize("size", [128, 224])
def test_sce_is_alpha_and_beta_for_large_images(size):
    alpha, beta = strong(size, (0.2, 1.0), 1.0, solarize=False), strong(size, (0.2, 1.0), 0.1, solarize=True)
    same(policy("sce", size), alpha, beta)


@pytest.mark.parametrize(
    ("size", "small_sizes"), [(224, (192, 160, 128, 96)), (64, (54, 46, 36, 28)), (17, (14, 12, 10, 8))]
)
def test_the_multicrop_of_sce_shows_less_where_it_is_smaller(size, small_sizes):
    alpha, beta = strong(size, (0.2, 1.0), 1.0, solarize=False), strong(size, (0.2, 1.0), 0.1, solarize=True)
    scales = [(0.172, 0.86), (0.143, 0.715), (0.114, 0.571), (0.086, 0.429)]
    small = [strong(*view, 0.5, solarize=True) for view in zip(small_sizes, scales, strict=True)]
    same(policy("sce-multicrop", size), alpha, beta, *small)
    assert policy("sce-multicrop", size).sizes == (size, size, *small_sizes)


@pytest.mark.parametrize(
    ("size", "small", "blur"), [(8, 4, False), (32, 14, False), (64, 28, True), (96, 42, True), (224, 96, True)]
)
def test_groco_has_the_values_of_the_paper(size, small, blur):
    def view(size, scale, blurred, solarize):
        first = [RandomResizedCrop(size, scale, interpolation="bicubic"), FLIP, ColorJitter(*BYOL_JITTER), GRAY]
        return [*first, *[GaussianBlur(13, p=blurred)] * blur, *[RandomSolarize(p=0.2)] * solarize]

    odd, even = view(size, (0.14, 1.0), 1.0, solarize=False), view(size, (0.14, 1.0), 0.1, solarize=True)
    same(policy("groco", size), odd, even)
    same(GroCoViews(size, views=4, blur=blur), odd, even, odd, even)
    same(policy("groco-multicrop", size), odd, even, *[view(small, (0.05, 0.14), 0.5, solarize=False)] * 6)
    assert policy("groco-multicrop", size).sizes == (size,) * 2 + (small,) * 6


def test_groco_has_a_full_view_and_no_negative_number_of_small_ones():
    with pytest.raises(ValueError, match="views: expected a number of at least 1, got 0"):
        GroCoViews(32, views=0, small_views=2)
    with pytest.raises(ValueError, match="small_views: expected a number of at least 0, got -1"):
        GroCoViews(32, small_views=-1)


def test_s2r2_is_many_views_of_simclr():
    def view(size, scale, strength, blur=True):
        jitter = ColorJitter(*[0.8 * strength] * 3, 0.2 * strength, 0.8)
        return [RandomResizedCrop(size, scale), FLIP, jitter, GRAY, *[GaussianBlur(p=0.5)] * blur]

    for size in (8, 32, 63):
        same(policy("s2r2", size), *[view(size, (0.2, 1.0), 0.5, blur=False)] * 4)
    for size in (64, 96, 224):
        same(policy("s2r2", size), *[view(size, (0.08, 1.0), 1.0)] * 4)
    for size, small, strength, blur in ((32, 14, 0.5, False), (64, 28, 1.0, True), (224, 96, 1.0, True)):
        crops = [view(size, (0.14, 1.0), strength, blur)] * 2 + [view(small, (0.05, 0.14), strength, blur)] * 6
        same(policy("s2r2-multicrop", size), *crops)
        assert policy("s2r2-multicrop", size).sizes == (size,) * 2 + (small,) * 6


@pytest.mark.parametrize(("size", "small", "blur"), [(8, 4, False), (32, 14, False), (64, 28, True), (224, 96, True)])
def test_swav_is_two_large_and_six_small_views(size, small, blur):
    def view(size, scale):
        strength = 1.0 if blur else 0.5
        jitter = ColorJitter(*[0.8 * strength] * 3, 0.2 * strength, 0.8)
        return [RandomResizedCrop(size, scale), FLIP, jitter, GRAY, *[GaussianBlur(13, p=0.5)] * blur]

    same(policy("swav", size), *[view(size, (0.14, 1.0))] * 2, *[view(small, (0.05, 0.14))] * 6)


@pytest.mark.parametrize(("size", "blur"), [(8, False), (32, False), (64, True), (224, True)])
def test_ressl_is_a_weak_view_and_strong_ones(size, blur):
    def strong(size, scale):
        blurs = [GaussianBlur(13, p=0.5)] * blur
        return [RandomResizedCrop(size, scale), ColorJitter(*MOCO_JITTER), GRAY, *blurs, FLIP]

    large = [[RandomResizedCrop(size, (0.2, 1.0)), FLIP], strong(size, (0.2, 1.0))]
    same(policy("ressl", size), *large)
    scales = [(0.172, 0.86), (0.143, 0.715), (0.114, 0.571), (0.086, 0.429)]
    sizes = [2 * round(share * size / 14) for share in (6, 5, 4, 3)]
    small = [strong(*given) for given in zip(sizes, scales, strict=True)]
    same(policy("ressl-multicrop", size), *large, *small)


def test_small_views_of_ressl_need_a_scale_each():
    with pytest.raises(ValueError, match="small_scales: expected one for each of the 2 small_sizes, got 1"):
        ReSSLViews(32, [16, 16], [(0.1, 0.5)])


def dim_view(size, shift, hue):
    crop = RandomResizedCrop(size, (0.3, 1.0), (0.7, 1.4), "bicubic")
    first = RandomShift(shift, p=0.8, size=size) if shift else crop
    return [FLIP, first, ColorJitter(0.4, 0.4, 0.4, hue, p=0.8), RandomGrayscale(p=0.25)]


@pytest.mark.parametrize(
    ("size", "shift", "hue", "patches"),
    [
        (8, 1, 0.2, (2, 1)),
        (28, 3, 0.2, (10, 7)),
        (32, 4, 0.2, (8, 4)),
        (64, None, 0.2, (16, 8)),
        (96, None, 0.2, (24, 12)),
        (128, None, 0.1, (32, 16)),
        (224, None, 0.1, (56, 28)),
    ],
)
def test_amdim_cpc_and_yadim_are_the_authors(size, shift, hue, patches):
    view, grid = dim_view(size, shift, hue), PatchGrid(*patches)
    for name in ("amdim", "yadim"):
        augmentation = policy(name, size)
        same(augmentation, view, view)
        assert operations(augmentation)[0][:1] == to_config(list(augmentation.shared))  # only the flip
        assert (augmentation.sizes, augmentation.patches) == ((size, size), None)
    same(policy("cpc", size), [*view, grid])
    assert policy("cpc", size).sizes == (size,)
    assert policy("cpc", size).patches == patches
    same(YADIMViews(size, shift=shift, hue=hue, patches=(8, 4)), *[[*view, PatchGrid(8, 4)]] * 2)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("size", [32, 224])
def test_other_channels_leave_out_what_changes_colours(name, size):
    def without_colors(view):
        for operation in view:
            kind, arguments = operation["class_path"], operation["init_args"]
            if kind.endswith("RandomGrayscale"):
                continue
            if kind.endswith("ColorJitter"):
                yield {"class_path": kind, "init_args": arguments | {"saturation": 0.0, "hue": 0.0}}
            else:
                yield operation

    expected = [[*without_colors(view)] for view in operations(policy(name, size))]
    assert operations(policy(name, size, in_channels=13)) == expected
    assert operations(policy(name, size, in_channels=1)) == operations(policy(name, size))


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("channels", [3, 13])
def test_a_policy_is_new_each_time_and_can_be_stored(name, channels):
    assert policy(name, 32) is not policy(name, 32)
    config = storable({"augmentation": policy(name, 32, channels)})["augmentation"]
    again = build("augmentation", config)
    assert type(again) is type(policy(name, 32))
    assert operations(again) == operations(policy(name, 32, channels))
    assert storable({"augmentation": again})["augmentation"] == config


def test_the_stored_form_names_the_paper():
    config = storable({"augmentation": policy("sce", 224)})["augmentation"]
    assert config["class_path"].rpartition(".")[2] == "SCEViews"
    assert config["init_args"]["kinds"] == ["strong-alpha", "strong-beta"]


@pytest.mark.parametrize("views", CLASSES)
@pytest.mark.parametrize("mode", ["exact", "linear"])
def test_the_jitter_can_be_the_faster_one(views, mode):
    made = [operation["init_args"] for view in operations(views(16, jitter=mode)) for operation in view]
    assert {arguments["mode"] for arguments in made if "mode" in arguments} == {mode}


def test_the_smallest_crop_is_an_argument():
    assert MoCoViews(8, min_scale=0.3).transforms[0].scale == (0.3, 1.0)
    for views in (BYOLViews, GroCoViews):
        assert [part.transforms[0].scale for part in views(8, min_scale=0.3).parts] == [(0.3, 1.0)] * 2
    assert [part.transforms[0].scale for part in SCEViews(8, scale=(0.3, 0.9)).parts] == [(0.3, 0.9)] * 2
