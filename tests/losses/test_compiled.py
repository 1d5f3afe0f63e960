"""The pass compiled from C against the plain one in float64, and what happens where it cannot be compiled."""

import gc
import os
import threading
import time
import warnings
import weakref
from types import SimpleNamespace

import pytest
import torch

from voxloss import get_loss, lesion_regions
from voxloss.losses.voxel_pass import compiled, composite, library, operator, plain
from voxloss.losses.voxel_pass.lesions import operator as of_lesions
from voxloss.losses.voxel_pass.lesions import sums as passes
from voxloss.losses.voxel_pass.lesions.read import Reading
from voxloss.losses.voxel_pass.settings import PassSettings

needs_compiler = pytest.mark.skipif(not library.is_there(), reason="no C compiler")
EXPONENTS = [(), (0.0,), (1.0, 2.0), (0.75, 0.05, 3.5), ("per class", 0.0)]


def problem(classes, spatial=(5, 7, 11), seed=0, scale=4.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(2, classes, *spatial, generator=generator)
    labels = torch.randint(0, classes, (2, *spatial), generator=generator)
    return logits, labels, torch.rand(2, *spatial, generator=generator)


def settings(exponents=(0.0,), ignore_index=None, check=True, tube=False, squared=False, hardest=0, bins=()):
    sums = {"tube": tube, "squared": squared, "hardest": hardest, "bins": bins}
    return PassSettings("softmax", False, exponents, ignore_index, check, **sums)


def compare(logits, labels, weight, chosen, gradient_tolerance=2e-6, shares=None):
    """Sums, counts and gradient of the compiled pass and of the plain one in float64."""
    assert compiled.takes(logits, labels, weight, chosen)
    wide = None if weight is None else weight.double()
    sums, voxels = compiled.sums(logits, labels, weight, chosen, shares)
    expected, counted = plain.sums(logits.double(), labels, wide, chosen, shares)
    torch.testing.assert_close(sums, expected, rtol=2e-6, atol=1e-30)
    assert torch.equal(voxels, counted)
    upstream = torch.linspace(-1, 2, sums.numel(), dtype=torch.float64).view_as(sums)
    slope = compiled.gradient(logits, labels, weight, upstream, chosen, shares)
    exact = plain.gradient(logits.double(), labels, wide, upstream, chosen, shares)
    assert slope.dtype == logits.dtype
    torch.testing.assert_close(slope.double(), exact, rtol=gradient_tolerance, atol=gradient_tolerance)


@needs_compiler
@pytest.mark.parametrize("weighted", [False, True, "tube"])
@pytest.mark.parametrize("ignore_index", [None, 1])
@pytest.mark.parametrize("exponents", EXPONENTS, ids=str)
@pytest.mark.parametrize("classes", [2, 3, 14, 105])
def test_agrees_with_float64(classes, exponents, ignore_index, weighted):
    logits, labels, weight = problem(classes)
    by_class = tuple(0.5 + c / classes for c in range(classes))
    in_tube = weighted == "tube"
    chosen = settings(tuple(by_class if e == "per class" else e for e in exponents), ignore_index, tube=in_tube)
    if in_tube:
        weight = weight * torch.where(weight > 0.5, -1, 1)
    compare(logits, labels, weight if weighted else None, chosen)


@needs_compiler
@pytest.mark.parametrize("weighted", [False, True, "tube"])
@pytest.mark.parametrize("classes", [2, 3, 14])
def test_squared_differences_agree_with_float64(classes, weighted):
    logits, labels, weight = problem(classes)
    if weighted == "tube":
        weight = weight * torch.where(weight > 0.5, -1, 1)
    chosen = settings((0.0, 1.5), 1, tube=weighted == "tube", squared=True)
    compare(logits, labels, weight if weighted else None, chosen)


@needs_compiler
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "every other"])
@pytest.mark.parametrize("weighted", [False, True, "tube"])
@pytest.mark.parametrize("selections", [1, 2])
@pytest.mark.parametrize("classes", [2, 3, 14])
def test_selections_of_voxels_agree_with_float64(classes, selections, weighted, layout):
    logits, labels, weight = problem(classes, (4, 6, 8))
    if weighted == "tube":
        weight = weight * torch.where(weight > 0.5, -1, 1)
    shares = torch.rand(selections, *labels.shape, generator=torch.Generator().manual_seed(1))
    shares = torch.where(shares > 0.7, 1, torch.where(shares > 0.6, shares, 0))
    if layout == "channels last":
        shares = shares.to(memory_format=torch.channels_last_3d)
    elif layout == "every other":
        shares = shares.repeat_interleave(2, -1)[..., ::2]
    chosen = settings((0.0, 1.5), 1, tube=weighted == "tube", squared=True, hardest=selections)
    compare(logits, labels, weight if weighted else None, chosen, shares=shares)


