"""Keeps the exact versions in pyproject.toml: every one that uv's resolution may install.

uv.lock itself is not committed, for it names the registry it was made with. After a change of the
dependencies, or to take newer versions (remove their lines first), run

    uv lock && uv run python tools/pin_dependencies.py

With --check nothing is written; the exit code is 1 if a version is not pinned.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def pins(lock: str) -> list[str]:
    """Return name==version of every package of a lock file that comes from a registry."""
    packages = tomllib.loads(lock)["package"]
    return sorted(f"{p['name']}=={p['version']}" for p in packages if "registry" in p["source"])


def main(arguments: list[str]) -> int:
    project = ROOT / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    wanted = pins((ROOT / "uv.lock").read_text(encoding="utf-8"))
    if "--check" in arguments:
        pinned = tomllib.loads(text)["tool"]["uv"]["constraint-dependencies"]
        differing = sorted(set(wanted) ^ set(pinned))
        if differing:
            print(
                f"not pinned exactly: {', '.join(differing)}; see tools/pin_dependencies.py",
                file=sys.stderr,
            )
        return 1 if differing else 0
    lines = "".join(f'    "{pin}",\n' for pin in wanted)
    text = re.sub(
        r"(?m)^constraint-dependencies = \[\n[^\]]*\]",
        f"constraint-dependencies = [\n{lines}]",
        text,
    )
    project.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
