"""What the numbers were made with: an allow-list of facts, never the whole environment."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from harness.errors import ResourceError

_PACKAGES = ("torch", "torchvision", "optuna", "mlflow", "numpy", "pandas")


def environment(device: str, threads: int, workers: int) -> dict[str, Any]:
    """Versions, platform, device and commit; plain values."""
    facts: dict[str, Any] = {"harness": _version("finetune-harness"), "python": platform.python_version()}
    facts |= {name: _version(name) for name in _PACKAGES}
    return facts | {
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{device} ({processor()})",
        "threads": threads,
        "workers": workers,
        "commit": commit(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def processor() -> str:
    """The processor's product name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit of the harness's checkout, with `+` where files differ from it; "" outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    sha = _git(root, "rev-parse", "--short=12", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return sha + ("+" if sha and changed else "")


def _git(root: Path, *words: str) -> str:
    """What git answers, "" where there is no git or no checkout."""
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def resolve_devices(wanted: str, workers: int) -> list[str]:
    """One entry for each worker: every GPU asked for, or `workers` times the CPU.

    Raises:
        ResourceError: the device is not on this machine.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return ["cpu"] * workers
    if wanted == "mps":
        if not torch.backends.mps.is_available():
            raise ResourceError("device mps is not available on this machine; take DEVICE=cpu")
        return ["mps"]
    if wanted == "cuda" or wanted.startswith("cuda:"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if wanted == "cuda" and count:
            return [f"cuda:{index}" for index in range(count)]
        if wanted[5:].isdigit() and int(wanted[5:]) < count:
            return [wanted]
        raise ResourceError(f"device {wanted} is not here: this machine shows {count} CUDA devices; take DEVICE=cpu")
    raise ResourceError(f"device must be auto, cpu, cuda, cuda:N or mps, but got {wanted!r}")
