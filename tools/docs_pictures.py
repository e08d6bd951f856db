"""Hooks of mkdocs that resolve links of docs/ to files elsewhere in the repository.

Pages link to ../results/figures/NAME.png and ../FILE, which work in the repository. The site
contains the pictures of results/ and no other file from outside docs/: other links become plain
text.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).resolve().parent.parent / "results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pictures of results/ to the files of the site."""
    for path in sorted(RESULTS.rglob("*.png")):
        place = path.relative_to(RESULTS.parent).as_posix()
        files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page whose links lead to files of the site."""
    markdown = re.sub(r"\]\(\.\./(results/[^)]+\.png)\)", r"](\1)", markdown)
    return re.sub(r"(?<!!)\[([^]]+)\]\(\.\./[^)]+\)", r"\1", markdown)
