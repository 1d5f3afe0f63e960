"""The losses on a CUDA device against the same on the CPU, whose numbers the other tests check.

pytest tests/losses                                            # with a GPU; skipped where there is none
VOXLOSS_TEST_DEVICE=cpu pytest tests/losses/test_cuda.py       # the tests themselves, without one
"""

import copy
import math
import os
from functools import partial

import pytest
import torch
from loss_twin import PER_LESION, one_hot
from test_contract import KINDS, LOSSES, OPTIONS, SHAPES, changes, outcome, problem

import voxloss
from voxloss import Compound, DeepSupervision, LabelMaps, get_loss

DEVICE = os.environ.get("VOXLOSS_TEST_DEVICE", "cuda")
ON_GPU = DEVICE == "cuda"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="needs a GPU with CUDA"),
]
needs_gpu = pytest.mark.skipif(not ON_GPU, reason="of CUDA alone")
# Of the others the maps, the order or the bins of the voxels depend on values that the CPU must know, or sums are added
# up in any order.
ONE_PASS = [
    name
    for name in LOSSES
    if name not in PER_LESION
    and name not in ("boundary", "hausdorff", "topk", "dice_topk", "lovasz", "cl_dice", "skeleton_recall", "ml1_ace")
]


def there(tensor):
    return None if tensor is None else tensor.to(DEVICE)


def agree(loss, logits, labels, weight=None, *, exact=None, rtol=1e-9, atol=1e-11, **given):
    """The loss on the device equals that on the CPU, value and gradient; `exact` are the logits of the CPU."""
    expected = outcome(lambda x: loss(x, labels, weight, **given), logits if exact is None else exact)
    on_device = {name: there(value) for name, value in given.items()}
    found = outcome(lambda x: loss(x, there(labels), there(weight), **on_device), there(logits))
    assert found[1].dtype == logits.dtype and found[1].device.type == DEVICE
    torch.testing.assert_close(found[0].cpu().double(), expected[0].double(), rtol=rtol, atol=atol)
    largest = expected[1].abs().max().item() if expected[1].numel() else 0  # what small parts are rounded beside
    torch.testing.assert_close(found[1].cpu().double(), expected[1].double(), rtol=rtol, atol=atol + rtol * largest)


@pytest.mark.parametrize("name", LOSSES)
def test_options(name):
    for options in [{}, *(options for options in OPTIONS if changes(name, options))]:
        for turn, kind in enumerate(KINDS):
            for activation in ("softmax", "sigmoid"):
                ignoring = weighted = (turn + (activation == "sigmoid") + len(options)) % 2 == 0
                logits, labels, target = problem(SHAPES[turn], kind, seed=turn)
                generator = torch.Generator().manual_seed(9)
                keep = torch.rand(target[:, 0].shape, generator=generator) > 0.3
                weight = torch.rand(target[:, 0].shape, generator=generator) if weighted else None
                if ignoring:
                    labels = torch.where(keep if kind == "labels" else keep[:, None], labels, 255)
                loss = get_loss(name, activation=activation, ignore_index=255 if ignoring else None, **options)
                agree(loss, logits, labels, weight)


