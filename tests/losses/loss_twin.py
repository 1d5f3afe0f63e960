"""A slow plain twin of the losses, written from the definitions: float64, one-hot, autograd, a loop per class.

It shares no code with the package, and takes its options by the names that the package uses.
"""

import itertools
import math

import torch
from skimage.morphology import skeletonize


def one_hot(labels, classes):
    """(B, C, *spatial) from labels (B, *spatial)."""
    return torch.stack([(labels == c).double() for c in range(classes)], dim=1)


def probabilities(logits, activation):
    """p and log p and log(1-p)."""
    logits = logits.double()
    if activation == "sigmoid":
        return torch.sigmoid(logits), torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
    log_p = torch.log_softmax(logits, dim=1)
    return log_p.exp(), log_p, None


def sums(p, t, w, pool, overlap="product"):
    """TP, FP, FN of shape (B or 1, C)."""
    spatial = tuple(range(2, p.ndim))
    if overlap == "minimum":  # by Σ|p - t|, as Wang et al. write it
        distance = (p - t).abs()
        parts = [(p + t - distance) / 2, (p - t + distance) / 2, (t - p + distance) / 2]
    elif overlap == "squared":  # of the Dice index 2 Σ p t / (Σ p² + Σ t²)
        parts = [p * t, p**2 - p * t, t**2 - p * t]
    else:
        parts = [p * t, p * (1 - t), (1 - p) * t]
    parts = [(part * w).sum(spatial) for part in parts]
    return [part.sum(0, keepdim=True) for part in parts] if pool == "batch" else parts


def region(
    logits,
    target,
    keep,
    weight,
    value,
    *,
    background=None,
    activation="softmax",
    delta=0.5,
    smooth=1e-6,
    pool="sample",
    class_reduction="sum",
    include_background=True,
    absent_class="keep",
    ignored_samples="skip",
    overlap="product",
):
    """mean over the batch of the reduction over classes of value(index), for the background of `background`(index)."""
    if include_background is None:
        include_background = activation == "sigmoid"
    p, _, _ = probabilities(logits, activation)
    w = keep[:, None].double() * weight[:, None]
    tp, fp, fn = sums(p, target, w, pool, overlap)
    size = (target * w).sum(tuple(range(2, p.ndim)))
    counted = keep.flatten(1).sum(1)
    if pool == "batch":
        size, counted = size.sum(0, keepdim=True), counted.sum(0, keepdim=True)
    total = torch.zeros((), dtype=torch.float64)
    for b in range(tp.shape[0]):
        if counted[b] == 0:
            continue
        values = []
        for c in range(0 if include_background else 1, tp.shape[1]):
            if absent_class == "skip" and size[b, c] == 0:
                continue
            index = (tp[b, c] + smooth) / (tp[b, c] + delta * fn[b, c] + (1 - delta) * fp[b, c] + smooth)
            values.append((value if c > 0 or background is None or activation == "sigmoid" else background)(index))
        if values:
            total = total + (sum(values) / len(values) if class_reduction == "mean" else sum(values))
    return total / samples(counted, ignored_samples)


def samples(counted, ignored_samples):
    """How many samples the mean over the batch is over."""
    return len(counted) if ignored_samples == "keep" else max(1, sum(number > 0 for number in counted.tolist()))


def pixelwise(
    logits,
    target,
    keep,
    weight,
    *,
    activation="softmax",
    alpha=1.0,
    gamma=0.0,
    beta=None,
    foreground_gamma=None,
    label_smoothing=0.0,
):
    """Weighted focal terms over the number of counted voxels; `foreground_gamma` where it is not the background's."""
    sides = 2 if activation == "sigmoid" else logits.shape[1]
    target = target + label_smoothing * (1 / sides - target)
    p, log_p, log_q = probabilities(logits, activation)
    w = keep[:, None].double() * weight[:, None]
    classes = p.shape[1]
    total = torch.zeros((), dtype=torch.float64)
    for c in range(classes):
        a = alpha[c] if isinstance(alpha, list | tuple) else alpha
        g = gamma[c] if isinstance(gamma, list | tuple) else gamma
        if activation == "sigmoid":
            inside, outside = (1.0, 1.0) if beta is None else (beta, 1 - beta)
            side = outside * (1 - target[:, c]) * p[:, c] ** g * -log_q[:, c] * w[:, 0]
            total = total + a * side.sum()
        else:
            inside = 1.0 if beta is None else (1 - beta if c == 0 else beta)
        if foreground_gamma is not None and (activation == "sigmoid" or c > 0):
            g = foreground_gamma
        total = total + a * inside * (target[:, c] * (1 - p[:, c]) ** g * -log_p[:, c] * w[:, 0]).sum()
    return total / max(1, int(keep.sum()))


