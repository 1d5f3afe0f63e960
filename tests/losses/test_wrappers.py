"""Compound and DeepSupervision against the same sums made by hand."""

import copy

import pytest
import torch

import voxloss
from voxloss import Compound, DeepSupervision, get_loss, list_losses
from voxloss.losses.voxel_pass import operator


def problem(shape=(2, 3, 5, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    return logits, torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)


def outcome(loss, logits, *others):
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, *others)
    value.backward()
    return value.detach(), logits.grad


def test_compound_of_everything_on_one_pass(monkeypatch):
    """All losses at once, with exponents, pools and backgrounds of their own."""
    logits, labels = problem()
    weight = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(1))
    parts = [get_loss(name) for name in list_losses()]
    parts += [get_loss("focal", gamma=[0, 1, 3.5], alpha=[1, 2, 3]), get_loss("dice", pool="batch", smooth=1)]
    parts += [get_loss("tversky", include_background=False, absent_class="skip", class_reduction="mean")]
    weights = [0.1 * (k + 1) for k in range(len(parts))]
    passes_made = []
    real = operator.sums
    monkeypatch.setattr(operator, "sums", lambda *given: passes_made.append(given[3].exponents) or real(*given))
    value, gradient = outcome(Compound(parts, weights), logits, labels, weight)
    assert len(passes_made) == 1
    assert len(set(passes_made[0])) == len(passes_made[0])
    expected = [outcome(part, logits, labels, weight) for part in parts]
    torch.testing.assert_close(value, sum(w * v for w, (v, _) in zip(weights, expected, strict=True)))
    torch.testing.assert_close(gradient, sum(w * g for w, (_, g) in zip(weights, expected, strict=True)))


def test_compound_terms_are_its_parts():
    logits, labels = problem()
    compound = Compound(["dice", "focal", get_loss("dice", smooth=1)], [2, 1, 0.5])
    statistics = passes_of(compound, logits, labels)
    terms = compound.formula.terms(statistics)
    assert list(terms) == ["Dice 1", "Focal", "Dice 3"]
    assert terms["Dice 1"].item() == pytest.approx(2 * get_loss("dice")(logits, labels).item())
    assert terms["Dice 3"].item() == pytest.approx(get_loss("dice", smooth=1)(logits, labels).item() / 2)
    nested = Compound([compound, "tversky"], [3, 1])
    expected = 3 * compound(logits, labels) + get_loss("tversky")(logits, labels)
    torch.testing.assert_close(nested(logits, labels), expected)


def passes_of(loss, logits, labels):
    from voxloss import voxel_statistics

    return voxel_statistics(logits, labels, focal_exponents=loss.formula.exponents, **loss.reading)


def test_compound_gives_its_reading_to_names():
    logits, labels = problem()
    labels[0] = 9
    compound = Compound(["cross_entropy", get_loss("dice", ignore_index=9, activation="sigmoid")])
    options = {"ignore_index": 9, "activation": "sigmoid"}
    expected = sum(get_loss(name, **options)(logits, labels) for name in ("cross_entropy", "dice"))
    torch.testing.assert_close(compound(logits, labels), expected)
    assert torch.equal(copy.deepcopy(compound)(logits, labels), compound(logits, labels))
    assert not compound.state_dict() and "weights=(1.0, 1.0)" in repr(compound) and "DiceLoss" in repr(compound)


@pytest.mark.parametrize(
    ("losses", "weights", "error", "words"),
    [
        ([], None, ValueError, "needs a list of losses"),
        ("dice", None, ValueError, "needs a list of losses, received 'dice'"),
        (["dise"], None, ValueError, "did you mean 'dice'"),
        ([torch.nn.CrossEntropyLoss()], None, TypeError, "received CrossEntropyLoss"),
        (["dice", "focal"], [1], ValueError, "2 losses need as many weights, received 1"),
        (["dice", "focal"], [1, -1], ValueError, r"weights must be .* not below 0, .* received \[1, -1\]"),
        (["dice", "focal"], 1, ValueError, "weights must be .*, one for each loss or output, received 1"),
        (["dice", "focal"], torch.tensor(1.0), ValueError, r"weights must be .*, received tensor\(1.\)"),
        (["dice", "focal"], [1, 10**400], ValueError, "weights must be .*, received"),
        (["dice", "focal"], [0, 0], ValueError, r"above 0, received \[0, 0\]"),
    ],
)
def test_compound_refuses(losses, weights, error, words):
    with pytest.raises(error, match=words):
        Compound(losses, weights)


