"""A store that cannot be used is refused before anything runs."""

from pathlib import Path

import pytest

from mint.errors import InputError
from mint.store.remote import RemoteStore


def test_unusable_store_is_refused_without_its_password(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for uri in (str(tmp_path / "file"), "nowhere://user:secret@host/folder"):
        with pytest.raises(InputError, match=r"cannot be used: .*allowed are") as refused:
            RemoteStore(uri)
        assert refused.value.parameter == "storage"
        assert "secret" not in str(refused.value)