def generalised_dice(
    logits,
    target,
    keep,
    weight,
    power,
    *,
    activation="softmax",
    smooth=1e-6,
    pool="sample",
    include_background=True,
    absent_class="keep",
    ignored_samples="skip",
    class_reduction=None,
    overlap="product",
):
    """mean over the batch of 1 - Σ w TP / Σ w (TP + (FN + FP) / 2), w = (V_min / V)^power."""
    if include_background is None:
        include_background = activation == "sigmoid"
    p, _, _ = probabilities(logits, activation)
    tp, fp, fn = sums(p, target, keep[:, None].double() * weight[:, None], pool, overlap)
    size = (target * keep[:, None] * weight[:, None]).sum(tuple(range(2, p.ndim)))
    counted = keep.flatten(1).sum(1)
    if pool == "batch":
        size, counted = size.sum(0, keepdim=True), counted.sum(0, keepdim=True)
    total = torch.zeros((), dtype=torch.float64)
    for b in range(tp.shape[0]):
        classes = range(0 if include_background else 1, tp.shape[1])
        present = [float(size[b, c]) for c in classes if size[b, c] > 0]
        if counted[b] == 0 or (not present and absent_class == "skip"):
            continue
        above, below = smooth, smooth
        for c in classes:
            w = 1.0 if absent_class == "keep" else 0.0
            if size[b, c] > 0:
                w = (min(present) / float(size[b, c])) ** power
            above = above + w * tp[b, c]
            below = below + w * (tp[b, c] + (fn[b, c] + fp[b, c]) / 2)
        total = total + 1 - above / below
    return total / samples(counted, ignored_samples)


def matthews(
    logits,
    target,
    keep,
    weight,
    *,
    activation="softmax",
    smooth=1e-7,
    pool="sample",
    class_reduction="mean",
    include_background=None,
    absent_class="keep",
    ignored_samples="skip",
    overlap=None,
):
    """mean over the batch of the reduction over classes of 1 - MCC, from the four sums."""
    if include_background is None:
        include_background = activation == "sigmoid"
    p, _, _ = probabilities(logits, activation)
    w, axes = keep[:, None].double() * weight[:, None], tuple(range(2, logits.ndim))
    parts = [p * target, p * (1 - target), (1 - p) * target, (1 - p) * (1 - target), target]
    parts = [(part * w).sum(axes) for part in parts]
    counted = keep.flatten(1).sum(1)
    if pool == "batch":
        parts, counted = [part.sum(0, keepdim=True) for part in parts], counted.sum(0, keepdim=True)
    total = torch.zeros((), dtype=torch.float64)
    for b in range(len(counted)):
        if counted[b] == 0:
            continue
        values = []
        for c in range(0 if include_background else 1, p.shape[1]):
            tp, fp, fn, tn, size = (part[b, c] for part in parts)
            if absent_class == "skip" and size == 0:
                continue
            root = torch.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn) + smooth)
            perfect = fp == 0 and fn == 0
            values.append(0 * tp if perfect else 1 - (tp * tn - fp * fn) / root)
        if values:
            total = total + (sum(values) / len(values) if class_reduction == "mean" else sum(values))
    return total / samples(counted, ignored_samples)


def tube(mask):
    """The skeleton of scikit-image, widened twice by the voxels that share a face, inside the mask.

    Axes of one voxel do not count as dimensions.
    """
    shape, mask = mask.shape, mask.squeeze()
    if mask.ndim < 2:
        mask = mask.reshape(1, -1)
    wide = torch.from_numpy(skeletonize(mask.numpy()) > 0)
    for _ in range(2):
        shifted = [wide]
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            moved = torch.zeros_like(wide)
            length = mask.shape[axis] - 1
            to, source = (1, 0) if step > 0 else (0, 1)
            moved.narrow(axis, to, length).copy_(wide.narrow(axis, source, length))
            shifted.append(moved)
        wide = torch.stack(shifted).any(0)
    return (wide & mask).reshape(shape)