def test_weights_of_a_compound_follow_its_losses():
    compound = Compound(["dice", "focal"], (weight for weight in (1, 2)))
    compound.losses.append(get_loss("combo"))
    with pytest.raises(ValueError, match="3 losses need as many weights, received 2"):
        compound(*problem())
    compound.weights = [0, 0, 1]
    torch.testing.assert_close(compound(*problem()), get_loss("combo")(*problem()))


def test_compound_takes_a_default_that_is_spelled_out():
    logits, labels = problem()
    compound = Compound([get_loss("dice", activation="softmax", ignore_index=None), get_loss("focal")])
    torch.testing.assert_close(compound(logits, labels), Compound(["dice", "focal"])(logits, labels))


def test_compound_of_losses_that_read_differently():
    with pytest.raises(ValueError, match=r"must agree on ignore_index.*received 3 and None"):
        Compound([get_loss("dice", ignore_index=3), get_loss("focal")])


def test_deep_supervision_by_hand():
    """Three outputs of 8, 4 and 2 voxels; nearest neighbour takes voxels 1, 3, 5, 7 and then 2, 6 of the finest."""
    labels = torch.tensor([[0, 1, 2, 0, 1, 2, 0, 1]])
    outputs = [problem((1, 3, n), seed=n)[0] for n in (8, 4, 2)]
    at_each = [labels, torch.tensor([[1, 0, 2, 1]]), torch.tensor([[2, 0]])]
    loss = get_loss("mixed_focal")
    parts = [loss(x, y) for x, y in zip(outputs, at_each, strict=True)]
    torch.testing.assert_close(DeepSupervision(loss)(outputs, labels), (4 * parts[0] + 2 * parts[1] + parts[2]) / 7)
    weighted = DeepSupervision(loss, weights=[1, 0.25, 0])
    torch.testing.assert_close(weighted(outputs, labels), parts[0] + parts[1] / 4)
    torch.testing.assert_close(weighted(outputs, at_each), parts[0] + parts[1] / 4)
    torch.testing.assert_close(DeepSupervision(loss)(outputs[:1], labels), parts[0])
    torch.testing.assert_close(weighted(outputs[0], labels), parts[0])  # a single output, as in validation


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.bool])
def test_deep_supervision_keeps_the_labels_type(dtype):
    labels = torch.randint(0, 2, (2, 1, 6, 9), generator=torch.Generator().manual_seed(0)).to(dtype)
    seen = []
    record = torch.nn.Module()
    record.forward = lambda x, y: seen.append(y) or x.sum()
    DeepSupervision(record)([torch.zeros(2, 2, 6, 9), torch.zeros(2, 2, 2, 3)], labels)
    assert seen[1].dtype == dtype and torch.equal(seen[1], labels[:, :, 1::3, 1::3])


def test_deep_supervision_takes_the_voxel_weight_along():
    outputs = [problem((1, 3, n), seed=n)[0] for n in (6, 3)]
    labels, weight = torch.tensor([[0, 1, 2, 0, 1, 2]]), torch.tensor([[0.0, 1, 0, 2, 0, 3]])
    loss = get_loss("focal")
    expected = 2 / 3 * loss(outputs[0], labels, weight) + 1 / 3 * loss(
        outputs[1], torch.tensor([[1, 0, 2]]), torch.tensor([[1.0, 2, 3]])
    )
    torch.testing.assert_close(DeepSupervision(loss)(outputs, labels, weight), expected)


def test_deep_supervision_refuses():
    outputs = [problem((1, 3, n))[0] for n in (4, 2)]
    labels = torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="3 weights but received 2 outputs"):
        DeepSupervision(get_loss("dice"), [1, 1, 1])(outputs, labels)
    with pytest.raises(ValueError, match="2 outputs but 3 labels"):
        DeepSupervision(get_loss("dice"))(outputs, [labels] * 3)
    with pytest.raises(ValueError, match="no output"):
        DeepSupervision(get_loss("dice"))([], labels)
    with pytest.raises(ValueError, match=r"not below 0, .* received \[1, -2\]"):
        DeepSupervision(get_loss("dice"), [1, -2])


