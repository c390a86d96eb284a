"""A comparison declared before its fit: the file that says so, and what can be said of it after.

`plan.toml` holds what `m1pipe crossval --config` reads, and beside it the claim, the SHA-256 of the
inputs, what was known of earlier results, and a digest of all of it.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from m1pipe._version import __version__
from m1pipe.artefacts import SEAL, read_json, sealed
from m1pipe.atomic import PathLike, refuse_existing, write_text
from m1pipe.config import CrossvalConfig
from m1pipe.errors import InputError, SettingError
from m1pipe.evaluation.claim import is_won, make_claim
from m1pipe.evaluation.result import CrossvalResult
from m1pipe.io.hdf5 import split_address
from m1pipe.provenance import describe_input, now, read_provenance
from m1pipe.settings import read_config_file, to_toml
from m1pipe.workflow.crossval_inputs import SETTINGS, CrossvalRun
from m1pipe.workflow.crossval_shares import fingerprint
from m1pipe.workflow.run_folder import differences

DECLARED = "declared.toml"
PARTS = ("declared", "claim", "design", "inputs")
HEAD = """\
# A comparison that was declared before it was run: m1pipe crossval --plan FILE
# The date is that of the machine's clock, and results that were deleted or lie elsewhere cannot be
# seen from here. Who needs proof gives the digest to somebody else, or to a registry, beforehand.
# A change of this file shows in its digest, and is refused.
"""
ANSWERS = ("y", "multilabel")


def declare(
    run: CrossvalRun,
    config: CrossvalConfig,
    out: PathLike,
    file: PathLike,
    *,
    win: Sequence[str] = (),
    force: bool = False,
) -> dict[str, Any]:
    """Write what will be compared, and what would be a win, into a plan; nothing is fitted.

    Parameters
    ----------
    run, config, out
        As `run_crossval` will take them.
    file : path
        The plan, TOML.
    win : sequence of str
        As `m1pipe.evaluation.claim.make_claim` takes it.
    force : bool
        Overwrite a plan that is there.

    Returns
    -------
    dict
        The plan.
    """
    file = refuse_existing(file, force=force)
    if file.suffix != ".toml":
        raise SettingError(f"--declare: expected a name that ends in .toml; found {file}")
    shares = run.plan(run.problem(config))
    claim = make_claim(
        shares.family, metric=shares.info["metric"], test=shares.headline, rope=config.rope, win=win
    )
    design = {
        "samples": shares.samples.size,
        "folds_sha256": fingerprint({}, {}, shares)["folds"],
        "models": list(shares.ladder),
    }
    inputs = {
        role: {"file": path, "sha256": describe_input(path)["sha256"]}
        for role, path in run.inputs.items()
    }
    stored = run.stored(config)
    declared = {
        "on": now(),
        "m1pipe": __version__,
        "out": str(out),
        "earlier": [
            *other_plans(file, inputs, stored, Path(out)),
            *earlier_results(inputs, stored, Path(out), file.parent),
        ],
    }
    parts = {"declared": declared, "design": design, "claim": claim, "inputs": inputs}
    plan = sealed(_without_none({**stored, **parts}))
    write_text(file, plan_text(plan))
    return read_declaration(file, plan[SEAL])


def declared_line(file: PathLike, plan: Mapping[str, Any]) -> str:
    """What a plan says, in a line; and what was there before it."""
    claim, earlier = plan["claim"], plan["declared"]["earlier"]
    text = (
        f"{file}: declared, digest {plan[SEAL][:12]}; a win: {_claimed(plan)} ({claim['metric']})"
    )
    if earlier:
        there = "; ".join(earlier)
        text += f"; nothing will be won by it, since others of the same data are there: {there}"
    return text


def _claimed(plan: Mapping[str, Any]) -> str:
    """What would be a win, in words."""
    return " or ".join(f"{a} against {', '.join(b)}" for a, b in plan["claim"]["win"].items())


def plan_text(plan: Mapping[str, Any]) -> str:
    """A plan as TOML, its digest first."""
    return HEAD + to_toml({SEAL: plan[SEAL], **{part: plan[part] for part in PARTS}, **plan})


def read_declaration(file: PathLike, wanted: str | None = None) -> dict[str, Any]:
    """A plan that was declared.

    Parameters
    ----------
    file : path
    wanted : str, optional
        Its digest, where that is known from elsewhere.

    Raises
    ------
    InputError
        If the file is none, or is not as it was written.
    """
    plan = read_config_file(file)
    digest = plan.pop(SEAL, None)
    if digest is None or not all(part in plan for part in PARTS):
        raise InputError(
            f"{file}: expected a plan written by m1pipe crossval --declare; found other settings: "
            "run them with --config, or declare them"
        )
    wanted = wanted or str(digest)
    if (found := sealed(plan)[SEAL]) != wanted:
        raise InputError(
            f"{file}: expected the plan as it was declared, digest {wanted[:12]}; found "
            f"{found[:12]}: it was changed afterwards; put it back, or declare another one"
        )
    return {**plan, SEAL: digest}


def settings_of(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What `--config` reads: the plan without what only a plan has."""
    return {name: value for name, value in plan.items() if name not in (*PARTS, SEAL)}