def skeleton_recall(
    logits,
    target,
    keep,
    weight,
    *,
    activation="softmax",
    smooth=1e-5,
    pool="batch",
    class_reduction="mean",
    include_background=None,
    absent_class="keep",
    ignored_samples="skip",
    overlap=None,
):
    """mean over the batch of the reduction over classes of Σ k p t / Σ k t, k around the skeleton."""
    if include_background is None:
        include_background = activation == "sigmoid"
    p, _, _ = probabilities(logits, activation)
    inside = (target >= 0.5) & keep[:, None]
    if activation == "softmax":
        masks = torch.stack([tube(mask[1:].any(0)) for mask in inside])[:, None].expand_as(inside)
    else:
        masks = torch.stack([torch.stack([tube(mask) for mask in masks]) for masks in inside])
    w, axes = keep[:, None].double() * weight[:, None], tuple(range(2, logits.ndim))
    parts = [(part * w).sum(axes) for part in (masks * p * target, masks * target, target)]
    counted = keep.flatten(1).sum(1)
    if pool == "batch":
        parts, counted = [part.sum(0, keepdim=True) for part in parts], counted.sum(0, keepdim=True)
    total = torch.zeros((), dtype=torch.float64)
    for b in range(len(counted)):
        if counted[b] == 0:
            continue
        values = []
        for c in range(0 if include_background else 1, p.shape[1]):
            found, there, size = (part[b, c] for part in parts)
            if absent_class == "keep" or size > 0:
                values.append((found + smooth) / (there + smooth))
        if values:
            total = total + (sum(values) / len(values) if class_reduction == "mean" else sum(values))
    return total / samples(counted, ignored_samples)


def extreme(values, keep, offsets, best):
    """The least or largest (`best`) of the values at the offsets from each voxel, of those that count."""
    found = []
    for offset in offsets:
        moved, seen = values, keep
        for axis, step in enumerate(offset):
            moved, seen = torch.roll(moved, step, axis), torch.roll(seen, step, axis)
            if step:
                edge = [slice(None)] * values.ndim
                edge[axis] = 0 if step > 0 else -1
                seen = seen.clone()
                seen[tuple(edge)] = False
        worst = torch.full_like(moved, torch.inf if best is torch.amin else -torch.inf)
        found.append(torch.where(seen, moved, worst))
    return best(torch.stack(found), 0)


def soft_skeleton(values, keep, iterations):
    """By Shit et al.'s algorithm 1, with both minima of each turn, on one volume; inf where a voxel does not count."""
    box = list(itertools.product((-1, 0, 1), repeat=values.ndim))
    cross = [offset for offset in box if sum(map(abs, offset)) <= 1]
    skeleton = torch.zeros_like(values)
    for turn in range(iterations + 1):
        if turn:
            values = torch.where(keep, extreme(values, keep, cross, torch.amin), 0)
        opened = extreme(torch.where(keep, extreme(values, keep, cross, torch.amin), 0), keep, box, torch.amax)
        delta = torch.relu(torch.where(keep, values - opened, 0))
        skeleton = delta if turn == 0 else skeleton + torch.relu(delta - skeleton * delta)
    return skeleton


def centre_lines(
    logits,
    target,
    keep,
    weight,
    iterations,
    *,
    activation="softmax",
    smooth=1.0,
    pool="batch",
    class_reduction="mean",
    include_background=None,
    absent_class="keep",
    ignored_samples="skip",
):
    """mean over the batch of the reduction over classes of 1 - clDice, a loop over samples and classes."""
    if include_background is None:
        include_background = activation == "sigmoid"
    p, _, _ = probabilities(logits, activation)
    first, classes = 0 if include_background else 1, p.shape[1]
    w = keep.double() * weight
    sums = torch.zeros(len(p), classes, 5, dtype=torch.float64)
    rows = []
    for b in range(len(p)):
        for c in range(first, classes):
            q, t = p[b, c], target[b, c]
            line, wanted = soft_skeleton(q, keep[b], iterations), soft_skeleton(t, keep[b], iterations)
            rows.append(torch.stack([(part * w[b]).sum() for part in (line * t, line, wanted * q, wanted, t)]))
    if rows:
        sums = torch.stack(rows).view(len(p), classes - first, 5)
    counted = keep.flatten(1).sum(1)
    if pool == "batch":
        sums, counted = sums.sum(0, keepdim=True), counted.sum(0, keepdim=True)
    total = torch.zeros((), dtype=torch.float64)
    for b in range(len(counted)):
        if counted[b] == 0:
            continue
        values = []
        for covered, line, found, wanted, size in sums[b]:
            if absent_class == "skip" and size == 0:
                continue
            precision, sensitivity = (covered + smooth) / (line + smooth), (found + smooth) / (wanted + smooth)
            values.append(1 - 2 * precision * sensitivity / (precision + sensitivity))
        if values:
            total = total + (sum(values) / len(values) if class_reduction == "mean" else sum(values))
    return total / samples(counted, ignored_samples)


