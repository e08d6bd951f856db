"""The exported networks of a study: the recommended one is kept, the others are measured."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import TypeAdapter

from mint.errors import InputError
from mint.pruning.export import Exported, export
from mint.reporting.study_page import Study, network_folder
from mint.store.atomic import write_atomic
from mint.store.stage_cache import StageCache
from mint.training.determinism import reproducible
from mint.trial.api import FinishedTrial
from mint.trial.result import TrialResult

_EXPORTED = TypeAdapter(Exported)


@dataclass(frozen=True)
class StudyExports:
    """Exports networks of finished trials, each once.

    Attributes:
        cache: has the trials.
        output: folder of the study.
        model: MODULE:FUNCTION of a user's network, whose code may be run; None for mint's own.
    """

    cache: StageCache
    output: Path
    model: str | None

    def add_to(self, study: Study, has_time: Callable[[], bool]) -> Study:
        """Return a study with an exported network for each of its points.

        The recommended network is exported first, and kept. The others are measured while there is
        time, or if they were measured before.
        """
        points = [point for points in study.curves.values() for point in points]
        points.sort(key=lambda point: point is not study.recommended)
        exported: dict[str, Exported | str] = {}
        for point in points:
            keep, trial = point is study.recommended, point.trials[0]
            if keep or self._file(trial).exists() or has_time():
                exported[trial.keys.key] = self._measured(trial, keep=keep)
        left_out = list(study.left_out)
        if missing := len(points) - len(exported):
            left_out.append(f"the export of {missing} of {len(points)} networks")
        return replace(study, exported=exported, left_out=left_out)

    def _measured(self, trial: TrialResult, *, keep: bool) -> Exported | str:
        """Return size and speed of a trial's exported network, or why it cannot be exported."""
        file, folder = self._file(trial), self.output / network_folder(trial)
        if keep and folder.exists():
            return _EXPORTED.validate_json((folder / "export.json").read_bytes())
        if file.exists() and not keep:
            return _EXPORTED.validate_json(file.read_bytes())
        with tempfile.TemporaryDirectory() as temporary:
            try:
                made = self._export(trial, folder if keep else Path(temporary) / folder.name)
            except InputError as error:
                return str(error)
        write_atomic(file, _EXPORTED.dump_json(made, indent=1))
        return made

    def _file(self, trial: TrialResult) -> Path:
        return self.output / "exports" / f"{trial.keys.key}.json"

    def _export(self, trial: TrialResult, folder: Path) -> Exported:
        finished = FinishedTrial(self.cache.folder("trials", trial.keys.key), model=self.model)
        example = torch.zeros(1, *trial.image_shape)
        # As many as the trial had: more of them wait for each other on a busy machine.
        with reproducible(trial.config.experiment.threads, example.device):
            return export(
                finished.network,
                finished.masks,
                example,
                folder,
                onnx=False,
                preparation=trial.preparation,
            )