def refuse_changed_inputs(plan: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Refuse files that are not those of the plan, wherever they lie.

    Raises
    ------
    InputError
    """
    for role, path in inputs.items():
        wanted = str(plan["inputs"].get(role, {}).get("sha256", ""))
        found = str(describe_input(path)["sha256"]) if wanted else ""
        if found != wanted:
            raise InputError(
                f"{path}: expected the input {role} as it was declared, SHA-256 {wanted[:12]}; "
                f"found {found[:12]}: put the file back, or declare another plan"
            )


def earlier_results(
    inputs: Mapping[str, Mapping[str, Any]], stored: Mapping[str, Any], *places: Path
) -> list[str]:
    """Cross-validations of the same data and label that are there, with the time of their start.

    Parameters
    ----------
    inputs : mapping
        Role to a description with `sha256`.
    stored : mapping
        With the label that is predicted.
    *places : Path
        Folders that are looked at, with those in them, those beside them, and those beside the
        working directory's own.
    """
    question, found = _question(inputs, stored), []
    for folder in _folders(*places):
        config = folder / "config.json"
        with suppress(InputError):  # of a damaged neighbour nothing is known
            known = (read_provenance(folder) if os.path.isfile(config) else None) or {}
            there = read_json(config, "settings") if known else {}
            if "crossval" in there and _question(known.get("inputs", {}), there) == question:
                found.append(f"{os.path.relpath(folder)} of {known['started']}")
    return found


def other_plans(
    file: Path, inputs: Mapping[str, Any], stored: Mapping[str, Any], out: Path
) -> list[str]:
    """Plans for the same data and label that are there: of many only the first can be won."""
    question, found = _question(inputs, stored), []
    for other in (path for folder in _folders(file.parent, out) for path in folder.glob("*.toml")):
        if other.is_file() and other != file.resolve() and not _is_of_a_result(other):
            with suppress(InputError):
                plan = read_declaration(other)
                if _question(plan["inputs"], plan) == question:
                    found.append(f"{os.path.relpath(other)} of {plan['declared']['on']}")
    return found


def _is_of_a_result(plan: Path) -> bool:
    """Whether a plan is the copy that the folder of its result keeps."""
    return plan.name == DECLARED and (plan.parent / "provenance.json").is_file()


def _question(inputs: Mapping[str, Any], stored: Mapping[str, Any]) -> tuple[Any, ...]:
    digests = [inputs.get(role, {}).get("sha256") for role in ("x", *ANSWERS)]
    label = str(stored.get("label") or "").removesuffix(":class").removesuffix(":level")
    return (*digests, label, None if digests[2] else stored.get("multilabel"))


def _folders(*places: Path) -> list[Path]:
    """Those named, beside them, and in the working directory."""
    found = {
        path.resolve()
        for place in {Path(), *places, *(place.parent for place in places)}
        for path in (place, *place.glob("*"))
        if os.path.isdir(path)
    }
    return sorted(found)


def declaration(
    plan: Mapping[str, Any],
    result: CrossvalResult,
    *,
    stored: Mapping[str, Any],
    provenance: Mapping[str, Any],
    folds: str,
) -> dict[str, Any]:
    """What can be said of a result by its plan.

    Parameters
    ----------
    plan : mapping
        From `read_declaration`.
    result : CrossvalResult
    stored, provenance : mapping
        `config.json` and `provenance.json` of the result.
    folds : str
        Digest of its folds.

    Returns
    -------
    dict
        status ("declared", "departed", "late"), on, text, win, departures, earlier, beside (results
        of the same data when it was fitted), digest, claim.
    """
    departures = find_departures(plan, stored, provenance["inputs"], folds)
    earlier, on = list(plan["declared"]["earlier"]), plan["declared"]["on"]
    beside = provenance.get("earlier_results") or []
    earlier += [one for one in beside if one not in earlier and one.rpartition(" of ")[2] < on]
    if provenance["started"] < on:
        earlier = [*earlier, f"this one of {provenance['started']}"]
    status = "late" if earlier else "departed" if departures else "declared"
    win = status == "declared" and is_won(plan["claim"], result.losses, result.folds)
    when = on.replace("T", " ").replace("+00:00", " UTC")
    text = f"Declared on {when}, "
    text += {
        "declared": "before the fit",
        "departed": f"before the fit, which departed from it: {'; '.join(departures)}; so that "
        "this is exploratory",
        "late": f"after others of the same data: {'; '.join(earlier)}; so that this is exploratory",
    }[status]
    text += f" (plan {plan[SEAL][:12]}). Declared win ({_claimed(plan)}): {'yes' if win else 'no'}."
    return {
        "status": status,
        "on": when,
        "text": text,
        "win": win,
        "departures": departures,
        "earlier": earlier,
        "beside": beside,
        "digest": plan[SEAL],
        "claim": plan["claim"],
    }


def find_departures(
    plan: Mapping[str, Any],
    stored: Mapping[str, Any],
    inputs: Collection[str],
    folds: str,
) -> list[str]:
    """What was run otherwise than declared; paths, memory and devices decide no number."""
    sides = ("declared", "run")
    found = differences(_decided(plan, plan["inputs"]), _decided(stored, inputs), words=sides)
    if not found and folds != plan["design"]["folds_sha256"]:
        found.append("folds: dealt otherwise by this version of m1pipe")
    return found


def _decided(stored: Mapping[str, Any], inputs: Collection[str]) -> dict[str, Any]:
    """Settings, and what stands for files: their content is compared before."""
    settings = _without_none(settings_of(stored))
    settings["crossval"].pop("memory", None)
    settings["crossval"].get("head", {}).pop("device", None)
    encoders = {
        name: [
            _encoder(item, f"{name} {i}", inputs, items.index(item) + 1)
            for i, item in enumerate(items, start=1)
        ]
        for name, items in settings.get("encoders", {}).items()
    }
    files = {name: _file(settings[name]) for name in ("x", *ANSWERS, "aliases") if name in inputs}
    sources = [_file(source) for source in settings.get("source", [])]
    return {**settings, **files, "source": sources, "encoders": encoders}


def _encoder(item: str, role: str, inputs: Collection[str], place: int) -> str:
    """A run, or a file of settings, by the first place of the same one; a preset by its name."""
    if role in inputs:
        return f"run {place}"
    return f"settings {place}" if role + SETTINGS in inputs else item


def _file(address: str) -> str:
    """A file without its name, and the part of it that is read."""
    part = split_address(address)[1]
    return f"file#{part}" if part else "file"


def _without_none(value: Any) -> Any:
    """Tables without what is not set, which TOML cannot say."""
    if isinstance(value, Mapping):
        return {str(k): _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_none(part) for part in value]
    return value
