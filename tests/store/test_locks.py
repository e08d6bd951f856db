"""Two processes never run the same sweep, and cleanup never runs beside one."""

import subprocess
import sys
from pathlib import Path

import pytest

from mint.errors import InputError
from mint.store.locks import in_use, locked, locked_exclusively
from mint.store.stage_cache import StageCache

RUN = (
    "import sys; from pathlib import Path; from mint.store.stage_cache import StageCache\n"
    "from mint.store.locks import locked\n"
    "with locked(StageCache(Path(sys.argv[1])), 'a-sweep', 'a_sweep.py --seeds 0'):\n"
    "    print('locked', flush=True)\n"
    "    sys.stdin.read()\n"
)


def test_lock_names_its_process_and_ends_with_it(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "locked\n"
        holder = rf"a-sweep is being run by process {process.pid} on .*: a_sweep.py --seeds 0"
        with pytest.raises(InputError, match=holder), locked(cache, "a-sweep", "another"):
            pass
        with pytest.raises(InputError, match=holder), locked_exclusively(cache, "mint sync"):
            pass
        with locked(cache, "another-sweep", "another"):
            pass
        process.kill()
    with locked(cache, "a-sweep", "the next"):
        pass


def test_nothing_starts_while_the_cache_is_locked(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    refused = pytest.raises(InputError, match=r"the stage cache is locked by .*: mint sync")
    with locked_exclusively(cache, "mint sync"), refused, locked(cache, "a-sweep", "too early"):
        pass
    with locked(cache, "a-sweep", "now"):
        pass


def test_cache_in_use_cannot_be_locked_as_a_whole(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)  # such as that of a cluster's node, which no driver locks
    with in_use(cache), in_use(cache):
        refused = pytest.raises(InputError, match="the stage cache is used by a trial of a sweep")
        with refused, locked_exclusively(cache, "mint cache prune"):
            pass
    with locked_exclusively(cache, "mint cache prune"):
        refused = pytest.raises(InputError, match=r"the stage cache is locked by .*: mint cache")
        with refused, in_use(cache, seconds=0):
            pass
