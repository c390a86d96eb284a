"""What a cross-validation reads, by name: with the settings the content of its `config.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from m1pipe.config import CrossvalConfig
from m1pipe.data.labels import find_column
from m1pipe.encoder.bundle import weights_file
from m1pipe.encoder.trained import LEVELS_FILE
from m1pipe.evaluation.encoders import FOLD_PREFIX, settings_file
from m1pipe.evaluation.fold_results import Plan
from m1pipe.evaluation.plan import make_plan
from m1pipe.evaluation.problem import Problem, make_problem
from m1pipe.io.reader import PREFIX, open_matrix
from m1pipe.settings import to_dict
from m1pipe.source_labels import Sources
from m1pipe.workflow.augment import train_generator

SETTINGS = " settings"
PARTS = ("model.json", "pca.safetensors", LEVELS_FILE)  # what an encoder is beside its weights


@dataclass(frozen=True, kw_only=True)
class CrossvalRun:
    """What is compared, by name: with the settings, the content of a folder's `config.json`.

    Attributes
    ----------
    x : str
        File of the genes.
    y, multilabel : str or None
        File of the levels, or of zeros and ones, to predict.
    label : str or None
        Column of x to predict.
    targets : tuple of str or None
        Columns of y; None: all.
    aliases : str or None
        Table of other names of genes, by which those of x are matched as well.
    encoders : dict of str to tuple of str
        NAME to runs or `fold:CONFIG` items.
    source : tuple of str
        Files of other studies, whose labels are used.
    source_label, source_study : str or None
        Their columns of the label and of the study.
    """

    x: str
    y: str | None = None
    multilabel: str | None = None
    label: str | None = None
    targets: tuple[str, ...] | None = None
    aliases: str | None = None
    encoders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    source: tuple[str, ...] = ()
    source_label: str | None = None
    source_study: str | None = None

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "CrossvalRun":
        """What a configuration names, its lists as tuples."""
        lists = {"targets": None, "source": (), **stored}
        return cls(
            **{
                **lists,
                "targets": None if lists["targets"] is None else tuple(lists["targets"]),
                "source": tuple(lists["source"]),
                "encoders": {n: tuple(items) for n, items in stored.get("encoders", {}).items()},
            }
        )

    @property
    def inputs(self) -> dict[str, str]:
        """Role to file, for everything that decides a number.

        `NAME i` and its parts of trained encoders, `NAME i settings` of encoders in folds.
        """
        files = {"x": self.x, "y": self.y, "multilabel": self.multilabel, "aliases": self.aliases}
        if self.multilabel is not None and self.multilabel.startswith(PREFIX):
            files["multilabel"] = None  # part of x
        files |= {f"source {i}": file for i, file in enumerate(self.source, start=1)}
        for name, items in self.encoders.items():
            for i, item in enumerate(items, start=1):
                if not item.startswith(FOLD_PREFIX):
                    files[f"{name} {i}"] = str(weights_file(item))
                    parts = [path for part in PARTS if (path := Path(item, part)).is_file()]
                    files |= {f"{name} {i} {path.stem}": str(path) for path in parts}
                elif (file := settings_file(item)) is not None:
                    files[f"{name} {i}{SETTINGS}"] = str(file)
        return {role: path for role, path in files.items() if path is not None}

    def problem(self, config: CrossvalConfig) -> Problem:
        """Open everything that is named here."""
        sources = Sources(files=self.source, label=self.source_label, study=self.source_study)
        return make_problem(
            open_matrix(self.x, aliases=self.aliases),
            self.y,
            multilabel=self.multilabel,
            label=self.label,
            targets=self.targets,
            encoders=self.encoders,
            sources=sources if self.source else None,
            config=config,
            generator=train_generator,
        )

    def plan(self, problem: Problem) -> Plan:
        """What its shares are put together by."""
        label = self.label and find_column(problem.matrix.obs, self.label, "label")[0]
        return make_plan(problem, label=label, paths={"x": self.x, "y": self.y})

    def stored(self, config: CrossvalConfig) -> dict[str, Any]:
        """The content of `config.json`."""
        return {**asdict(self), "crossval": to_dict(config)}
