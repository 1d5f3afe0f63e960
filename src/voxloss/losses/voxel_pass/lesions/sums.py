"""Sums over every region, inside and outside its lesion, in one pass however many regions there are.

Each voxel's index is 2·(place of its region) + (whether it is in the lesion); the sums are added up by it. Regions of
all samples and classes lie one behind the other: those of sample b and class c from `offsets[b, c]` on, with the voxels
of no region, number 0, first. On a CPU the passes in C take the place of this one.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from voxloss.losses.voxel_pass import compiled
from voxloss.losses.voxel_pass.lesions.read import Reading, log_odds, through_log_odds
from voxloss.losses.voxel_pass.plain import CPU_CHUNK, DEVICE_CHUNK, empty_gradient, total_type, working_type
from voxloss.losses.voxel_pass.scatter import add_by_index
from voxloss.losses.voxel_pass.settings import INSIDE, PassSettings

ROWS = 4  # Σ p·t, Σ p·(1-t), Σ (1-p)·t and Σ (t·(-log p) + (1-t)·(-log(1-p))), each with the voxel weight
_BUFFERS = 8  # numbers for each voxel and class that a chunk holds at once, about


def sums(
    logits: Tensor, target: Tensor, regions: Tensor, offsets: Tensor, weight: Tensor | None, places: int, how: Reading
) -> tuple[Tensor, Tensor]:
    """Return the sums (ROWS, 2·places) and the counted voxels (2·places,)."""
    settings = _settings(how)
    if compiled.takes_lesions(logits, target, regions, weight, places, settings):
        return compiled.lesions(logits, target, regions, offsets, weight, places, settings, alone=True)[:2]
    if compiled.takes_odds(logits, target, regions, weight, places):
        given = (logits, target, regions, offsets, weight, places)
        return compiled.odds(*given, settings, by_channel=how.by_channel)
    kind = total_type(logits)
    totals = torch.zeros(ROWS, 2 * places + 1, dtype=kind, device=logits.device)  # the last: what does not count
    voxels = torch.zeros(2 * places + 1, dtype=kind, device=logits.device)
    for chunk in _chunks(logits, target, regions, offsets, weight, 2 * places, how):
        z, index, inside, t = log_odds(chunk.x, how.activation).flatten(), chunk.index, chunk.inside, chunk.t
        # Most voxels have a target of 0, add nothing to two of the sums, and little remains of the others.
        p, surprise = torch.sigmoid(z), softplus(z, threshold=50)
        z_inside, p_inside = z[inside], p[inside]
        p[inside], surprise[inside] = p_inside * (1 - t), _surprise(z_inside, t)
        hit, missed = p_inside * t, torch.sigmoid(-z_inside) * t
        if chunk.weight is not None:
            of_inside = chunk.weight[inside]
            p, surprise, hit, missed = p * chunk.weight, surprise * chunk.weight, hit * of_inside, missed * of_inside
        of_lesions = index[inside]
        for row, values, where in ((0, hit, of_lesions), (1, p, index), (2, missed, of_lesions), (3, surprise, index)):
            totals[row] += add_by_index(values, where, len(voxels), kind)
        voxels += add_by_index(torch.ones_like(p), index, len(voxels), kind)
    return totals[:, :-1].contiguous(), voxels[:-1].contiguous()


def gradient(
    upstream: Tensor,
    logits: Tensor,
    target: Tensor,
    regions: Tensor,
    offsets: Tensor,
    weight: Tensor | None,
    how: Reading,
) -> Tensor:
    """Return d(Σ upstream·sums)/d(logits) for `upstream` (ROWS, 2·places)."""
    settings = _settings(how)
    if compiled.takes_lesions(logits, target, regions, weight, upstream.shape[1] // 2, settings):
        return compiled.lesions_gradient(upstream, logits, target, regions, offsets, weight, None, settings)
    if compiled.takes_odds(logits, target, regions, weight, upstream.shape[1] // 2):
        given = (logits, target, regions, offsets, weight)
        return compiled.odds_gradient(upstream, *given, settings, by_channel=how.by_channel)
    result = empty_gradient(logits)
    flat = result.view(*logits.shape[:2], math.prod(logits.shape[2:]))
    slopes = torch.cat([upstream, upstream.new_zeros(ROWS, 1)], 1).to(working_type(logits))
    for chunk in _chunks(logits, target, regions, offsets, weight, upstream.shape[1], how):
        z, index, inside, t = log_odds(chunk.x, how.activation), chunk.index, chunk.inside, chunk.t
        p, q = torch.sigmoid(z).flatten(), torch.sigmoid(-z).flatten()
        hit, _, missed, surprise = slopes[:, index[inside]]
        of_inside = q[inside] * t * (p[inside] * (hit - missed) - surprise)
        slope = slopes[1].index_select(0, index).mul_(q).add_(slopes[3].index_select(0, index)).mul_(p)
        slope[inside] = slope[inside] * (1 - t) + of_inside
        if chunk.weight is not None:
            slope = slope * chunk.weight
        flat[chunk.place] = through_log_odds(slope.view(z.shape), chunk.x, how.activation)[0]
    return result


def composite(
    logits: Tensor, target: Tensor, regions: Tensor, offsets: Tensor, weight: Tensor | None, places: int, how: Reading
) -> tuple[Tensor, Tensor]:
    """Return the same as `sums`, in operations that torch differentiates by itself."""
    kind = total_type(logits)
    chunk = _read(
        (0, slice(None), slice(None)),
        logits.flatten(2),
        target.flatten(2 if how.dense else 1),
        regions.flatten(2),
        offsets,
        None if weight is None else weight.flatten(1),
        2 * places,
        how,
    )
    z = log_odds(chunk.x, how.activation).flatten()
    t = torch.zeros(z.shape, dtype=z.dtype, device=z.device).index_put((chunk.inside,), chunk.t)
    p, q = torch.sigmoid(z), torch.sigmoid(-z)
    rows = [p * t, p * (1 - t), q * t, _surprise(z, t)]
    if chunk.weight is not None:
        rows = [row * chunk.weight for row in rows]
    empty = torch.zeros(2 * places + 1, dtype=kind, device=logits.device)
    totals = torch.stack([empty.index_add(0, chunk.index, row.to(kind)) for row in rows])
    voxels = empty.index_add(0, chunk.index, torch.ones_like(chunk.index, dtype=kind))
    return totals[:, :-1], voxels[:-1]


def _settings(how: Reading) -> PassSettings:
    return PassSettings(how.activation, how.dense, (), how.ignore_index, False)


@dataclass(frozen=True)
class _Chunk:
    """A piece of one sample, or whole tensors.

    Logits `x` (B, C, n) are 0 where a voxel does not count: what is there, NaN too, must not get out. Of the classes
    that can have lesions, flat: where each voxel is summed, the voxels `inside` with a target above 0, their targets
    `t`, and the weight of each.
    """

    place: tuple[int, slice, slice]  # in (B, C, n)
    x: Tensor
    index: Tensor
    inside: Tensor
    t: Tensor
    weight: Tensor | None


def _chunks(
    logits: Tensor,
    target: Tensor,
    regions: Tensor,
    offsets: Tensor,
    weight: Tensor | None,
    outside: int,
    how: Reading,
) -> Iterator[_Chunk]:
    """Pieces of one sample each, so that a long volume takes little memory."""
    flat, of_regions = logits.flatten(2), regions.flatten(2)
    flat_target = target.flatten(2 if how.dense else 1)
    flat_weight = None if weight is None else weight.flatten(1)
    voxels, classes = flat.shape[2], flat.shape[1]
    room = CPU_CHUNK if logits.device.type == "cpu" else DEVICE_CHUNK
    size = max(1, min(voxels, room // (_BUFFERS * classes)))
    for b in range(len(flat)):
        sample = slice(b, b + 1)
        for begin in range(0, voxels, size):
            span = slice(begin, begin + size)
            yield _read(
                (b, slice(None), span),
                flat[sample, :, span],
                flat_target[sample, ..., span],
                of_regions[sample, :, span],
                offsets[sample],
                None if flat_weight is None else flat_weight[sample, span],
                outside,
                how,
            )


def _read(
    place: tuple[int, slice, slice],
    logits: Tensor,
    target: Tensor,
    regions: Tensor,
    offsets: Tensor,
    weight: Tensor | None,
    outside: int,
    how: Reading,
) -> _Chunk:
    x = logits.to(working_type(logits))
    targets, counted = how.targets(target, logits.shape[1])
    inside = targets.flatten().nonzero().squeeze(1)
    t = targets.flatten()[inside].to(x.dtype)
    index = torch.add(2 * offsets[:, :, None], regions, alpha=2).flatten()
    index[inside] += (t >= INSIDE).to(index.dtype)
    if counted is not None:
        x = torch.where(counted, x, 0)
        index = torch.where(counted, index.view(targets.shape), outside).flatten()
    if weight is not None:
        weight = weight[:, None].to(x.dtype).expand(targets.shape)
        weight = (weight if counted is None else torch.where(counted, weight, 0)).flatten()
    return _Chunk(place, x, index, inside, t, weight)


def _surprise(z: Tensor, t: Tensor) -> Tensor:
    """-t·log p - (1-t)·log(1-p), exact where either is tiny."""
    return z.clamp_min(0) - t * z + torch.log1p(torch.exp(-z.abs()))