@needs_compiler
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 14])
def test_the_order_of_the_cross_entropies_agrees_with_float64(classes, weighted):
    logits, labels, weight = problem(classes)
    labels[0, 0], labels[1, 0, 0, 0] = 255, classes  # out of range: as ignored where it is not checked
    weight = weight if weighted else None
    bits = compiled.surprise_bits(logits, labels, weight, settings(ignore_index=255, check=False))
    counted = (labels < classes).flatten(1)
    assert torch.equal(bits >= 0, counted) and (bits[~counted] == -1).all()
    exact = torch.nn.functional.cross_entropy(logits.double(), labels.clamp_max(classes - 1), reduction="none")
    exact = (exact if weight is None else exact * weight).flatten(1)[counted]
    torch.testing.assert_close(bits[counted].view(torch.float32).double(), exact, rtol=1e-6, atol=1e-37)


@needs_compiler
@pytest.mark.parametrize("weighted", [False, True, "tube"])
@pytest.mark.parametrize("bins", [(1,), (20,), (256, 3)], ids=str)
@pytest.mark.parametrize("classes", [2, 3, 14])
def test_bins_agree_with_float64(classes, bins, weighted):
    logits, labels, weight = problem(classes)
    logits[0, :, 0, 0, 0], logits[0, 0, 0, 0, 1] = 0, 200  # p at the border of bins, and 1 and 0
    labels[0, 1], labels[1, 0, 0, 0] = 255, classes
    weight = None if not weighted else weight
    signed = weight * torch.where(weight > 0.5, -1, 1) if weighted == "tube" else weight
    shares = torch.rand(1, *labels.shape, generator=torch.Generator().manual_seed(1))
    chosen = settings((0.0,), 255, False, weighted == "tube", squared=True, hardest=1, bins=bins)
    assert compiled.takes(logits, labels, signed, chosen)
    found, voxels = compiled.sums(logits, labels, signed, chosen, shares)
    exact = logits.double().requires_grad_()
    expected, counted = composite.sums(exact, labels, None if signed is None else signed.double(), chosen, shares)
    assert found.shape == expected.shape and torch.equal(voxels, counted)
    before = chosen.before_bins(0)
    torch.testing.assert_close(found[:, :before], expected[:, :before], rtol=2e-6, atol=1e-30)
    for number in bins:
        torch.testing.assert_close(  # none in another bin
            found[:, before + number :][:, :number], expected[:, before + number :][:, :number], rtol=1e-6, atol=1e-6
        )
        torch.testing.assert_close(
            found[:, before:][:, :number], expected[:, before:][:, :number], rtol=1e-5, atol=1e-5
        )
        before += 2 * number
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    slope = compiled.gradient(logits, labels, signed, upstream, chosen, shares)
    by_torch = torch.autograd.grad((upstream * expected).sum(), exact)[0]
    torch.testing.assert_close(slope.double(), by_torch, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("tube", [False, True])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_bins_by_torch_agree_with_its_own_gradient(activation, tube):
    logits, labels, weight = problem(3)
    labels[0, 1] = 255
    exact = logits.double().requires_grad_()
    chosen = PassSettings(activation, False, (0.0,), 255, True, tube=tube, hardest=1, bins=(20, 3))
    share = torch.rand(1, *labels.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    within = (labels == 1).double() if tube else None
    found, _ = operator.sums(exact, labels, weight.double(), chosen, within, share)
    signed = weight.double() if within is None else weight * (1 - 2 * within)
    expected, _ = composite.sums(exact, labels, signed, chosen, share)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    slopes = [torch.autograd.grad((upstream * sums).sum(), exact)[0] for sums in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-12)


@needs_compiler
@pytest.mark.parametrize("layout", ["int32", "int64", "bfloat16", "channels last"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 4, 14])
def test_lesions_agree_with_float64(classes, weighted, layout):
    logits, labels, weight = problem(classes, (9, 17, 13))
    labels[torch.rand(labels.shape, generator=torch.Generator().manual_seed(2)) < 0.9] = 0
    regions = lesion_regions(labels, classes).to(torch.int64 if layout == "int64" else torch.int32)
    labels[0, 1], labels[1, 0, 0, 0] = 255, 99  # out of range: as ignored where it is not checked
    logits[0, :, 2:4] *= 60
    logits[0, :, 5] = logits[0, :, 5].round()  # several classes are the likeliest ones
    for c in (0, 1):  # classes that are masked, but where the label has them
        logits[1, c, 3 + c] = torch.where(labels[1, 3 + c] == c, logits[1, c, 3 + c], -torch.inf)
    logits[1, :, 8, 16, 12] = 0
    if layout == "bfloat16":
        logits = logits.to(torch.bfloat16)
    elif layout == "channels last":
        logits, regions = (each.to(memory_format=torch.channels_last_3d) for each in (logits, regions))
    how = Reading("softmax", False, 255, by_channel=False, checked=False)
    offsets, owner = of_lesions.places(regions)
    weight = weight if weighted else None
    wide = None if weight is None else weight.double()
    given = (labels, regions, offsets)
    assert compiled.takes_lesions(logits, labels, regions, weight, len(owner), settings(ignore_index=255))
    sums, voxels = passes.sums(logits, *given, weight, len(owner), how)
    expected, counted = passes.sums(logits.double(), *given, wide, len(owner), how)
    torch.testing.assert_close(sums, expected, rtol=2e-6, atol=1e-9)
    assert torch.equal(voxels, counted)
    upstream = torch.linspace(-1, 2, sums.numel(), dtype=torch.float64).view_as(sums)
    slope = passes.gradient(upstream, logits, *given, weight, how)
    exact = passes.gradient(upstream, logits.double(), *given, wide, how)
    assert slope.dtype == logits.dtype
    tolerance = 4e-3 if layout == "bfloat16" else 2e-6
    torch.testing.assert_close(slope.double(), exact, rtol=tolerance, atol=2e-6)


def rows_of_regions(voxels, classes, longest):
    """Regions (1, F, voxels) that lie in rows of 1 to `longest` voxels, and come again."""
    generator = torch.Generator().manual_seed(voxels + longest)
    rows = torch.randint(1, longest + 1, (classes - 1, voxels), generator=generator)
    numbers = torch.randint(1, min(5, voxels + 1), rows.shape, generator=generator)
    maps = [torch.repeat_interleave(of, row)[:voxels] for of, row in zip(numbers, rows, strict=True)]
    return torch.stack(maps)[None].to(torch.int32)


@needs_compiler
@pytest.mark.parametrize("longest", [1, 4, 40])
@pytest.mark.parametrize("voxels", [1, 2, 255, 256, 257, 1023])
def test_rows_of_regions_of_any_length(voxels, longest, monkeypatch):
    monkeypatch.setattr(compiled, "PART", 1)  # a block in every part
    for classes in (2, 3):
        logits, labels, weight = (each[:1] for each in problem(classes, (voxels,)))
        regions = rows_of_regions(voxels, classes, longest)
        how = Reading("softmax", False, None, by_channel=False, checked=False)
        offsets, owner = of_lesions.places(regions)
        given = (labels, regions, offsets)
        sums, counts = passes.sums(logits, *given, weight, len(owner), how)
        exact, counted = passes.sums(logits.double(), *given, weight.double(), len(owner), how)
        torch.testing.assert_close(sums, exact, rtol=2e-6, atol=1e-9)
        assert torch.equal(counts, counted) and counts.sum() == voxels * (classes - 1)
        upstream = torch.linspace(-1, 2, sums.numel(), dtype=torch.float64).view_as(sums)
        slope = passes.gradient(upstream, logits, *given, weight, how)
        expected = passes.gradient(upstream, logits.double(), *given, weight.double(), how)
        torch.testing.assert_close(slope.double(), expected, rtol=2e-6, atol=2e-6)


@needs_compiler
@pytest.mark.parametrize("classes", [2, 3])
def test_nan_stays_in_its_region(classes):
    logits, labels, _ = (each[:1] for each in problem(classes, (600,)))
    regions = (1 + torch.arange(600, dtype=torch.int32) // 7 % 2).expand(1, classes - 1, 600)
    logits[:, :, 6] = torch.nan  # beside the border to region 2
    how = Reading("softmax", False, None, by_channel=False, checked=False)
    offsets, owner = of_lesions.places(regions)
    sums, _ = passes.sums(logits, labels, regions, offsets, None, len(owner), how)
    of_region = sums.sum(0).view(classes - 1, 3, 2).sum(2)
    assert of_region[:, 1].isnan().all() and of_region[:, 2].isfinite().all()


@needs_compiler
@pytest.mark.parametrize("voxels", [1, 15, 255, 256, 257, 1023])
def test_blocks_and_parts_of_any_length(voxels, monkeypatch):
    monkeypatch.setattr(compiled, "PART", 1)  # a block in every part
    logits, labels, weight = problem(3, (voxels,))
    compare(logits, labels, weight, settings((2.0,), 1))


@needs_compiler
def test_nothing_to_read():
    for shape in ((0, 3, 4), (2, 3, 0)):
        logits, labels = torch.zeros(shape), torch.zeros(shape[0], shape[2], dtype=torch.int64)
        sums, voxels = compiled.sums(logits, labels, None, settings())
        assert sums.shape == (shape[0], 4, 3) and not sums.any() and not voxels.any()
        assert compiled.gradient(logits, labels, None, sums, settings()).shape == shape


@needs_compiler
@pytest.mark.parametrize("layout", ["channels last", "axes swapped", "every other", "expanded", "a view"])
def test_layouts(layout):
    logits, labels, weight = problem(3, (4, 6, 8))
    changed = {
        "channels last": lambda t: t.to(memory_format=torch.channels_last_3d) if t.ndim == 5 else t,
        "axes swapped": lambda t: t.transpose(-1, -3).contiguous().transpose(-1, -3),
        "every other": lambda t: t.repeat_interleave(2, -1)[..., ::2],
        "expanded": lambda t: t[:1].expand_as(t),
        "a view": lambda t: torch.cat([t, t])[1:3],
    }[layout]
    compare(changed(logits), changed(labels), changed(weight), settings((0.0, 1.5)))


@needs_compiler
def test_bfloat16_logits():
    logits, labels, weight = problem(3)
    for changed in (logits, logits.to(memory_format=torch.channels_last_3d)):
        compare(changed.bfloat16(), labels, weight, settings((2.0,)), gradient_tolerance=4e-3)


@needs_compiler
def test_bfloat16_gradients_are_rounded_as_torch_rounds():
    logits, labels, _ = problem(3)
    logits = logits.bfloat16()
    upstream = torch.ones(2, 4, 3, dtype=torch.float64)
    wide = compiled.gradient(logits.float(), labels, None, upstream, settings())
    assert torch.equal(compiled.gradient(logits, labels, None, upstream, settings()), wide.bfloat16())


@needs_compiler
def test_the_number_of_threads_changes_no_bit():
    logits, labels, weight = problem(3, (64, 64, 33))
    upstream = torch.ones(2, 4, 3, dtype=torch.float64)
    found, threads = [], torch.get_num_threads()
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            sums, voxels = compiled.sums(logits, labels, weight, settings())
            found.append((sums, voxels, compiled.gradient(logits, labels, weight, upstream, settings())))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(mine, first) for mine, first in zip(other, found[0], strict=True))


@needs_compiler
@pytest.mark.parametrize("largest", [50.0, 1e4, 1e38])
def test_extreme_logits(largest):
    labels = torch.tensor([[0, 1, 2, 0, 1, 2]])
    logits = torch.zeros(1, 3, 6)
    logits[0, 1] = largest
    logits[0, 2, 3:] = -largest
    chosen = settings((0.0, 2.0, 0.5))
    sums, exact = compiled.sums(logits, labels, None, chosen)[0], plain.sums(logits, labels, None, chosen)[0]
    torch.testing.assert_close(sums, exact, rtol=1e-5, atol=1e-35)
    upstream = torch.ones_like(sums)
    slopes = [path.gradient(logits, labels, None, upstream, chosen) for path in (compiled, plain)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-5, atol=1e-35)


@needs_compiler
def test_a_channel_masked_by_minus_infinity():
    logits, labels, _ = problem(3)
    logits[:, 2] = -torch.inf
    chosen = settings((0.0, 2.0))
    for values in (labels, labels.clamp_max(1)):
        sums = [path.sums(logits, values, None, chosen)[0] for path in (compiled, plain)]
        torch.testing.assert_close(sums[0], sums[1], rtol=1e-5, atol=1e-35)


@needs_compiler
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_is_neither_hidden_nor_let_out_of_ignored_voxels(bad):
    logits, labels, _ = problem(3)
    logits[0, 1, 2, 3, 4] = bad
    labels[0, 2, 3, 4] = 0
    chosen = settings((0.0, 0.5))
    assert compiled.sums(logits, labels, None, chosen)[0][0].isnan().any()
    upstream = torch.ones(2, 5, 3)
    assert compiled.gradient(logits, labels, None, upstream, chosen)[0, :, 2, 3, 4].isnan().all()
    labels[0, 2, 3, 4] = 9
    chosen = settings((0.0, 0.5), ignore_index=9)
    assert compiled.sums(logits, labels, None, chosen)[0].isfinite().all()
    assert not compiled.gradient(logits, labels, None, upstream, chosen)[0, :, 2, 3, 4].any()


@needs_compiler
def test_unchecked_labels_out_of_range_are_ignored():
    logits, labels, _ = problem(3)
    wrong = labels.clone()
    wrong[:, 0], wrong[:, 1] = 3, -1
    ignored = torch.where(wrong == labels, labels, 9)
    unchecked = compiled.sums(logits, wrong, None, settings(check=False))
    expected = compiled.sums(logits, ignored, None, settings(ignore_index=9))
    assert all(torch.equal(mine, other) for mine, other in zip(unchecked, expected, strict=True))


def plain_when_asked(logits, labels):
    return operator._implementation(logits, labels, None, settings()) is plain


@pytest.fixture
def compiled_anew(tmp_path, monkeypatch):
    """Nothing is compiled yet, and the cache is in a folder of the test; without optimising, as that takes seconds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "FLAGS", tuple(flag.replace("-O3", "-O0") for flag in library.FLAGS))
    library.load.cache_clear()
    yield tmp_path / "cache" / "voxloss"
    library.load.cache_clear()


def test_without_a_compiler_the_plain_pass_is_taken(compiled_anew, monkeypatch):
    logits, labels, _ = problem(3)
    value = get_loss("mixed_focal")(logits.double(), labels)
    monkeypatch.setenv("VOXLOSS_COMPILER", "")
    with warnings.catch_warnings(action="error"):
        assert plain_when_asked(logits, labels)
        torch.testing.assert_close(get_loss("mixed_focal")(logits, labels), value, check_dtype=False)
    library.load.cache_clear()
    monkeypatch.delenv("VOXLOSS_COMPILER")
    monkeypatch.setenv("PATH", "")
    with warnings.catch_warnings(action="error"):
        assert plain_when_asked(logits, labels)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'one.c: fatal error: no space' >&2; exit 1", "no space"),
        ("exit 0", "losses.so"),  # nothing written
        ('while [ "$1" != -o ]; do shift; done; echo rubbish > "$2"', "losses.so"),
        (None, "No such file"),
    ],
)
def test_a_compiler_that_fails_is_said_once(compiled_anew, monkeypatch, tmp_path, script, words):
    path = tmp_path / "compiler"
    if script is not None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("VOXLOSS_COMPILER", str(path))
    logits, labels, _ = problem(3)
    with pytest.warns(UserWarning, match=words):
        assert plain_when_asked(logits, labels)
    with warnings.catch_warnings(action="error"):
        assert get_loss("dice")(logits, labels).isfinite()
    assert not compiled_anew.exists()


@needs_compiler
@pytest.mark.slow
def test_it_is_compiled_once_and_again_where_the_cache_is_damaged(compiled_anew, monkeypatch, tmp_path):
    logits, labels, _ = problem(3)
    assert not plain_when_asked(logits, labels)
    (kept,) = compiled_anew.iterdir()
    library.load.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(library.subprocess, "run", lambda *_, **__: pytest.fail("compiled a second time"))
        assert not plain_when_asked(logits, labels)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # another path: one that is loaded is not read again
    damaged = tmp_path / "voxloss" / kept.name
    damaged.parent.mkdir()
    damaged.write_bytes(b"rubbish")
    library.load.cache_clear()
    assert not plain_when_asked(logits, labels)
    assert damaged.read_bytes() == kept.read_bytes()
    assert list(damaged.parent.iterdir()) == [damaged]


@needs_compiler
@pytest.mark.slow
def test_without_a_cache_it_is_compiled_for_the_process(compiled_anew):
    compiled_anew.parent.write_text("a file where the folder should be")
    logits, labels, _ = problem(3)
    with warnings.catch_warnings(action="error"):
        assert not plain_when_asked(logits, labels)


@needs_compiler
def test_what_the_compiled_pass_does_not_take():
    logits, labels, weight = problem(3)
    assert not compiled.takes(logits.double(), labels, None, settings())
    assert not compiled.takes(logits.half(), labels, None, settings())
    assert not compiled.takes(logits, labels, weight.double(), settings())
    assert not compiled.takes(logits, labels, None, settings(bins=(20, compiled.MOST_BINS + 1)))
    assert not compiled.takes(logits, labels, None, PassSettings("sigmoid", False, (), None, True))
    assert not compiled.takes(logits, logits, None, PassSettings("softmax", True, (), None, True))


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    logits, labels, _ = problem(3)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        expected = compiled.sums(logits, labels, None, settings())[0]  # with the threads of this process
        child = os.fork()
        if child == 0:
            same = torch.equal(compiled.sums(logits, labels, None, settings())[0], expected)
            os._exit(0 if same else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(threads)


@needs_compiler
@pytest.mark.parametrize("backward", [False, True])
def test_an_interrupt_leaves_the_other_threads_their_memory(monkeypatch, backward):
    logits, labels, _ = problem(3, (64, 64, 64))
    upstream = torch.ones(2, 4, 3, dtype=torch.float64)
    made, may_end, there = [], threading.Event(), []

    def spy(function):
        def remembered(*arguments, **options):
            made.append(weakref.ref(tensor := function(*arguments, **options)))
            return tensor

        return remembered

    def part(arguments, number):
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        may_end.wait(10)
        there.append(all(tensor() is not None for tensor in made))
        return 0

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(library, "load", lambda: SimpleNamespace(voxloss_sums=part, voxloss_gradient=part))
    if backward:
        monkeypatch.setattr(compiled, "empty_gradient", spy(compiled.empty_gradient))
    else:
        monkeypatch.setattr(torch, "zeros", spy(torch.zeros))
    with pytest.raises(KeyboardInterrupt) as interrupt:
        if backward:
            compiled.gradient(logits, labels, None, upstream, settings())
        else:
            compiled.sums(logits, labels, None, settings())
    interrupt.value.__traceback__ = None
    del interrupt
    gc.collect()
    may_end.set()
    deadline = time.monotonic() + 10
    while not there and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made
    assert there
    assert all(there)