ACCURACY = {torch.float32: 2e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


@pytest.mark.parametrize("dtype", list(ACCURACY), ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_types_of_logits(name, dtype):
    for activation, kind in (("softmax", "labels"), ("sigmoid", "labels"), ("softmax", "soft"), ("sigmoid", "soft")):
        logits, labels, _ = problem((2, 3, 6, 7, 9), kind)
        given = logits.to(dtype)
        loss = get_loss(name, activation=activation)
        exact = given.float() if name in ("lovasz", "topk", "dice_topk", "ml1_ace", "hausdorff") else given.double()
        agree(loss, given, labels, exact=exact, rtol=ACCURACY[dtype], atol=1e-7)


@pytest.mark.parametrize("classes", [2, 3, 14, 105, 130])
@pytest.mark.parametrize("name", LOSSES)
def test_numbers_of_classes(name, classes):
    generator = torch.Generator().manual_seed(classes)
    for shape in ((2, classes, 13, 17), (1, classes, 5, 6, 9)):
        logits = torch.randn(shape, generator=generator)
        labels = torch.randint(0, classes, (shape[0], *shape[2:]), generator=generator)
        agree(get_loss(name), logits, labels, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_memory_layouts(name):
    logits, labels, _ = problem((2, 3, 4, 6, 8), "labels")
    layouts = {
        "channels last": logits.to(memory_format=torch.channels_last_3d),
        "axes swapped": logits.transpose(2, 4).contiguous().transpose(2, 4),
        "every other": logits.repeat_interleave(2, -1)[..., ::2],
        "a part": torch.nn.functional.pad(logits, (1, 2, 3, 1))[..., 3:-1, 1:-2],
        "expanded": logits[:1].expand(2, -1, -1, -1, -1),
    }
    loss = get_loss(name)
    expected = outcome(loss, logits, labels)
    for layout, given in layouts.items():
        given = there(given) if layout != "expanded" else there(logits[:1]).expand(2, -1, -1, -1, -1)
        leaf = given.detach().requires_grad_()
        value = loss(leaf, there(labels.transpose(1, 3).contiguous().transpose(1, 3)))
        gradient = torch.autograd.grad(value, leaf)[0].cpu()
        if layout != "expanded":
            torch.testing.assert_close((value.detach().cpu(), gradient), expected, rtol=1e-9, atol=1e-11)
    pixels, flat = logits[:, :, 0], labels[:, 0]
    agree(loss, pixels.to(memory_format=torch.channels_last), flat)


INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32, torch.float32, torch.float16]


@pytest.mark.parametrize("name", LOSSES)
def test_types_of_labels(name):
    logits, labels, _ = problem((2, 3, 5, 8), "labels")
    loss = get_loss(name)
    expected = loss(there(logits), there(labels))
    for dtype in INTEGERS:
        for shaped in (labels, labels[:, None]):
            value = loss(there(logits), there(shaped.to(dtype)))
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=0, msg=lambda text, d=dtype: f"{d}: {text}")
    two, both = logits[:, :2], labels.clamp_max(1)
    torch.testing.assert_close(loss(there(two), there(both.bool())), loss(there(two), there(both)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_unchecked_labels_out_of_range_count_as_ignored(name, dtype):
    logits, labels, _ = problem((2, 3, 8, 9), "labels")
    bad = torch.rand(labels.shape, generator=torch.Generator().manual_seed(3)) < 0.2
    values = torch.tensor([3, 17, 200, 255] if dtype == torch.uint8 else [-1, -(2**15), 3, 2**15 - 1])
    places = torch.randint(0, 4, labels.shape, generator=torch.Generator().manual_seed(4))
    wrong = torch.where(bad, values[places], labels).to(dtype)
    found = outcome(get_loss(name, validate=False), there(logits), there(wrong))
    ignored = torch.where(bad, -100, labels)
    expected = outcome(get_loss(name, ignore_index=-100), logits, ignored)
    torch.testing.assert_close(tuple(part.cpu() for part in found), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_under_a_scaler(name):
    """A float16 network under autocast, of which the loss is scaled by 2^12: no gradient is 0 that should not be."""
    logits, labels, _ = problem((1, 3, 12, 16, 20), "labels")
    given = (logits / 2).half()
    exact = (given.float() if name in ("lovasz", "topk", "dice_topk", "ml1_ace") else given.double(),)

    def scaled(x, y):
        with torch.autocast(x.device.type, torch.float16 if ON_GPU else torch.bfloat16):
            return 2.0**12 * get_loss(name)(x, y)

    value, gradient = outcome(scaled, there(given), there(labels))
    expected, slope = outcome(lambda x: 2.0**12 * get_loss(name)(x, labels), *exact)
    torch.testing.assert_close(value.cpu().double(), expected.double(), rtol=1e-4, atol=1e-4)
    largest = slope.abs().max().item()
    torch.testing.assert_close(gradient.cpu().double(), slope.double(), rtol=2e-3, atol=1e-4 * largest)


@needs_gpu
def test_a_training_step_with_a_scaler():
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 3, 3, padding=1).to(DEVICE, memory_format=torch.channels_last_3d)
    images = torch.randn(2, 1, 12, 16, 16, device=DEVICE).to(memory_format=torch.channels_last_3d)
    labels = torch.randint(0, 3, (2, 1, 12, 16, 16), device=DEVICE, dtype=torch.uint8)
    for name in LOSSES:
        own, loss = copy.deepcopy(network), get_loss(name)
        optimizer = torch.optim.SGD(own.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10)
        values = []
        for _ in range(6):
            with torch.autocast("cuda", torch.float16):
                value = loss(own(images), labels)
            optimizer.zero_grad()
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()
            values.append(value.item())
        assert all(math.isfinite(value) for value in values), name
        assert scaler.get_scale() == 2.0**10, name
        if name != "hausdorff":  # whose weights, distances to the prediction's border, grow when that moves
            assert values[-1] < values[0], (name, values)


MORE = {
    "mask": ("mixed_focal", {}, ("mask",)),
    "sample weight": ("mixed_focal", {"pool": "batch"}, ("sample_weight",)),
    "value of each sample": ("dice_cross_entropy", {"reduction": "none"}, ()),
    "value of each class": ("mixed_focal", {"class_reduction": "none"}, ()),
    "class weights": ("dice_cross_entropy", {"class_weight": [0.2, 1.0, 3.0]}, ("voxel_weight",)),
    "volumes": ("dice", {"class_weight": "inverse_volume"}, ()),
    "exponents by class": ("focal", {"gamma": [0.5, 1.0, 3.0], "alpha": [0.2, 0.5, 1.0]}, ("voxel_weight",)),
    "recall with weights": ("skeleton_recall", {}, ("voxel_weight", "mask")),
    "lesions with weights": ("cc_dice_ce", {}, ("voxel_weight", "mask")),
    "distances with weights": ("boundary", {}, ("voxel_weight", "mask")),
}


@pytest.mark.parametrize("case", MORE)
def test_what_a_call_takes(case):
    name, options, given = MORE[case]
    logits, labels, _ = problem((3, 3, 6, 7), "labels")
    generator = torch.Generator().manual_seed(2)
    every = {
        "mask": torch.rand(labels.shape, generator=generator) < 0.7,
        "sample_weight": torch.rand(3, generator=generator),
        "voxel_weight": torch.rand(labels.shape, generator=generator),
    }
    given = {key: every[key] for key in given}
    loss = get_loss(name, **options)
    agree(lambda x, y, w, **more: (loss(x, y, w, **more) * 1.5).sum(), logits, labels, given.pop("voxel_weight", None),
          **given)  # fmt: skip


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", LOSSES)
def test_probabilities_and_channels_apart(name, activation):
    logits, labels, target = problem((2, 3, 5, 6), "multi-hot")
    p = logits.softmax(1) if activation == "softmax" else logits.sigmoid()
    agree(get_loss(name, activation=activation, inputs="probabilities"), p, labels, rtol=1e-8)
    if activation == "sigmoid" and name not in ("topk", "dice_topk"):
        holes = torch.where(torch.rand(target.shape, generator=torch.Generator().manual_seed(5)) < 0.2, 9, target)
        try:
            loss = get_loss(name, activation=activation, ignore_index=9, ignore_scope="channel")
        except ValueError:  # which some losses cannot be
            return
        agree(loss, logits, holes)


def test_compound_and_deep_supervision():
    logits, labels, _ = problem((2, 3, 8, 8, 8), "labels")
    several = Compound(["mixed_focal", "boundary", "cc_dice_ce", "topk", "skeleton_recall"], [1, 0.01, 0.5, 0.2, 0.3])
    agree(several, logits, labels)
    deep = DeepSupervision(get_loss("mixed_focal"))
    outputs = [logits, logits[..., ::2, ::2, ::2]]
    expected = outcome(lambda x: deep([x, outputs[1]], labels), logits)
    found = outcome(lambda x: deep([x, there(outputs[1])], there(labels)), there(logits))
    torch.testing.assert_close(tuple(part.cpu() for part in found), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_maps(activation):
    generator = torch.Generator().manual_seed(0)
    for shape in ((2, 40, 50), (2, 12, 20, 24)):
        field = torch.nn.functional.avg_pool2d(torch.rand(shape, generator=generator).flatten(0, -3), 5, 1, 2)
        labels = ((field.view(shape) - 0.5) * 20).clamp(0, 2).long()
        for maps in (
            partial(voxloss.lesion_regions, classes=3, activation=activation),
            partial(voxloss.distance_maps, classes=3, activation=activation),
            partial(voxloss.distance_maps, classes=3, activation=activation, spacing=(0.7, 2.5, 1.1)[: len(shape) - 1]),
            partial(voxloss.skeleton_tubes, classes=3, activation=activation),
        ):
            found = maps(there(labels))
            assert found.device.type == DEVICE
            torch.testing.assert_close(found.cpu(), maps(labels), rtol=1e-6, atol=1e-6)
        loss = Compound([get_loss(n, activation=activation) for n in ("cc_dice_ce", "boundary", "skeleton_recall")])
        logits = torch.randn(2, 3, *shape[1:], generator=generator)
        given = LabelMaps.of(loss, classes=3)(there(labels))
        value = loss(there(logits), there(labels), **given)
        torch.testing.assert_close(value.cpu(), loss(logits, labels), rtol=1e-4, atol=1e-6)


@needs_gpu
@pytest.mark.parametrize("name", LOSSES)
def test_labels_are_checked_at_once_at_first_and_then_later(name):
    logits, labels, _ = problem((2, 3, 5, 6), "labels")
    logits, labels = there(logits), there(labels)
    wrong = labels.clone()
    wrong[0, 0, 0] = 7
    with pytest.raises(ValueError, match="label 7 is outside the allowed range 0 to 2"):
        get_loss(name)(logits, wrong)
    loss = get_loss(name)
    for _ in range(4):
        loss(logits, labels)
    torch.cuda.synchronize()
    loss(logits, wrong)  # not yet
    torch.cuda.synchronize()
    with pytest.raises(ValueError, match=r"label 7 is outside.*in an earlier step"):
        loss(logits, labels)
    loss(logits, labels)
    with pytest.raises(ValueError, match="label 7"):
        get_loss(name, validate=True)(logits, wrong)


@needs_gpu
@pytest.mark.parametrize("name", LOSSES)
def test_compiles_whole(name):
    torch.compiler.reset()
    logits, labels, _ = problem((2, 3, 6, 8), "labels")
    logits, labels = there(logits.float()), there(labels)
    loss = get_loss(name, validate=False)
    compiled = torch.compile(loss, fullgraph=True)
    expected = outcome(lambda x: loss(x, labels), logits)
    for _ in range(2):
        torch.testing.assert_close(outcome(lambda x: compiled(x, labels), logits), expected, rtol=1e-4, atol=1e-6)


@needs_gpu
@pytest.mark.parametrize("validate", [None, False])
@pytest.mark.parametrize("name", ONE_PASS)
def test_is_captured_in_a_cuda_graph(name, validate):
    """Forward and backward, replayed for other logits and labels; checks of labels do not get in the way."""
    loss = get_loss(name, validate=validate)
    logits, labels, _ = problem((2, 3, 6, 8), "labels")
    given, target = there(logits), there(labels)
    leaf = given.clone().requires_grad_()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(5):
            leaf.grad = None
            loss(leaf, target).backward()
    torch.cuda.current_stream().wait_stream(stream)
    leaf.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = loss(leaf, target)
        value.backward()
    for seed in (3, 4):
        others, other_labels, _ = problem((2, 3, 6, 8), "labels", seed=seed)
        leaf.data.copy_(others)
        target.copy_(other_labels)
        graph.replay()
        expected = outcome(loss, others, other_labels)
        torch.testing.assert_close((value.detach().cpu(), leaf.grad.cpu()), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", LOSSES)
def test_results_are_repeatable(name):
    logits, labels, _ = problem((2, 3, 30, 31, 20), "labels")
    logits, labels = there(logits.float()), there(labels)
    loss = get_loss(name)
    first, *others = (outcome(loss, logits, labels) for _ in range(4))
    for value, gradient in others:
        if name in ONE_PASS:
            assert torch.equal(value, first[0]) and torch.equal(gradient, first[1])
        torch.testing.assert_close((value, gradient), first, rtol=1e-6, atol=1e-9)


@needs_gpu
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "cl_dice"])  # torch's pooling is not in 3D
def test_runs_with_deterministic_algorithms(name, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    logits, labels, _ = problem((2, 3, 12, 13, 20), "labels")
    logits, labels = there(logits.float()), there(labels)
    loss = get_loss(name)
    torch.use_deterministic_algorithms(True)
    try:
        first, *others = (outcome(loss, logits, labels) for _ in range(4))
    finally:
        torch.use_deterministic_algorithms(False)
    for value, gradient in others:
        assert torch.equal(value, first[0]) and torch.equal(gradient, first[1])


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_and_much(name):
    """No voxel, no sample, and more samples than a launch has blocks for."""
    loss = get_loss(name)
    for shape in ((2, 3, 0, 4), (0, 3, 4, 4)):
        leaf = torch.zeros(shape, device=DEVICE, requires_grad=True)
        loss(leaf, torch.zeros(shape[0], *shape[2:], dtype=torch.long, device=DEVICE)).backward()
        assert leaf.grad.shape == shape
    if name in ONE_PASS:
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(66_000, 2, 3, generator=generator)
        agree(loss, logits, torch.randint(0, 2, (66_000, 3), generator=generator), rtol=1e-4, atol=1e-7)


def test_gradient_of_a_gradient():
    logits, labels, _ = problem((2, 3, 4), "labels")

    def penalty(x, y):
        value = get_loss("mixed_focal")(x, y)
        return torch.autograd.grad(value, x, create_graph=True)[0].square().sum()

    expected = outcome(penalty, logits, labels)
    found = outcome(penalty, there(logits), there(labels))
    torch.testing.assert_close(tuple(part.cpu() for part in found), expected, rtol=1e-8, atol=1e-11)


@needs_gpu
def test_more_than_two_to_the_31_logits():
    """105 classes of 280³ voxels, 2.3e9 logits, all 0: p is 1/105 everywhere, also beyond the places of 32 bits."""
    free, _ = torch.cuda.mem_get_info()
    if free < 16e9:
        pytest.skip("needs 16 GB of the device's memory")
    logits = torch.zeros(1, 105, 280, 280, 280, dtype=torch.bfloat16, device=DEVICE, requires_grad=True)
    labels = torch.full((1, 280, 280, 280), 104, dtype=torch.uint8, device=DEVICE)
    value = get_loss("cross_entropy")(logits, labels)
    value.backward()
    assert value.item() == pytest.approx(math.log(105), rel=1e-5)
    voxels = 280**3
    for place, expected in ((logits.grad[0, 104], 1 / 105 - 1), (logits.grad[0, 103], 1 / 105)):
        assert place.float().min().item() == pytest.approx(expected / voxels, rel=1e-2)
        assert place.float().max().item() == pytest.approx(expected / voxels, rel=1e-2)


def test_memory_of_one_pass():
    if not ON_GPU:
        pytest.skip("of CUDA alone")
    labels = torch.randint(0, 3, (1, 64, 96, 96), device=DEVICE)
    logits = torch.randn(1, 3, 64, 96, 96, device=DEVICE)
    size = logits.numel() * logits.element_size()
    for name in ONE_PASS:
        loss = get_loss(name, validate=False)
        leaf = logits.clone().requires_grad_()
        loss(leaf, labels).backward()
        leaf.grad = None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss(leaf, labels).backward()
        assert torch.cuda.max_memory_allocated() - before < 1.2 * size, name


def test_one_channel():
    logits = torch.randn(2, 1, 9, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = (torch.rand(2, 1, 9, 10, generator=torch.Generator().manual_seed(1)) > 0.6).double()
    for name in LOSSES:
        for given in (mask, mask.bool(), mask[:, 0].to(torch.uint8), one_hot(mask[:, 0], 2)[:, 1:]):
            agree(get_loss(name, activation="sigmoid"), logits, given)