def calibration(
    logits,
    target,
    keep,
    weight,
    bins,
    *,
    activation="softmax",
    smooth=None,
    pool="sample",
    class_reduction="mean",
    include_background=True,
    absent_class=None,
    ignored_samples="skip",
    overlap=None,
):
    """mean over the batch of the reduction over present classes of the average calibration error, voxel by voxel."""
    if include_background is None:
        include_background = activation == "sigmoid"
    p, _, _ = probabilities(logits, activation)
    groups = [list(range(len(p)))] if pool == "batch" else [[b] for b in range(len(p))]
    total, counted = torch.zeros((), dtype=torch.float64), []
    for group in groups:
        seen = keep[group]
        counted.append(int(seen.sum()))
        values = []
        for c in range(0 if include_background else 1, p.shape[1]):
            q, t, w = (tensor[seen] for tensor in (p[group, c], target[group, c], weight[group]))
            if (w * t).sum() == 0:
                continue
            errors, numbers = [0.0] * bins, [0.0] * bins
            for one, wanted, share in zip(q, t, w, strict=True):
                k = max(0, math.ceil(float(one.detach()) * bins) - 1)
                errors[k], numbers[k] = errors[k] + share * (one - wanted), numbers[k] + float(share)
            each = [abs(e) / n for e, n in zip(errors, numbers, strict=True) if n > 0]
            values.append(sum(each) / len(each))
        if values:
            total = total + (sum(values) / len(values) if class_reduction == "mean" else sum(values))
    return total / samples(torch.tensor(counted), ignored_samples)


def components(mask):
    """Masks of the connected components, by face, edge or corner: flood from the first voxel that is left."""
    left, found = {tuple(place) for place in mask.nonzero().tolist()}, []
    while left:
        front = [min(left)]
        left.discard(front[0])
        component = torch.zeros_like(mask)
        while front:
            place = front.pop()
            component[place] = True
            for offset in itertools.product((-1, 0, 1), repeat=mask.ndim):
                neighbour = tuple(p + o for p, o in zip(place, offset, strict=True))
                if neighbour in left:
                    left.discard(neighbour)
                    front.append(neighbour)
        found.append(component)
    return found


def nearest(masks):
    """Masks of the voxels that are nearest to each mask, at equal distance those of the first: by all distances."""
    places = torch.stack(torch.meshgrid(*map(torch.arange, masks[0].shape), indexing="ij"), -1).flatten(0, -2)
    distances = [((places[:, None] - mask.nonzero()) ** 2).sum(2).amin(1) for mask in masks]
    closest = torch.stack(distances).argmin(0).view(masks[0].shape)
    return [closest == k for k in range(len(masks))]


def lesions(
    logits,
    target,
    keep,
    weight,
    domain,
    *,
    activation="softmax",
    entropy=1.0,
    smooth=0.0,
    include_background=None,
    class_reduction="mean",
    absent_class="keep",
    ignored_samples="skip",
    **_,
):
    """mean over samples, classes and lesions of 1 - Dice + entropy · mean binary cross entropy: a loop over lesions."""
    p = probabilities(logits, activation)[0]
    first = 1 if activation == "softmax" or include_background is False else 0
    total, samples = torch.zeros((), dtype=torch.float64), 0
    for b in range(p.shape[0]):
        values = []
        for c in range(first, p.shape[1]):
            found = components((target[b, c] >= 0.5) & keep[b])
            if domain == "region" and found:
                domains = nearest(found)
            else:
                every = torch.stack(found).any(0) if found else None
                domains = [mask | ~every for mask in found]
            if not found and absent_class == "keep":
                domains = [torch.ones_like(keep[b])]
            costs = []
            for mask in domains:
                inside = mask & keep[b]
                q, t, w = p[b, c][inside], target[b, c][inside], weight[b][inside]
                dice = (2 * (w * q * t).sum() + smooth) / ((w * q).sum() + (w * t).sum() + smooth).clamp_min(1e-8)
                cross = -(t * q.log() + (1 - t) * (1 - q).log())
                costs.append(1 - dice + entropy * (w * cross).sum() / max(1, len(w)))
            if costs and keep[b].any():
                values.append(sum(costs) / len(costs))
        if values:
            total = total + (sum(values) / len(values) if class_reduction == "mean" else sum(values))
        if values or (ignored_samples == "keep" and not keep[b].any()):
            samples += 1
    return total / max(1, samples)


