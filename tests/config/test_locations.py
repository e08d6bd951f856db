"""Folders that cannot be written are found before any work."""

from pathlib import Path

import pytest

from mint.config.locations import cache_folder, check_writable, data_folder
from mint.errors import InputError


@pytest.mark.parametrize(
    ("folder", "problem"),
    [
        ("/proc/nope", "/proc cannot be written: "),
        ("a" * 300, "cannot be written: File name too long"),
        ("file", "file is a file, not a folder"),
        ("file/below", "file is a file, not a folder"),
        ("dangling", "dangling cannot be written: No such file or directory"),
    ],
)
def test_folder_that_cannot_be_made_is_refused(
    folder: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("dangling").symlink_to("nowhere")
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError) as raised:
        check_writable("output", Path(folder))
    assert str(raised.value).startswith(f"output {folder}: ")
    assert problem in str(raised.value)
    assert set(tmp_path.iterdir()) == before


def test_folder_that_can_be_made_is_not_made(tmp_path: Path) -> None:
    check_writable("output", tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_variable_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINT_CACHE_DIR", "/proc/nope")
    monkeypatch.setenv("MINT_DATA_DIR", "/proc/nope")
    with pytest.raises(InputError, match=r"^MINT_CACHE_DIR /proc/nope: "):
        cache_folder(None)
    with pytest.raises(InputError, match=r"^MINT_DATA_DIR /proc/nope: "):
        data_folder(None)
