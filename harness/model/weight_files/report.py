"""LoadReport: what of a checkpoint file was used for a backbone, what was renamed, and what was left aside."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a weight file."""

    backbone: str
    weights: str  # name of the weights, as `weights.load` returns it
    matched: int  # tensors of the backbone that the file gave; all of them, without the head and without counters
    layout: str = ""  # whose names the file has, if they are not those of the backbone's library
    prefix: str = ""  # what stood before the names, such as `state_dict.module.encoder_q.`
    passed_over: tuple[str, ...] = ()  # prefixes of other networks in the file that would have fitted, too
    ignored: dict[str, int] = field(default_factory=dict)  # number of tensors by what they belong to
    resized: str = ""  # what was interpolated, such as `positions from 14 x 14 to 7 x 7`
    assumed: str = ""  # what the file does not say, and is therefore assumed

    @property
    def text(self) -> str:
        """The report in a sentence, for the log and the page."""
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
        if self.assumed:
            parts.append(self.assumed)
        return f"{self.weights}: {'; '.join(parts)}."