def signed_distances(inside, outside):
    """To the nearest voxel inside, or less 1 and negative to the nearest outside: by all distances."""
    places = torch.stack(torch.meshgrid(*map(torch.arange, inside.shape), indexing="ij"), -1).flatten(0, -2).double()
    if not inside.any() or not outside.any():
        return torch.zeros(inside.shape, dtype=torch.float64)
    to_inside, to_outside = (
        ((places[:, None] - mask.nonzero()) ** 2).sum(2).amin(1).sqrt().view(mask.shape) for mask in (inside, outside)
    )
    return torch.where(inside, 1 - to_outside, to_inside)


def of_classes(costs, sizes, voxels, first, class_reduction, absent_class, ignored_samples):
    """mean over the samples that count of the costs [sample][class], which are tensors, reduced over classes."""
    total = torch.zeros((), dtype=torch.float64)
    for values, volumes, number in zip(costs, sizes, voxels, strict=True):
        kept = [v for v, n in zip(values[first:], volumes[first:], strict=True) if absent_class == "keep" or n > 0]
        if number and kept:
            total = total + (sum(kept) / len(kept) if class_reduction == "mean" else sum(kept))
    return total / samples(torch.tensor(voxels), ignored_samples)


def by_group(pool, batch):
    """The samples that are taken together."""
    return [list(range(batch))] if pool == "batch" else [[b] for b in range(batch)]


def boundary(
    logits,
    target,
    keep,
    weight,
    *,
    activation="softmax",
    pool="sample",
    include_background=None,
    class_reduction="mean",
    absent_class="keep",
    ignored_samples="skip",
    **_,
):
    """mean of p times the signed distance."""
    p = probabilities(logits, activation)[0]
    first = 1 if include_background is False or (include_background is None and activation == "softmax") else 0
    costs, sizes, voxels = [], [], []
    for group in by_group(pool, len(p)):
        number = int(keep[group].sum())
        row, volumes = [], []
        for c in range(p.shape[1]):
            total = torch.zeros((), dtype=torch.float64)
            for b in group:
                inside = (target[b, c] >= 0.5) & keep[b]
                phi = signed_distances(inside, keep[b] & ~inside)
                total = total + (p[b, c] * phi * weight[b])[keep[b]].sum()
            volumes.append(float((target[group, c] * keep[group] * weight[group]).sum()))
            row.append(total / max(1, number) if volumes[-1] > 0 else 0 * total)
        costs.append(row)
        sizes.append(volumes)
        voxels.append(number)
    return of_classes(costs, sizes, voxels, first, class_reduction, absent_class, ignored_samples)


def hausdorff(
    logits,
    target,
    keep,
    weight,
    alpha,
    *,
    activation="softmax",
    pool="sample",
    include_background=None,
    class_reduction="mean",
    absent_class="keep",
    ignored_samples="skip",
    **_,
):
    """mean of the squared error times the distances to the other side of both borders."""
    p = probabilities(logits, activation)[0]
    first = 1 if include_background is False or (include_background is None and activation == "softmax") else 0
    costs, sizes, voxels = [], [], []
    for group in by_group(pool, len(p)):
        number = int(keep[group].sum())
        row, volumes = [], []
        for c in range(p.shape[1]):
            total = torch.zeros((), dtype=torch.float64)
            for b in group:
                inside = (target[b, c] >= 0.5) & keep[b]
                factor = 0
                for mask in (inside, p[b, c] > 0.5):
                    phi = signed_distances(mask & keep[b], keep[b] & ~mask)
                    factor = factor + torch.where(mask & (phi <= 0) & phi.any(), 1 - phi, phi) ** alpha
                total = total + ((p[b, c] - inside.double()) ** 2 * factor * weight[b])[keep[b]].sum()
            volumes.append(float((target[group, c] * keep[group] * weight[group]).sum()))
            row.append(total / max(1, number))
        costs.append(row)
        sizes.append(volumes)
        voxels.append(number)
    return of_classes(costs, sizes, voxels, first, class_reduction, absent_class, ignored_samples)


