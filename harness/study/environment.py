"""Describe the machine and software that a study ran with: a fixed list of values, never all environment variables."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from harness.errors import ResourceError

_PACKAGES = ("torch", "torchvision", "optuna", "mlflow", "numpy", "pandas")


def environment(device: str, threads: int, workers: int, threads_here: int | None = None) -> dict[str, Any]:
    """Return versions, platform, device, threads, workers and commit as plain values.

    Args:
        threads_here: threads that a new study would have, if this one keeps others.
    """
    values: dict[str, Any] = {"harness": _version("finetune-harness"), "python": platform.python_version()}
    values |= {name: _version(name) for name in _PACKAGES}
    return values | {
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{device} ({processor()})",
        "threads": threads,
        "workers": workers,
        "commit": commit(),
        **({} if threads_here is None else {"threads_here": threads_here}),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def processor() -> str:
    """Return the product name of the processor, or its architecture if the system does not give the name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """Return the commit of the harness's checkout, with `+` if files differ from it; "" outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    sha = _git(root, "rev-parse", "--short=12", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return sha + ("+" if sha and changed else "")


def _git(root: Path, *words: str) -> str:
    """Return the output of git; "" without git or outside a checkout."""
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def resolve_devices(wanted: str, workers: int) -> list[str]:
    """Return one device for each worker: every GPU that is asked for, or `workers` times the CPU.

    Raises:
        ResourceError: this machine does not have the device.
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
