"""Passes over the voxels in C, on a CPU: the sums of softmax against labels, and those over lesions of all targets.

For everything that they do not take, and where `library` has nothing, the pass in plain PyTorch stands in; both give
the same numbers up to rounding.
"""

import ctypes

import torch
from torch import Tensor

from voxloss.losses.voxel_pass import library, targets
from voxloss.losses.voxel_pass.plain import empty_gradient
from voxloss.losses.voxel_pass.settings import FALSE_NEGATIVE, TRUE_POSITIVE, PassSettings

# Numbers of the logits in a part, which one thread works on; with fewer, starting a part costs more of the time.
PART = 1 << 18
LARGEST_PART, BLOCK = 1 << 15, 256

# In the order of the source. True and False are 0 and 1 there; labels of half precision are widened.
_TYPES = [
    *(torch.float32, torch.float64, torch.bfloat16, torch.uint8, torch.int8, torch.uint16, torch.int16),
    *(torch.uint32, torch.int32, torch.uint64, torch.int64),
]
_SAME = {torch.bool: torch.uint8}
_WIDENED = (torch.float16, torch.bfloat16)
MOST_BINS = 256
MOST_PLACES = 1 << 20  # of regions in all parts together


def takes(logits: Tensor, target: Tensor, weight: Tensor | None, settings: PassSettings) -> bool:
    """Whether this pass computes these sums on this machine."""
    return (
        logits.device.type == "cpu"
        and target.dtype in (*_TYPES, *_SAME, *_WIDENED)
        and settings.against_labels
        and logits.dtype in (torch.float32, torch.bfloat16)
        and (weight is None or weight.dtype == torch.float32)
        and max(settings.bins, default=0) <= MOST_BINS
        and library.is_there()
    )