def jaccard_loss(missed, excess, volume):
    """1 - intersection over union of a prediction with these weights of missed voxels and false positives."""
    return (missed + excess) / (volume + excess) if volume + excess > 0 else 0.0


def lovasz(
    logits,
    target,
    keep,
    weight,
    *,
    activation="softmax",
    pool="batch",
    include_background=True,
    class_reduction="mean",
    absent_class="skip",
    ignored_samples="skip",
    **_,
):
    """The Lovász extension from its definition: the loss of each set of the largest errors, one voxel after another."""
    p = probabilities(logits, activation)[0]
    first = 1 if include_background is False or (include_background is None and activation == "softmax") else 0
    costs, sizes, voxels = [], [], []
    for group in by_group(pool, len(p)):
        row, volumes = [], []
        counted = keep[group].flatten()
        for c in range(p.shape[1]):
            q, w = p[group, c].flatten()[counted], weight[group].flatten()[counted].tolist()
            inside = (target[group, c] >= 0.5).flatten()[counted]
            error = torch.where(inside, 1 - q, q)
            volume = sum(x for x, own in zip(w, inside.tolist(), strict=True) if own)
            missed = excess = before = 0.0
            total = torch.zeros((), dtype=torch.float64)
            for k in sorted(range(len(w)), key=lambda k, error=error: -float(error[k].detach())):
                missed, excess = missed + w[k] * bool(inside[k]), excess + w[k] * (not inside[k])
                now = jaccard_loss(missed, excess, volume)
                total, before = total + error[k] * (now - before), now
            row.append(total)
            volumes.append(float((target[group, c] * keep[group] * weight[group]).sum()))
        costs.append(row)
        sizes.append(volumes)
        voxels.append(int(counted.sum()))
    return of_classes(costs, sizes, voxels, first, class_reduction, absent_class, ignored_samples)


def hardest(logits, target, keep, weight, top_k, *, activation="softmax", pool="batch", label_smoothing=0.0):
    """The mean of the largest cross entropies, of a list that is sorted."""
    sides = 2 if activation == "sigmoid" else logits.shape[1]
    t = target + label_smoothing * (1 / sides - target)
    _, log_p, log_q = probabilities(logits, activation)
    each = -(t * log_p + ((1 - t) * log_q if activation == "sigmoid" else 0)).sum(1) * weight
    total, number = torch.zeros((), dtype=torch.float64), 0
    for group in by_group(pool, len(logits)):
        values = each[group][keep[group]].sort(descending=True).values
        if len(values):
            chosen = max(1, int(len(values) * top_k / 100))
            total, number = total + values[:chosen].sum(), number + chosen
    return total / max(1, number)