@pytest.mark.slow
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_operators_keep_torchs_contract(activation, soft):
    """torch's own check: shapes without data, no hidden aliasing or mutation, gradients under AOT dispatch."""
    logits, labels = problem((2, 3, 4))
    target = torch.rand(2, 3, 4, dtype=torch.float64) if soft else labels
    for smoothing, squared, minimum in ((0.0, False, False), (0.1, True, soft)):
        tube = torch.tensor([1, 0, 0, 1]).expand(2, 4) if squared else None
        shares = torch.rand(2, 2, 4) if squared else None
        given = (
            target,
            torch.rand(2, 4),
            tube,
            shares,
            activation,
            soft,
            [2.0] * 3,
            9,
            True,
            False,
            smoothing,
            squared,
            minimum,
            [4, 3] if squared else [],
        )
        torch.library.opcheck(torch.ops.voxloss.sums, (logits, *given))
        sides = 2 if activation == "sigmoid" else 1
        rows = 3 + sides + squared + 3 * minimum + 2 * squared + 2 * sides * squared + 14 * squared
        upstream = torch.ones(2, rows, 3, dtype=torch.float64)
        torch.library.opcheck(torch.ops.voxloss.sums_gradient, (upstream, logits.detach(), *given))


STACKED = {
    "3D labels": ((2, 3, 2, 8, 8, 8), (2, 1, 8, 8, 8)),
    "3D multi-hot": ((2, 2, 3, 8, 8, 8), (2, 3, 8, 8, 8)),
    "2D labels": ((2, 3, 2, 8, 8), (2, 1, 8, 8)),
    "2D labels without a channel": ((2, 3, 2, 8, 8), (2, 8, 8)),
}


@pytest.mark.parametrize(("outputs", "labels"), STACKED.values(), ids=STACKED)
@pytest.mark.parametrize("deep", [True, False])
def test_stacked_outputs_are_refused_and_their_list_is_taken(outputs, labels, deep):
    heads, labels = torch.randn(outputs), torch.randint(0, 2, labels)
    inner = voxloss.get_loss("dice_cross_entropy", activation="sigmoid" if heads.shape[2] == 3 else "softmax")
    loss = voxloss.DeepSupervision(inner) if deep else inner
    with pytest.raises(ValueError, match=r"voxloss\.DeepSupervision\(loss\)\(list\(logits\.unbind\(1\)\), labels\)"):
        loss(heads, labels)
    taken = voxloss.DeepSupervision(inner)(list(heads.unbind(1)), labels)
    weights = [2.0**-k for k in range(heads.shape[1])]
    expected = sum(w * inner(z, labels) for w, z in zip(weights, heads.unbind(1), strict=True)) / sum(weights)
    assert taken.item() == pytest.approx(expected.item(), rel=1e-6)


def test_lists_and_dictionaries_of_outputs_say_what_to_do():
    loss, labels = voxloss.DiceLoss(), torch.zeros(1, 4, dtype=torch.long)
    output = torch.zeros(1, 2, 4)
    for outputs, words in (
        ([output, output], r"received a list of 2: .*DeepSupervision"),
        ((output,), r"received a tuple of 1"),
        ({"out": output, "aux": output}, r"a dictionary of 'out', 'aux': choose one"),
        (output.numpy(), r"must be a tensor, received ndarray: torch\.as_tensor"),
        (None, r"must be a tensor, received NoneType"),
    ):
        with pytest.raises(ValueError, match=words):
            loss(outputs, labels)
    with pytest.raises(ValueError, match="takes a list of outputs, received a dictionary"):
        voxloss.DeepSupervision(loss)({"out": output}, labels)


def test_outputs_come_finest_first():
    loss = voxloss.DeepSupervision(voxloss.DiceLoss())
    fine, coarse, labels = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4), torch.zeros(1, 8, 8, dtype=torch.long)
    with pytest.raises(ValueError, match=r"finest output first.*output 1 of shape \(1, 2, 8, 8\).*outputs\[::-1\]"):
        loss([coarse, fine], labels)
    with pytest.raises(ValueError, match="equally many axes"):
        loss([fine, torch.zeros(1, 2, 4)], labels)
    assert loss([fine, torch.zeros(1, 2, 8, 4)], labels).isfinite()  # anisotropic


@pytest.mark.parametrize("weights", [None, [0, 1]])
def test_labels_in_another_order_of_axes_are_refused(weights):
    loss = voxloss.DeepSupervision(voxloss.DiceLoss(), weights=weights)
    outputs = [torch.zeros(2, 2, 8, 6), torch.zeros(2, 2, 4, 3)]
    labels = torch.zeros(2, 6, 8, dtype=torch.long)
    with pytest.raises(ValueError, match=r"\(2, 6, 8\) do not fit"):
        loss(outputs, labels)
    assert loss(outputs, labels.movedim(1, 2)).isfinite()
    with pytest.raises(ValueError, match="do not fit"):
        loss(outputs, [labels.movedim(1, 2), torch.zeros(2, 3, 4, dtype=torch.long)])
