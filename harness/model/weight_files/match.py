"""Match the tensors of a checkpoint file with those of a backbone: find the network in the file, and rename it.

Nothing is configured: every prefix that stands before a name of the backbone is tried, in every layout, and the one
with most matches is used. So any nesting of wrappers (`state_dict`, `model`, `teacher`) and prefixes (`module.`,
`_orig_mod.`, `encoder_q.`) is understood, and what lies beside the network is left aside.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.errors import ConfigError
from harness.model.weight_files.layouts import Layout
from harness.model.weight_files.read import Entry

SHOWN = 8  # number of keys that an error lists
_COUNTER = "num_batches_tracked"  # of BatchNorm; older files have none

# If several networks of a file fit, the one with the smallest number is used. A moving average is what its training
# evaluates, as timm's loader does it, and DINO's teacher is one. Of MoCo and BYOL, the evaluation uses the encoder that
# was trained by gradients.
_PREFERENCE = (
    (re.compile(r"(.*_)?ema(_.*)?|teacher.*"), 0),
    (re.compile(r"encoder_k|key_encoder|momentum.*|.*_momentum|target.*"), 2),
)
_USUAL = 1

# Parts of a network that follow its backbone in training, by the first word of their names.
_BESIDE = re.compile(
    r"(.*_)?heads?(_.*)?|.*proj(ect(ion|or))?(_.*)?|.*predict(ion|or)(_.*)?|.*prototypes?.*|.*classifier.*|(.*_)?queue.*"
    r"|decoder.*|mask(ed)?_(token|embed).*|fc\d*|linear.*|mlp|centers?|.*loss.*|.*criterion.*|logit_scale|aux\d*|AuxLogits"
)

# What changes a vision transformer's answers, and torchvision's has not.
_FOREIGN = (
    (re.compile(r"(^|\.)(ls[12]\.gamma|gamma_[12]|layer_?scale)"), "layer scale"),
    (re.compile(r"(^|\.)(reg_token|register_tokens?)"), "register tokens"),
    (re.compile(r"(^|\.)(q_norm|k_norm)\."), "normalised queries and keys"),
    (re.compile(r"(^|\.)dist_token"), "a distillation token"),
    (re.compile(r"(^|\.)(relative_position|rel_pos)"), "relative positions"),
    (re.compile(r"(^|\.)(norm_pre|fc_norm)\."), "another normalisation"),
    (re.compile(r"(^|\.)mlp\.(w12|w3|fc1_g|fc1_x)\."), "gated layers"),
)


@dataclass(frozen=True)
class Match:
    """The network that was found in a file."""

    values: dict[str, Tensor]  # by the backbone's own names, in its own shapes; without the head
    matched: int
    layout: str
    prefix: str  # with the dot at its end; "" for none
    passed_over: tuple[str, ...]
    ignored: dict[str, int]
    resized: str


@dataclass(frozen=True)
class Wanted:
    """The backbone for which a file is read."""

    backbone: str
    own: Mapping[str, Tensor]  # its state dict
    head: frozenset[str]  # names in `own` that belong to the head
    layouts: Sequence[Layout]
    translate: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]  # into the shapes of `own`, under its names

    @property
    def names(self) -> frozenset[str]:
        """Every name that a file must have."""
        return frozenset(key for key in self.own if key not in self.head and not key.endswith(_COUNTER))

    def in_head(self, name: str) -> bool:
        """Return whether a name belongs to the head or to what another file has in its place."""
        return any(name.startswith(f"{key.rpartition('.')[0]}.") for key in self.head)


@dataclass(frozen=True)
class _Candidate:
    layout: Layout
    prefix: str
    count: int  # of the backbone's tensors that the file has under this prefix

    @property
    def rank(self) -> int:
        found = [n for part in self.prefix.split(".") for rule, n in _PREFERENCE if rule.fullmatch(part)]
        return max(found, default=_USUAL)


def match(entries: Sequence[Entry], wanted: Wanted, source: str) -> Match:
    """Find the backbone in a file.

    Args:
        entries: every tensor of the file.
        source: how errors name the file.

    Raises:
        ConfigError: tensors are missing, unexpected, of another shape or kind, or not finite; or several networks of
            the file fit and differ. All faults are listed.
    """
    chosen, passed_over = _choose(entries, wanted, source)
    given, ignored, unexpected = _sorted(entries, chosen, wanted)
    missing = [key for key in wanted.own if key in wanted.names and key not in given]
    kinds = [key for key, value in given.items() if not _is_plain(value, wanted.own[key])]
    faults = [_fault(missing, "missing"), *_unexpected(unexpected)]
    if kinds:
        faults.append(_fault([f"{key} ({_kind(given[key])})" for key in kinds], "not of floating-point numbers"))
        values: dict[str, Tensor] = {}
    else:
        infinite = [key for key, value in given.items() if not bool(torch.isfinite(value).all())]
        faults.append(_fault(infinite, "with values that are not finite (NaN or infinite)"))
        values = wanted.translate(given) if not infinite else dict(given)
    shapes = [
        f"{key} is {tuple(value.shape)}, not {tuple(wanted.own[key].shape)}"
        for key, value in values.items()
        if value.shape != wanted.own[key].shape
    ]
    faults.append(_fault(shapes, "of another shape"))
    if found := [fault for fault in faults if fault]:
        matched = len(wanted.names) - len(missing)
        under = f" under `{_dotted(chosen.prefix)}`" if chosen.prefix else ""
        raise ConfigError(
            f"the keys of {source} must be those of its library's {wanted.backbone}, but they are not "
            f"({matched} of {len(wanted.names)} tensors are there{under}):",
            found,
        )
    return Match(
        values,
        len(wanted.names),
        chosen.layout.name,
        _dotted(chosen.prefix),
        passed_over,
        ignored,
        _resized(given, values),
    )


def _choose(entries: Sequence[Entry], wanted: Wanted, source: str) -> tuple[_Candidate, tuple[str, ...]]:
    """Return where the network lies in the file, and the prefixes of others that fit, too."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    by_name = {layout.name: layout for layout in wanted.layouts}
    names = wanted.names
    for entry in entries:
        parts = entry.full_name.split(".")
        for start in range(len(parts)):
            rest = ".".join(parts[start:])
            for layout in wanted.layouts:
                if (renamed := layout.rename(rest)) in names:
                    found[layout.name, ".".join(parts[:start])].add(renamed)
    candidates = [_Candidate(by_name[name], prefix, len(keys)) for (name, prefix), keys in found.items()]
    if not candidates:
        return _Candidate(wanted.layouts[0], "", 0), ()
    most = max(candidate.count for candidate in candidates)
    best = [candidate for candidate in candidates if candidate.count == most]
    if most < len(names):
        return best[0], ()
    best = _without_other_layouts(best)
    rank = min(candidate.rank for candidate in best)
    first, *others = [candidate for candidate in best if candidate.rank == rank]
    differ = [other for other in others if not _same(entries, first, other, wanted)]
    if differ:
        which = " and ".join(f"`{_dotted(one.prefix)}`" for one in (first, *differ))
        raise ConfigError(
            f"{source} must hold one {wanted.backbone}, but the networks under {which} all fit and differ; "
            "save the one that is meant with torch.save, or as safetensors."
        )
    return first, tuple(_dotted(other.prefix) for other in best if other.rank != rank)