def twin(name, logits, target, keep=None, weight=None, *, activation="softmax", parameters=None, options=None):
    """The loss `name` on targets (B, C, *spatial), with counted voxels `keep` and `weight` (B, *spatial)."""
    parameters, given, options = parameters or {}, dict(options or {}), dict(options or {})
    smoothing = options.pop("label_smoothing", 0.0)
    shape = (logits.shape[0], *logits.shape[2:])
    keep = torch.ones(shape, dtype=torch.bool) if keep is None else keep
    weight = torch.ones(shape, dtype=torch.float64) if weight is None else weight.double()
    target = torch.where(keep[:, None], target.double(), 0.0)
    logits = torch.where(keep[:, None], logits.double(), 0.0)

    def pixel(**chosen):
        return pixelwise(logits, target, keep, weight, activation=activation, label_smoothing=smoothing, **chosen)

    def area(value, delta, **defaults):
        chosen = {**defaults, **options}
        return region(logits, target, keep, weight, value, activation=activation, delta=delta, **chosen)

    get = parameters.get
    if name == "cross_entropy":
        return pixel(beta=get("beta"))
    if name == "focal":
        return pixel(alpha=get("alpha", 0.25), gamma=get("gamma", 2), beta=get("beta"))
    if name == "dice":
        return area(lambda index: 1 - index, 0.5)
    if name == "tversky":
        return area(lambda index: 1 - index, get("delta", 0.7))
    if name == "focal_tversky":
        return area(lambda index: (1 - index) ** (1 / get("gamma", 4 / 3)), get("delta", 0.7))
    if name == "cosine_tversky":
        return area(lambda index: torch.cos(math.pi / 2 * index) ** get("gamma", 1), get("delta", 0.7))
    if name == "combo":
        dice = area(lambda index: index, 0.5, class_reduction="mean")
        entropy = pixel(beta=get("beta"))
        alpha = get("alpha")
        return entropy - dice if alpha is None else alpha * entropy - (1 - alpha) * dice
    if name == "modified_combo":
        alpha = get("alpha", 0.5)
        overlap = area(lambda index: 1 - index, get("delta", 0.7))
        return alpha * pixel(beta=get("beta", 0.5)) + (1 - alpha) * overlap
    if name == "mixed_focal":
        focal = pixel(alpha=get("alpha", 0.25), gamma=get("gamma_focal", 2), beta=get("beta"))
        overlap = area(lambda index: (1 - index) ** (1 / get("gamma_tversky", 4 / 3)), get("delta", 0.7))
        return mixed(get("weight"), focal, overlap)
    if name == "asymmetric_focal_tversky":
        gamma = get("gamma", 0.75)
        return area(lambda index: (1 - index) ** (1 - gamma), get("delta", 0.7), background=lambda index: 1 - index)
    if name == "generalised_dice":
        return generalised_dice(logits, target, keep, weight, get("power", 2), activation=activation, **options)
    if name == "log_cosh_dice":
        return area(lambda index: torch.log(torch.cosh(1 - index)), 0.5)
    if name == "jaccard":
        return area(lambda index: 1 - index / (2 - index), 0.5)
    if name == "mcc":
        mean = {"class_reduction": "mean", "pool": "batch", "include_background": None}
        chosen = mean | options
        return matthews(logits, target, keep, weight, activation=activation, **chosen)
    if name == "unified_focal":
        delta, gamma = get("delta", 0.6), get("gamma", 0.5)
        overlap = area(lambda index: (1 - index) ** (1 - gamma), delta)
        return mixed(get("weight", 0.5), pixel(gamma=gamma, beta=delta), overlap)
    if name == "asymmetric_unified_focal":
        delta, gamma = get("delta", 0.6), get("gamma", 0.5)
        overlap = area(lambda index: (1 - index) ** (1 - gamma), delta, background=lambda index: 1 - index)
        return mixed(get("weight", 0.5), pixel(gamma=gamma, beta=delta, foreground_gamma=0), overlap)
    if name == "dice_focal":
        focal = pixel(alpha=get("alpha", 1), gamma=get("gamma", 2), beta=get("beta"))
        return mixed(get("weight"), focal, area(lambda index: 1 - index, 0.5, class_reduction="mean"))
    if name == "dice_cross_entropy":
        nnunets = {"class_reduction": "mean", "pool": "batch", "include_background": None}
        chosen = {**options, "smooth": options.get("smooth", 1e-5) / 2}  # on TP instead of 2·TP
        dice = region(logits, target, keep, weight, lambda index: index, activation=activation, **{**nnunets, **chosen})
        return pixel() / (logits.shape[1] if activation == "sigmoid" else 1) - dice
    if name == "skeleton_recall":
        dice = twin("dice_cross_entropy", logits, target, keep, weight, activation=activation, options=given)
        recall = skeleton_recall(logits, target, keep, weight, activation=activation, **options)
        return dice - get("recall_weight", 1) * recall
    if name == "ml1_ace":
        chosen = {"class_reduction": "mean", "overlap": "squared", "smooth": 1e-5, **options}
        dice = region(logits, target, keep, weight, lambda index: 1 - index, activation=activation, **chosen)
        error = calibration(logits, target, keep, weight, get("bins", 20), activation=activation, **chosen)
        entropy = pixel() / (logits.shape[1] if activation == "sigmoid" else 1)
        return entropy + dice + get("ace_weight", 1) * error
    if name == "cl_dice":
        chosen = {"class_reduction": "mean", "pool": "batch", "include_background": None, "smooth": 1.0, **options}
        alpha, lines = get("alpha", 0.5), {key: value for key, value in chosen.items() if key != "overlap"}
        dice = {**chosen, "smooth": chosen["smooth"] / 2}
        dice = region(logits, target, keep, weight, lambda index: 1 - index, activation=activation, **dice)
        lines = centre_lines(logits, target, keep, weight, get("iterations", 10), activation=activation, **lines)
        return (1 - alpha) * dice + alpha * lines
    if name in PER_LESION:
        blob = name == "blob"
        entropy = get("entropy_weight", 1) if blob else 1
        smooth = options.get("smooth", 1e-5 if blob else 0)
        shared = {"activation": activation, **options}
        of_volume = {"class_reduction": "mean", "include_background": None, "pool": "sample" if blob else "batch"}
        value = (lambda index: 1 - index) if blob else (lambda index: -index)
        dice = region(logits, target, keep, weight, value, **{**of_volume, **shared, "smooth": smooth / 2})
        cross = pixel() / (logits.shape[1] if activation == "sigmoid" else 1)
        domain = "blob" if blob else "region"
        of_lesions = {**shared, "smooth": smooth} | ({"absent_class": "skip"} if blob else {})
        each = lesions(logits, target, keep, weight, domain, entropy=entropy, **of_lesions)
        return get("global_weight", 1) * (entropy * cross + dice) + get("lesion_weight", 1) * each
    if name == "boundary":
        return boundary(logits, target, keep, weight, activation=activation, **options)
    if name == "hausdorff":
        return hausdorff(logits, target, keep, weight, get("alpha", 2), activation=activation, **options)
    if name == "lovasz":
        return lovasz(logits, target, keep, weight, activation=activation, **options)
    if name in ("topk", "dice_topk"):
        chosen = {"pool": options.get("pool", "batch"), "label_smoothing": smoothing}
        entropy = hardest(logits, target, keep, weight, get("top_k", 10), activation=activation, **chosen)
        if name == "topk":
            return entropy
        rest = twin("dice_cross_entropy", logits, target, keep, weight, activation=activation, options=options)
        channels = logits.shape[1] if activation == "sigmoid" else 1
        return entropy / channels + rest - pixelwise(logits, target, keep, weight, activation=activation) / channels
    raise AssertionError(f"no twin of {name}")