def sums(
    logits: Tensor, target: Tensor, weight: Tensor | None, settings: PassSettings, shares: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sums (B, S, C) in the order of `settings`, and counted voxels (B,); as `plain.sums`."""
    call = _Call(logits, target, weight, settings)
    call.add_shares(shares)
    totals = call.ask_sums(settings.rows)
    call.run_sums(target, weight, settings)
    return totals.sum(1), call.counted.sum(1).to(torch.float64)


def gradient(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    upstream: Tensor,
    settings: PassSettings,
    shares: Tensor | None = None,
) -> Tensor:
    """d(Σ upstream·sums)/d(logits) for `upstream` (B, S, C); as `plain.gradient`."""
    call = _Call(logits, target, weight, settings)
    call.add_shares(shares)
    call.add_upstream(upstream, settings)
    return call.gradient()


def surprise_bits(logits: Tensor, target: Tensor, weight: Tensor | None, settings: PassSettings) -> Tensor:
    """-log p of the label times the weight, as whole numbers of the same order, (B, n); -1 where it does not count."""
    call = _Call(logits, target, weight, settings)
    bits = torch.empty((call.batch, call.voxels), dtype=torch.int32)
    call.arguments.bits = bits.data_ptr()
    call.memory.append(bits)
    call.run("voxloss_surprise")
    return bits


def takes_bits(bits: Tensor) -> bool:
    """Whether `count_digits` and `shares` are compiled on this machine for such numbers."""
    return bits.device.type == "cpu" and bits.dtype == torch.int32 and bits.is_contiguous() and library.is_there()


def count_digits(bits: Tensor, shift: int, border: int) -> Tensor:
    """Count the values of the 16 bits from `shift` on, (2^16,), of what is not negative and has the border's above."""
    counts = torch.zeros(1 << 16, dtype=torch.int64)
    above = ctypes.c_int64(border >> (shift + 16))
    numbers = ctypes.c_void_p(bits.data_ptr()), ctypes.c_int64(bits.numel())
    library.load().voxloss_digits(*numbers, ctypes.c_int64(shift), above, ctypes.c_void_p(counts.data_ptr()))
    return counts


def shares(bits: Tensor, border: int, share: float) -> Tensor:
    """Return 1 for numbers above the border, `share` for those at it, 0 for the others; float32."""
    result = torch.empty(bits.shape, dtype=torch.float32)
    numbers = ctypes.c_void_p(bits.data_ptr()), ctypes.c_int64(bits.numel())
    limits = ctypes.c_int64(border), ctypes.c_double(share)
    library.load().voxloss_shares(*numbers, *limits, ctypes.c_void_p(result.data_ptr()))
    return result


def error_keys(logits: Tensor, target: Tensor, settings: PassSettings) -> Tensor:
    """Keys of the errors, (B, K, n), see `ordered.keys`; of two classes alone those of class 1."""
    call = _Call(logits, target, None, settings)
    classes = logits.shape[1]
    bits = torch.empty((call.batch, 1 if classes == 2 else classes, call.voxels), dtype=torch.int32)
    call.arguments.bits = bits.data_ptr()
    call.memory.append(bits)
    call.run("voxloss_errors")
    return bits


def takes_shares(logits: Tensor, shares: Tensor) -> bool:
    """Whether `gradient_of_shares` is compiled on this machine for these."""
    return logits.device.type == "cpu" and logits.dtype == shares.dtype == torch.float32 and library.is_there()


def gradient_of_shares(upstream: Tensor, logits: Tensor, shares: Tensor) -> Tensor:
    """d(Σ upstream·share·p)/d(logits) for `upstream` (B, C) and shares (B, F, *spatial) of the last F classes."""
    call = _Call(logits, None, None, PassSettings("softmax", False, (), None, False))
    call.add_shares(shares.transpose(0, 1))
    above = upstream.to(torch.float32).contiguous()
    call.arguments.upstream = above.data_ptr()
    call.memory.append(above)
    return call.gradient("voxloss_gradient_of_shares")


def takes_lesions(
    logits: Tensor, target: Tensor, regions: Tensor, weight: Tensor | None, places: int, settings: PassSettings
) -> bool:
    """Whether the passes over lesions compute these sums on this machine: of not too many regions."""
    return logits.shape[1] > 1 and takes(logits, target, weight, settings) and _takes_regions(logits, regions, places)


def _takes_regions(logits: Tensor, regions: Tensor, places: int) -> bool:
    return (
        regions.dtype in (torch.int32, torch.int64)
        and regions.device.type == "cpu"
        and places * (logits.numel() // LARGEST_PART + len(logits)) <= MOST_PLACES
    )


def lesions(
    logits: Tensor,
    target: Tensor,
    regions: Tensor,
    offsets: Tensor,
    weight: Tensor | None,
    places: int,
    settings: PassSettings,
    *,
    alone: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums (4, 2·places) in the order of `lesions.sums`, voxels (2·places,), and what `sums` returns unless `alone`."""
    call = _Call(logits, target, weight, settings)
    found = call.ask_lesions(regions, offsets, places, 4)
    totals = found.new_empty(0, 0) if alone else call.ask_sums(settings.rows)
    call.run_sums(target, weight, settings)
    p, missed, surprise, voxels = found.sum(0).unbind(1)
    inside = torch.arange(2 * places) % 2 == 1
    of_lesions = torch.stack([torch.where(inside, p, 0), torch.where(inside, 0, p), missed, surprise])
    return of_lesions, voxels, totals.sum(1), call.counted.sum(1).to(torch.float64)


def lesions_gradient(
    of_lesions: Tensor,
    logits: Tensor,
    target: Tensor,
    regions: Tensor,
    offsets: Tensor,
    weight: Tensor | None,
    upstream: Tensor | None,
    settings: PassSettings,
) -> Tensor:
    """d(Σ of_lesions·lesions + Σ upstream·sums)/d(logits) for `of_lesions` (4, 2·places), with `upstream` as above."""
    call = _Call(logits, target, weight, settings)
    hit, excess, missed, surprise = of_lesions.to(torch.float32)
    inside = torch.arange(of_lesions.shape[1]) % 2 == 1
    call.add_lesions(regions, offsets, torch.stack([torch.where(inside, hit - missed, excess), surprise], 1))
    if upstream is not None:
        call.add_upstream(upstream, settings)
    return call.gradient()


def takes_odds(logits: Tensor, target: Tensor, regions: Tensor, weight: Tensor | None, places: int) -> bool:
    """Whether the passes over lesions compute the sums of targets of their own for every class on this machine."""
    return (
        logits.device.type == "cpu"
        and logits.dtype in (torch.float32, torch.bfloat16)
        and target.dtype in (*_TYPES, *_SAME, *_WIDENED)
        and (weight is None or weight.dtype == torch.float32)
        and _takes_regions(logits, regions, places)
        and library.is_there()
    )


def odds(
    logits: Tensor,
    target: Tensor,
    regions: Tensor,
    offsets: Tensor,
    weight: Tensor | None,
    places: int,
    settings: PassSettings,
    *,
    by_channel: bool,
) -> tuple[Tensor, Tensor]:
    """Sums (4, 2·places) in the order of `lesions.sums` and voxels (2·places,); with sigmoid, or `dense` targets."""
    call = _Call(logits, target, weight, settings)
    found = call.ask_lesions(regions, offsets, places, 5)
    call.run_odds("voxloss_odds_sums", settings, by_channel)
    *sums, voxels = found.sum(0).unbind(1)
    return torch.stack(sums), voxels


def odds_gradient(
    of_lesions: Tensor,
    logits: Tensor,
    target: Tensor,
    regions: Tensor,
    offsets: Tensor,
    weight: Tensor | None,
    settings: PassSettings,
    *,
    by_channel: bool,
) -> Tensor:
    """d(Σ of_lesions·odds)/d(logits) for `of_lesions` (4, 2·places)."""
    call = _Call(logits, target, weight, settings)
    call.add_lesions(regions, offsets, of_lesions.to(torch.float32).T.contiguous())
    result = call.add_gradient()
    call.run_odds("voxloss_odds_gradient", settings, by_channel)
    return result


class _Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("sample", "channel", "voxel", "type"))]

    @classmethod
    def of(cls, tensor: Tensor, strides: tuple[int, ...]) -> "_Tensor":
        return cls(tensor.data_ptr(), *strides, _TYPES.index(_SAME.get(tensor.dtype, tensor.dtype)))


class _Pass(ctypes.Structure):
    _fields_ = [
        *((name, _Tensor) for name in ("logits", "target", "weight", "gradient", "regions", "shares")),
        *(
            (name, ctypes.c_int64)
            for name in ("voxels", "classes", "part", "exponent_count", "ignores", "ignore_index", "tube", "squared")
        ),
        *((name, ctypes.c_int64) for name in ("hardest", "bin_count")),
        *((name, ctypes.c_void_p) for name in ("bins", "exponents", "upstream", "sums", "counted", "bits", "offsets")),
        ("places", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("lesions", "of_lesions")),
    ]


class _OddsPass(ctypes.Structure):
    _fields_ = [("pass", _Pass), *((name, ctypes.c_int64) for name in ("sigmoid", "dense", "by_channel"))]


class _Call:
    """One pass over a batch, in parts whose number depends on its shape alone: so do the results, to the last bit."""

    def __init__(self, logits: Tensor, target: Tensor | None, weight: Tensor | None, settings: PassSettings) -> None:
        flat = logits.flatten(2)  # a view wherever the strides allow it
        self.batch, classes, self.voxels = flat.shape
        part = min(LARGEST_PART, max(1, PART // classes // BLOCK) * BLOCK)
        self.parts = -(-self.voxels // part)
        numbers = [
            exponent if isinstance(exponent, tuple) else (exponent,) * classes for exponent in settings.exponents
        ]
        exponents = torch.tensor(numbers, dtype=torch.float32)
        bins = torch.tensor(settings.bins, dtype=torch.int64)
        self.arguments = _Pass(
            voxels=self.voxels,
            classes=classes,
            part=part,
            exponent_count=len(numbers),
            ignores=settings.ignore_index is not None,
            ignore_index=settings.ignore_index or 0,
            tube=settings.tube,
            squared=settings.squared,
            exponents=exponents.data_ptr(),
            bin_count=len(bins),
            bins=bins.data_ptr(),
            logits=_Tensor.of(flat, flat.stride()),
        )
        self.memory = [flat, exponents, bins]  # whose addresses are in use
        if target is not None:
            labels = target.flatten(2 if settings.dense else 1)
            if labels.dtype in _WIDENED:
                labels = labels.float()
            strides = labels.stride() if settings.dense else (labels.stride(0), 0, labels.stride(1))
            self.arguments.target = _Tensor.of(labels, strides)
            self.memory.append(labels)
        if weight is not None:
            weights = weight.flatten(1)
            self.arguments.weight = _Tensor.of(weights, (weights.stride(0), 0, weights.stride(1)))
            self.memory.append(weights)

        self.counted = torch.zeros((self.batch, self.parts), dtype=torch.int64)
        self.logits = logits

    def add_shares(self, shares: Tensor | None) -> None:
        """Add the shares (K, B, *spatial) in which voxels belong to selections."""
        if shares is not None:
            flat = shares.flatten(2)
            self.arguments.shares = _Tensor.of(flat, (flat.stride(1), flat.stride(0), flat.stride(2)))
            self.arguments.hardest = len(flat)
            self.memory.append(flat)

    def ask_sums(self, rows: int) -> Tensor:
        """Return where the sums of every part will be, (B, parts, rows, C)."""
        totals = torch.zeros((self.batch, self.parts, rows, self.logits.shape[1]), dtype=torch.float64)
        self.arguments.sums = totals.data_ptr()
        self.memory.append(totals)
        return totals

    def add_upstream(self, upstream: Tensor, settings: PassSettings) -> None:
        """Add the slopes of the sums, (B, S, C)."""
        upstream = upstream.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        upstream[:, TRUE_POSITIVE] -= upstream[:, FALSE_NEGATIVE]  # both are of the label's class
        if settings.tube:
            upstream[:, settings.before_tube] -= upstream[:, settings.before_tube + 1]
        self.arguments.upstream = upstream.data_ptr()
        self.memory.append(upstream)

    def ask_lesions(self, regions: Tensor, offsets: Tensor, places: int, rows: int) -> Tensor:
        """Return where the sums over the regions (B, F, *spatial) of every part will be, (parts, 2·places, rows)."""
        found = torch.zeros((self.batch * self.parts, 2 * places, rows), dtype=torch.float64)
        self._add_regions(regions, offsets, places)
        self.arguments.lesions = found.data_ptr()
        self.memory.append(found)
        return found

    def add_lesions(self, regions: Tensor, offsets: Tensor, slopes: Tensor) -> None:
        """Add the slopes (2·places, rows) of the sums over regions."""
        self._add_regions(regions, offsets, len(slopes) // 2)
        self.arguments.of_lesions = slopes.data_ptr()
        self.memory.append(slopes)

    def _add_regions(self, regions: Tensor, offsets: Tensor, places: int) -> None:
        flat, first = regions.flatten(2), offsets.contiguous()
        self.arguments.regions = _Tensor.of(flat, flat.stride())
        self.arguments.offsets, self.arguments.places = first.data_ptr(), places
        self.memory += [flat, first]

    def run_sums(self, target: Tensor, weight: Tensor | None, settings: PassSettings) -> None:
        """Compute the sums that were asked for, and check what was read if the settings say so."""
        self.arguments.counted = self.counted.data_ptr()
        self.memory.append(self.counted)
        if self.run("voxloss_sums") and settings.check:
            targets.check_values(target, weight, self.logits.shape[1], settings)

    def gradient(self, name: str = "voxloss_gradient") -> Tensor:
        """Return the gradient of what was added."""
        result = self.add_gradient()
        self.run(name)
        return result

    def add_gradient(self) -> Tensor:
        """Return where the gradient will be."""
        result = empty_gradient(self.logits)
        flat = result.view(*self.logits.shape[:2], self.voxels)
        self.arguments.gradient = _Tensor.of(flat, flat.stride())
        self.memory.append(flat)
        return result

    def run_odds(self, name: str, settings: PassSettings, by_channel: bool) -> None:
        """Call a function of `odds.c` for every part."""
        arguments = _OddsPass(self.arguments, settings.activation == "sigmoid", settings.dense, by_channel)
        library.run(name, arguments, self.batch * self.parts, self.memory)

    def run(self, name: str) -> int:
        """Call a function of the source for every part, and return the faults that it found."""
        return library.run(name, self.arguments, self.batch * self.parts, self.memory)
