"""What Ray reads from the environment when it is imported."""

from pathlib import Path

import pytest
from services import run_python

# As Ray's core sees it, which reads the mode once. Nobody answers at the address.
MODE = """
import os
from mint.orchestration.ray_setup import connecting
with connecting("127.0.0.1:9", "mlp"):
    try:
        from ray._raylet import AuthenticationMode, get_authentication_mode
        print(get_authentication_mode() == AuthenticationMode.TOKEN, flush=True)
    finally:
        os._exit(0)
"""


@pytest.mark.parametrize("source", ["none", "variable", "file"])
def test_token_of_a_cluster_is_used(source: str, tmp_path: Path) -> None:
    token, home = "5" * 48, tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    settings = {"HOME": str(home)}
    if source == "variable":
        settings["RAY_AUTH_TOKEN"] = token
    elif source == "file":
        (home / ".ray" / "auth_token").write_text(token)
    done = run_python(tmp_path, "-c", MODE, **settings)
    assert done.stdout.split() == [str(source != "none")], done.stderr
