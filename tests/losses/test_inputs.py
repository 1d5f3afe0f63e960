"""What may be given: types, shapes, memory layouts, subclasses; and what is refused, with which words."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import voxloss
from voxloss import get_loss, lesion_regions
from voxloss.losses import functional, voxel_statistics
from voxloss.losses.voxel_pass import operator

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32]


def problem(shape=(2, 3, 4, 5, 6), seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    return torch.randn(shape, generator=generator).requires_grad_(), labels


def outcome(logits, labels, **options):
    logits.grad = None
    value = get_loss("mixed_focal", **options)(logits, labels)
    value.backward()
    return value.item(), logits.grad


@pytest.mark.parametrize("channel_axis", [False, True])
@pytest.mark.parametrize("dtype", [*INTEGERS, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_label_types(dtype, channel_axis):
    logits, labels = problem()
    expected = outcome(logits, labels)
    given = labels.to(dtype)
    value, gradient = outcome(logits, given[:, None] if channel_axis else given)
    assert value == expected[0] and torch.equal(gradient, expected[1])


def test_boolean_labels():
    logits, labels = problem((2, 2, 4, 5))
    assert outcome(logits, labels.bool())[0] == outcome(logits, labels)[0]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("channel_axis", [False, True])
def test_single_channel_takes_a_mask(dtype, channel_axis):
    logits, _ = problem((2, 1, 4, 5))
    mask = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(1)) > 0.5
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, mask.float())
    given = mask.to(dtype)
    value = functional.cross_entropy_loss(logits, given if channel_axis else given[:, 0], activation="sigmoid")
    torch.testing.assert_close(value, expected)


def test_soft_targets_of_one_hot_labels_are_the_labels():
    logits, labels = problem()
    one_hot = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)
    for target in (one_hot, one_hot.bool(), one_hot.float(), one_hot.half()):
        value, gradient = outcome(logits, target)
        expected = outcome(logits, labels)
        assert value == pytest.approx(expected[0], rel=1e-6)
        torch.testing.assert_close(gradient, expected[1], rtol=1e-4, atol=1e-8)


def layouts():
    logits, _ = problem()
    logits = logits.detach()
    return {
        "channels last": logits.to(memory_format=torch.channels_last_3d),
        "axes swapped": logits.transpose(2, 4).contiguous().transpose(2, 4),
        "batch last": logits.movedim(0, -1).contiguous().movedim(-1, 0),
        "cut out": torch.nn.functional.pad(logits, (1, 1, 2, 0))[..., 2:, 1:-1],
        "every other": logits.repeat_interleave(2, -1)[..., ::2],
    }


@pytest.mark.parametrize("layout", list(layouts()))
def test_memory_layouts(layout):
    plain, labels = problem()
    expected = outcome(plain, labels)
    given = layouts()[layout].requires_grad_()
    assert layout == "channels last" or not given.is_contiguous()
    swapped_labels = labels.transpose(1, 2).contiguous().transpose(1, 2)
    value, gradient = outcome(given, swapped_labels)
    assert value == pytest.approx(expected[0], rel=1e-6)
    torch.testing.assert_close(gradient, expected[1])


def test_channels_last_gradient_is_channels_last():
    logits, labels = problem()
    logits = logits.detach().to(memory_format=torch.channels_last_3d).requires_grad_()
    (gradient,) = torch.autograd.grad(get_loss("focal")(logits, labels), logits)
    assert gradient.stride() == logits.stride()


def test_expanded_inputs():
    row, labels = torch.randn(1, 3, 1, 5, requires_grad=True), torch.tensor([[[0, 1, 2, 1, 0]]])
    expanded = row.expand(2, 3, 4, 5)
    value = get_loss("mixed_focal")(expanded, labels.expand(2, 4, 5))
    value.backward()
    copied = row.detach().clone().requires_grad_()
    expected = get_loss("mixed_focal")(copied.expand(2, 3, 4, 5).contiguous(), labels.expand(2, 4, 5).contiguous())
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(row.grad, copied.grad)


def test_inputs_are_left_as_they_were():
    logits, labels = problem()
    soft, weight = torch.rand(2, 3, 4, 5, 6), torch.rand(2, 4, 5, 6)
    before = [tensor.detach().clone() for tensor in (logits, labels, soft, weight)]
    for activation in ("softmax", "sigmoid"):
        for target in (labels, soft):
            get_loss("mixed_focal", activation=activation, ignore_index=255)(logits, target, weight).backward()
    assert all(torch.equal(a, b) for a, b in zip(before, (logits, labels, soft, weight), strict=True))


def test_without_gradient():
    logits, labels = problem()
    loss = get_loss("mixed_focal")
    expected = loss(logits, labels)
    with torch.no_grad():
        assert torch.equal(loss(logits, labels), expected)
    detached = loss(logits.detach(), labels)
    assert not detached.requires_grad and torch.equal(detached, expected)
    with torch.inference_mode():
        assert torch.equal(loss(logits, labels), expected)


def test_gradient_reaches_what_made_the_logits():
    network = torch.nn.Conv3d(1, 3, 1)
    _, labels = problem()
    get_loss("mixed_focal")(network(torch.randn(2, 1, 4, 5, 6)), labels).backward()
    assert network.weight.grad.abs().sum() > 0


def test_empty_volume():
    logits = torch.zeros(2, 3, 0, 4, requires_grad=True)
    value = get_loss("mixed_focal")(logits, torch.zeros(2, 0, 4, dtype=torch.long))
    value.backward()
    assert value.item() == 0 and logits.grad.shape == logits.shape


def test_monai_meta_tensors():
    data = pytest.importorskip("monai.data")
    logits, labels = problem()
    expected = outcome(logits, labels)
    for as_logits in (logits.detach(), data.MetaTensor(logits.detach())):
        as_logits.requires_grad_()
        given = data.MetaTensor(labels[:, None].float())
        value = get_loss("mixed_focal")(as_logits, given, data.MetaTensor(torch.ones(2, 4, 5, 6)))
        assert type(value) is torch.Tensor
        value.backward()
        assert value.item() == pytest.approx(expected[0], rel=1e-6)
        torch.testing.assert_close(torch.as_tensor(as_logits.grad).as_subclass(torch.Tensor), expected[1])


@pytest.mark.parametrize("bad", [3, 200, -1, -(10**12)])
@pytest.mark.parametrize("ignore_index", [None, 255])
def test_label_out_of_range(bad, ignore_index):
    logits, labels = problem()
    labels[1, 2, 3, 4] = bad
    with pytest.raises(ValueError, match=rf"label {bad} is outside the allowed range 0 to 2"):
        get_loss("focal", ignore_index=ignore_index)(logits, labels)


@pytest.mark.parametrize("ignore_index", [None, 7])
@pytest.mark.parametrize(("bad", "hint"), [(255, True), (254, False)])
def test_a_mask_of_0_and_255_is_told_the_ways_out(bad, hint, ignore_index):
    logits, labels = problem()
    labels[1, 2, 3, 4] = bad
    way = ": use ignore_index=255 if 255 marks voxels to leave out, or divide a mask of 0 and 255 by 255"
    with pytest.raises(ValueError, match=f"label {bad} is outside") as caught:
        get_loss("focal", ignore_index=ignore_index)(logits, labels)
    assert str(caught.value).endswith(way) == hint
    loss = get_loss("dice", activation="sigmoid", ignore_index=ignore_index)
    with pytest.raises(ValueError, match=f"target {bad} is outside") as caught:
        loss(logits[:, :1], labels.clamp_min(2) // bad * bad)
    assert str(caught.value).endswith(way) == hint


def test_unchecked_bad_labels_count_as_ignored():
    logits, labels = problem()
    bad, ignored = labels.clone(), labels.clone()
    bad[0, 0], bad[1, 2], ignored[0, 0], ignored[1, 2] = 10**12, -7, 255, 255
    value, gradient = outcome(logits, bad, validate=False)
    expected = outcome(logits, ignored, ignore_index=255)
    assert value == expected[0] and torch.equal(gradient, expected[1])


@pytest.mark.parametrize("bad", [0.5, float("nan"), float("inf"), 1e-3])
def test_label_not_whole(bad):
    logits, labels = problem()
    labels = labels.float()
    labels[0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=f"labels must be whole numbers, received {bad:g}"):
        get_loss("focal")(logits, labels)


@pytest.mark.parametrize("bad", [-0.25, 1.5, float("nan")])
def test_soft_target_out_of_range(bad):
    logits, _ = problem((1, 2, 3, 3))
    target = torch.full((1, 2, 3, 3), 0.5)
    target[0, 1, 1, 1] = bad
    with pytest.raises(ValueError, match=f"target {bad:g} is outside the allowed range 0 to 1"):
        get_loss("dice")(logits, target)


def test_mask_of_a_single_channel_out_of_range():
    logits, _ = problem((1, 1, 3, 3))
    with pytest.raises(ValueError, match="target 2 is outside the allowed range 0 to 1"):
        get_loss("dice", activation="sigmoid")(logits, torch.full((1, 3, 3), 2))


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 3, 4, 5), (2, 2, 4, 5, 6), (1, 4, 5, 6), (4, 5, 6), (2, 1, 4, 5)])
def test_label_shape(shape):
    logits, _ = problem()
    with pytest.raises(ValueError, match=rf"\({', '.join(map(str, shape))}\) do not fit .*\(2, 3, 4, 5, 6\)"):
        get_loss("focal")(logits, torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize(
    ("logits", "labels", "options", "words"),
    [
        (torch.zeros(2, 1, 4), torch.zeros(2, 4), {}, r"softmax needs two channels.*\(2, 1, 4\)"),
        (torch.zeros(2, 3), torch.zeros(2), {}, r"\(B, C, \*spatial\), received \(2, 3\)"),
        (torch.zeros(2, 3, 4).long(), torch.zeros(2, 4), {}, "floating type, received torch.int64"),
        (torch.zeros(2, 4).long(), torch.zeros(2, 3, 4), {}, "torch.int64; logits come first, then labels$"),
        (torch.zeros(2, 3, 4).long(), torch.zeros(2, 4).long(), {}, "received torch.int64$"),
        (torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.cfloat), {}, "received torch.complex64"),
        (torch.zeros(2, 3, 4), torch.zeros(2, 4, requires_grad=True), {}, "labels requires a gradient"),
        (torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), {"ignore_index": 0}, "ignore_index=0 is also a value of soft"),
        (torch.zeros(2, 3, 4), torch.zeros(2, 4), {"voxel_weight": torch.zeros(2, 3)}, r"\(2, 3\).*\(2, 3, 4\)"),
        (torch.zeros(2, 3, 4), torch.zeros(2, 4), {"voxel_weight": -torch.ones(2, 4)}, "not negative, received -1"),
        (torch.zeros(2, 3, 4), torch.zeros(2, 4), {"focal_exponents": [(1, 2)]}, "2 focal exponents .* for 3 classes"),
        (torch.zeros(2, 3, 4), torch.zeros(2, 4), {"focal_exponents": [-1]}, "not below 0, .*received -1"),
        (torch.zeros(2, 3, 4), torch.zeros(2, 4), {"activation": "tanh"}, "received 'tanh'"),
        (torch.zeros(2, 3, 4, device="meta"), torch.zeros(2, 4), {}, "labels on cpu but logits on meta"),
    ],
)
def test_what_is_refused(logits, labels, options, words):
    with pytest.raises(ValueError, match=words):
        voxel_statistics(logits, labels, **options)


def test_weights_of_another_number_of_classes():
    logits, labels = problem()
    with pytest.raises(ValueError, match=r"alpha has 2 values .* for 3 classes"):
        get_loss("focal", alpha=[0.5, 0.5])(logits, labels)
    with pytest.raises(ValueError, match=r"2 focal exponents .* for 3 classes"):
        get_loss("focal", gamma=[0.5, 0.5])(logits, labels)


def test_single_channel_without_background():
    with pytest.raises(ValueError, match="leaves nothing"):
        get_loss("dice", activation="sigmoid", include_background=False)(torch.zeros(1, 1, 4), torch.zeros(1, 4))


def test_without_triton_there_is_one_warning(monkeypatch):
    """On CUDA the plain path is taken instead of the fused one.

    Private names: no tensor gets here on a machine without CUDA, and one with CUDA remembers that it has Triton.
    """
    cuda = SimpleNamespace(is_cuda=True)
    monkeypatch.setattr(operator.importlib.util, "find_spec", lambda name: None)
    operator._has_triton.cache_clear()
    with pytest.warns(UserWarning, match="Triton is not installed"):
        assert operator._implementation(cuda, None, None, None) is operator.plain
    with warnings.catch_warnings(action="error"):
        assert operator._implementation(cuda, None, None, None) is operator.plain
    operator._has_triton.cache_clear()


@pytest.mark.parametrize("kind", ["int64", "uint8", "uint16", "int16", "float32", "bool"])
def test_arrays_are_taken_as_labels(kind):
    logits = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    labels = (np.arange(24).reshape(2, 3, 4) % 2).astype(kind)
    expected = voxloss.DiceLoss()(logits, torch.from_numpy(labels.astype("int64")))
    assert voxloss.DiceLoss()(logits, labels) == expected
    assert voxloss.DiceLoss()(logits, labels[:, None]) == expected
    assert voxloss.DiceLoss()(logits, labels.tolist()) == expected
    flipped = voxloss.DiceLoss()(logits.flip(-1), labels[..., ::-1])
    assert flipped.item() == pytest.approx(expected.item(), rel=1e-6)
    deep = voxloss.DeepSupervision(voxloss.DiceLoss())
    assert deep([logits, logits[..., ::2]], labels) == deep([logits, logits[..., ::2]], torch.as_tensor(labels))


def test_arrays_are_taken_as_voxel_weights():
    logits, labels = torch.randn(1, 2, 5), torch.tensor([[0, 1, 0, 1, 1]])
    weight = np.array([[1.0, 0, 2, 1, 3]])
    assert voxloss.DiceLoss()(logits, labels, weight) == voxloss.DiceLoss()(logits, labels, torch.tensor(weight))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([[0, 1], [1]], "labels must be a tensor, an array or nested lists"),
        ("label.nii.gz", "received str"),
        (np.array([["a", "b"]]), "received ndarray"),
        ({"a": 1}, "received dict"),
    ],
)
def test_what_is_no_array_is_refused(labels, words):
    with pytest.raises(ValueError, match=words):
        voxloss.DiceLoss()(torch.zeros(1, 2, 2), labels)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((2, 4, 6, 5), "another order: labels.movedim"),
        ((2, 6, 5, 4), "another order"),
        ((2, 4, 5, 6, 3), r"come last: labels\.movedim\(-1, 1\)"),
        ((2, 5, 6), "stacked outputs of deep supervision"),
        ((2, 9, 9, 9), r"expected \(2, 4, 5, 6\)"),
    ],
)
def test_labels_of_the_wrong_shape_get_a_hint(shape, hint):
    with pytest.raises(ValueError, match=hint):
        voxloss.DiceLoss()(torch.zeros(2, 3, 4, 5, 6), torch.zeros(shape, dtype=torch.long))


def test_a_missing_batch_axis_gets_a_hint():
    with pytest.raises(ValueError, match=r"lack the batch axis: labels\[None\]"):
        voxloss.DiceLoss()(torch.zeros(1, 3, 4, 5), torch.zeros((4, 5), dtype=torch.long))


@pytest.mark.parametrize("spatial", [(16, 17), (7, 8, 9)])
@pytest.mark.parametrize(("channel", "hint"), [((), r"labels\[None\]\)$"), ((1,), r"labels\)$")])
def test_one_sample_without_its_batch_axis_gets_a_hint(spatial, channel, hint):
    logits, labels = torch.zeros(3, *spatial), torch.zeros(*channel, *spatial, dtype=torch.long)
    with pytest.raises(ValueError, match=hint) as caught:
        voxloss.DiceLoss()(logits, labels)
    assert "Is the batch axis missing?" in str(caught.value)
    voxloss.DiceLoss()(logits[None], labels if channel else labels[None])  # what the message says


BAD = {
    "label of a class too many": ("softmax", torch.tensor([[0, 3, 1, 2]]), None, "label 3 is outside"),
    "negative label": ("softmax", torch.tensor([[0, -1, 1, 2]]), None, "label -1 is outside"),
    "fractional label": ("softmax", torch.tensor([[0, 0.5, 1, 2]]), None, "whole numbers"),
    "mask of 0 and 255": ("sigmoid", torch.tensor([[[0, 255, 0, 255]] * 3]).float(), None, "target 255 is outside"),
    "NaN in a soft target": ("softmax", torch.full((1, 3, 4), torch.nan), None, "target nan is outside"),
    "negative weight": ("softmax", torch.zeros(1, 4).long(), torch.tensor([[1.0, -2, 1, 1]]), "received -2"),
    "infinite weight": ("softmax", torch.zeros(1, 4).long(), torch.tensor([[1.0, torch.inf, 1, 1]]), "received inf"),
}


@pytest.mark.parametrize(("activation", "labels", "weight", "words"), BAD.values(), ids=BAD)
def test_what_is_checked_later_is_reported_by_a_later_call(activation, labels, weight, words):
    """As on CUDA, where a check must not wait; there the next calls after the copy has arrived."""
    logits, good = torch.zeros(1, 3, 4), torch.tensor([[0, 1, 2, 0]])
    options = {"activation": activation, "validate": "later"}
    voxel_statistics(logits, labels, voxel_weight=weight, **options)
    with pytest.raises(ValueError, match=f"{words}.*This was in an earlier step"):
        voxel_statistics(logits, good, **options)
    voxel_statistics(logits, good, **options)  # reported once


def test_nothing_is_looked_at_while_a_cuda_graph_is_recorded(monkeypatch):
    logits, good, wrong = torch.zeros(1, 3, 4), torch.tensor([[0, 1, 2, 0]]), torch.tensor([[0, 1, 5, 0]])
    voxel_statistics(logits, wrong, validate="later")
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        for labels in (good, wrong):
            voxel_statistics(logits, labels, validate="later")
    with pytest.raises(ValueError, match="label 5 is outside"):
        voxel_statistics(logits, good, validate="later")
    voxel_statistics(logits, good, validate="later")


def test_good_labels_checked_later_are_no_error():
    logits = torch.zeros(1, 3, 4)
    for labels in (
        torch.tensor([[0, 1, 2, 255]]),
        torch.tensor([[0, 1, 2, 255.0]]),
        torch.tensor([[0, 1, 2, 255]]).byte(),
    ):
        for _ in range(3):
            voxel_statistics(logits, labels, ignore_index=255, validate="later")
    voxel_statistics(logits, torch.rand(1, 3, 4), validate="later")
    voxel_statistics(logits[:0], labels[:0], validate="later")
    voxel_statistics(logits, labels, ignore_index=255, validate="later")


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_probabilities_given_as_logits_are_warned_of_once(kind):
    probabilities = torch.randn(2, 3, 5, 5).softmax(1).to(kind)
    labels = torch.zeros(2, 5, 5, dtype=torch.long)
    loss = voxloss.DiceLoss()
    with pytest.warns(UserWarning, match="seem to be probabilities"):
        loss(probabilities, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(probabilities, labels)
        for logits in (torch.randn(2, 3, 5, 5), torch.zeros(2, 3, 5, 5), torch.rand(2, 3, 5, 5), probabilities * 1.1):
            voxloss.DiceLoss()(logits, labels)
        voxloss.DiceLoss(validate=False)(probabilities, labels)
        voxloss.DiceLoss(activation="sigmoid")(torch.rand(2, 1, 5, 5), labels)
        voxloss.DiceLoss()(torch.full((2, 3, 5, 5), torch.nan), labels)  # of a training that diverges
    one = probabilities.clone()
    one[1, :, 2, 2] += 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        voxloss.DiceLoss()(one, labels)


def test_the_count_of_calls_is_no_state():
    loss = voxloss.DiceLoss()
    loss(torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.long))
    assert not loss.state_dict()
    assert "calls" not in repr(loss)


UNSIGNED = [torch.uint8, torch.uint16, torch.uint32, torch.uint64]


@pytest.mark.parametrize("dtype", UNSIGNED)
@pytest.mark.parametrize("name", ["dice_cross_entropy", "cc_dice_ce", "blob", "boundary", "dice_topk", "lovasz"])
@pytest.mark.parametrize("multi_hot", [False, True])
def test_a_mask_and_lesions_of_unsigned_labels(dtype, name, multi_hot):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 4, generator=generator)
    labels = torch.randint(0, 2, (2, 3, 5, 4) if multi_hot else (2, 5, 4), generator=generator)
    mask = torch.rand(2, 5, 4, generator=generator) > 0.3
    loss = get_loss(name, activation="sigmoid" if multi_hot else "softmax")
    assert loss(logits, labels.to(dtype), mask=mask) == loss(logits, labels, mask=mask)
    assert loss(logits, labels.to(dtype)) == loss(logits, labels)
    assert torch.equal(
        lesion_regions(labels.to(dtype), 3, activation=loss.activation, multi_hot=multi_hot),
        lesion_regions(labels, 3, activation=loss.activation, multi_hot=multi_hot),
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("ignore_index", [255, 4095, 70_000, 2**40])
def test_a_mask_of_labels_too_narrow_for_the_ignored_one(dtype, ignore_index):
    logits = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    labels, mask = torch.arange(40).view(2, 5, 4) % 3, torch.arange(40).view(2, 5, 4) % 7 > 1
    found = get_loss("dice", ignore_index=ignore_index)(logits, labels.to(dtype), mask=mask)
    assert found == get_loss("dice")(logits, labels, mask=mask)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float64])
@pytest.mark.parametrize("multi_hot", [False, True])
def test_a_mask_lets_no_label_out_of_range_through(dtype, multi_hot):
    shape = (2, 3, 5, 4) if multi_hot else (2, 5, 4)
    labels = torch.ones(shape, dtype=dtype)
    labels[0, 0, 0] = -100  # what other losses ignore by default
    with pytest.raises(ValueError, match="-100 is outside the allowed range"):
        get_loss("dice")(torch.zeros(2, 3, 5, 4), labels, mask=torch.ones(2, 5, 4))
    mask = torch.ones(2, 5, 4)
    mask[0] = 0
    get_loss("dice")(torch.zeros(2, 3, 5, 4), labels, mask=mask)
