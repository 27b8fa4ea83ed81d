"""LoadReport: what of a checkpoint file was used for a backbone, what was renamed, and what was left aside."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LoadReport:
    """What is loaded into a backbone: what becomes of the tensors of a checkpoint, or which official weights it is."""

    backbone: str
    weights: str  # name of the weights, as `weights.load` returns it
    matched: int = 0  # tensors of the backbone that a checkpoint gave: all, without the head and without counters
    layout: str = ""  # whose names the file has, if they are not those of the backbone's library
    prefix: str = ""  # what stood before the names, such as `state_dict.module.encoder_q.`
    passed_over: tuple[str, ...] = ()  # prefixes of other networks in the file that would have fitted, too
    ignored: dict[str, int] = field(default_factory=dict)  # number of tensors by what they belong to
    resized: str = ""  # what was interpolated, such as `positions from 14 x 14 to 7 x 7`
    normalisation: str = ""  # that a checkpoint is used with, in words
    transform: str = ""  # of official weights
    licence: str = ""  # of official weights

    @property
    def text(self) -> str:
        """The report in a sentence, for the log and the page."""
        if self.transform:
            return f"{self.weights} for {self.backbone}: evaluated with {self.transform}; licence {self.licence}."
        parts = [f"all {self.matched} tensors of {self.backbone} matched"]
        if self.prefix:
            parts.append(f"prefix `{self.prefix}` removed")
        if self.layout:
            parts.append(f"{self.layout} renamed")
        if self.passed_over:
            parts.append(f"preferred to {', '.join(f'`{prefix}`' for prefix in self.passed_over)}")
        if self.resized:
            parts.append(f"{self.resized} interpolated")
        if self.ignored:
            parts.append(f"not used: {', '.join(f'{name} ({count})' for name, count in self.ignored.items())}")
        if self.normalisation:
            parts.append(self.normalisation)
        return f"{self.weights}: {'; '.join(parts)}."