def _without_other_layouts(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """Keep the first layout of each prefix."""
    return list({candidate.prefix: candidate for candidate in reversed(list(candidates))}.values())[::-1]


def _same(entries: Sequence[Entry], one: _Candidate, other: _Candidate, wanted: Wanted) -> bool:
    a, b = (_sorted(entries, candidate, wanted)[0] for candidate in (one, other))
    return all(key in b and torch.equal(a[key], b[key]) for key in a if not key.endswith(_COUNTER))


def _sorted(
    entries: Sequence[Entry], chosen: _Candidate, wanted: Wanted
) -> tuple[dict[str, Tensor], dict[str, int], list[str]]:
    """Return the backbone's tensors by own name, the numbers of those beside it, and names that belong to neither."""
    given: dict[str, Tensor] = {}
    inside: list[tuple[Entry, str]] = []
    ignored: Counter[str] = Counter()
    depths: Counter[int] = Counter()  # of the mappings that hold the backbone's tensors
    before = _dotted(chosen.prefix)
    for entry in entries:
        if not entry.full_name.startswith(before):
            ignored[_first_other(entry.full_name, chosen.prefix)] += 1
            continue
        name = chosen.layout.rename(entry.full_name.removeprefix(before))
        if name in wanted.own and name not in wanted.head:
            given[name] = entry.value
            depths[len(entry.wrappers)] += 1
        elif wanted.in_head(name):
            ignored["head"] += 1
        else:
            inside.append((entry, name))
    depth = depths.most_common(1)[0][0] if depths else 0
    unexpected: list[str] = []
    for entry, name in inside:
        first = name.partition(".")[0]
        if len(entry.wrappers) > depth:
            ignored[entry.wrappers[depth]] += 1
        elif _BESIDE.fullmatch(first) and not any(key.startswith(f"{first}.") for key in wanted.names):
            ignored[first] += 1
        else:
            unexpected.append(name)
    return given, dict(ignored), unexpected


def _first_other(name: str, prefix: str) -> str:
    """Return the first word of a name that differs from the prefix."""
    theirs, ours = name.split("."), prefix.split(".")
    return next((a for a, b in zip(theirs, ours, strict=False) if a != b), theirs[-1])


def _unexpected(names: list[str]) -> list[str]:
    """Return the faults of tensors that are not the backbone's: known ones with their reason."""
    faults: list[str] = []
    rest = names
    for rule, what in _FOREIGN:
        if own := [name for name in rest if rule.search(name)]:
            rest = [name for name in rest if name not in own]
            faults.append(
                f"{_fault(own, f'of {what}')}; torchvision's ViT has none, so its features would be others: use the "
                "backbone of timm that was trained, as `timm/NAME`"
            )
    return [*faults, _fault(rest, "unexpected")]


def _is_plain(value: Tensor, own: Tensor) -> bool:
    """Return whether a tensor holds its numbers itself, as floating-point numbers if the backbone's are."""
    plain = value.layout == torch.strided and not value.is_meta and not value.is_quantized
    return plain and (value.is_floating_point() or not own.is_floating_point())


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.") if value.layout == torch.strided else str(value.layout)


def _resized(given: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> str:
    """Return which grid of positions was interpolated to which; "" for none."""
    for key, value in given.items():
        if values[key].shape != value.shape and value.ndim == 3:
            old, new = (round((shape[1] - 1) ** 0.5) for shape in (value.shape, values[key].shape))
            return f"positions from {old} x {old} to {new} x {new}"
    return ""


def _dotted(prefix: str) -> str:
    return f"{prefix}." if prefix else ""


def _fault(keys: Iterable[str], what: str) -> str:
    listed = sorted(keys)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return f"{len(listed)} {what}: {', '.join(listed[:SHOWN])}{more}" if listed else ""
