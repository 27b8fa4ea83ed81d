"""A real headless Chromium, where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def visit(path: Path, profile: Path, *flags: str, width: int = 1440) -> tuple[str, list[str]]:
    """The page's elements after its script ran, and the lines of its console."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--no-first-run", "--disable-sync", "--disable-component-update", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={profile}", f"--window-size={width},900", "--enable-logging=stderr", *flags]
    done = subprocess.run(
        [*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def without_policy(page: Path, copy: Path, script: str = "") -> Path:
    """A copy of the page that lets everything in, with a script of ours at its end."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return copy