PER_LESION = {"cc_dice_ce", "blob"}
OF_MAPS = {"boundary", "hausdorff", "lovasz"}  # of no sums that `overlap` and `label_smoothing` are of
SKELETONS = {"skeleton_recall"}
ONE_OVERLAP = {"mcc"}  # losses with a region term of products alone
PIXELWISE = {"cross_entropy", "focal", "topk"}
BOTH = {
    "combo",
    "modified_combo",
    "mixed_focal",
    "unified_focal",
    "asymmetric_unified_focal",
    "dice_focal",
    "dice_cross_entropy",
    "dice_topk",
    "skeleton_recall",
    "ml1_ace",
}
EQUAL_ERRORS = {"dice", "generalised_dice", "log_cosh_dice", "jaccard", "combo", "dice_focal"}
EQUAL_ERRORS |= SKELETONS | {"dice_cross_entropy", "dice_topk", "cl_dice", "ml1_ace"}
NEIGHBOURS = {"cl_dice"}  # losses of which a voxel's part depends on its neighbours


def accepts(name, options):
    """Whether the loss has what the options are of: a region term, equal weights of both errors, a pixelwise term."""
    overlap, smoothing = options.get("overlap") or "product", options.get("label_smoothing") or 0
    if name in PIXELWISE and (overlap != "product" or options.get("class_weight") is not None):
        return False
    if name in OF_MAPS and isinstance(options.get("class_weight"), str):
        return False
    if name in PER_LESION | OF_MAPS | ONE_OVERLAP:
        return overlap == "product" and smoothing == 0
    if overlap == "squared" and name not in EQUAL_ERRORS:
        return False
    return smoothing == 0 or name in PIXELWISE | BOTH


def mixed(share, first, second):
    """λ·first + (1-λ)·second, or their sum."""
    return first + second if share is None else share * first + (1 - share) * second


def nnunet(logits, labels, *, smooth=1e-5):
    """nnU-Net v2's DC_and_CE_loss with its defaults, rewritten from its definition: batch Dice, no background."""
    p = torch.softmax(logits.double(), dim=1)[:, 1:]
    t = one_hot(labels, logits.shape[1])[:, 1:]
    axes = (0, *range(2, logits.ndim))
    intersection, predicted, reference = (p * t).sum(axes), p.sum(axes), t.sum(axes)
    dice = (2 * intersection + smooth) / torch.clip(predicted + reference + smooth, 1e-8)
    return torch.nn.functional.cross_entropy(logits.double(), labels.long()) - dice.mean()
