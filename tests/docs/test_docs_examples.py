"""Every example of README, docs and --help is run, or listed with the reason why it cannot be."""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from doc_blocks import (
    DOCUMENTS,
    LANGUAGES,
    ROOT,
    Block,
    commands,
    help_block,
    logical_lines,
    markdown_blocks,
    notebook_blocks,
)
from doc_shell import run_shell
from doc_world import make_fold_changes, make_queues, make_sources, without_results

from m1pipe.cli.main import cli
from m1pipe.config import HeadConfig
from m1pipe.encoder import plan
from m1pipe.evaluation import compare
from m1pipe.plots import style
from m1pipe.synthesis.config import QualityConfig

# Lines that are not run, and why. Each has to be there, and its m1pipe command to be understood.
NOT_RUN = {
    "python benchmarks/synthetic_quality.py --rivals --control --out R.json": "takes an hour",
    "python benchmarks/other_studies.py --encoders vae --draws 4 --out other_studies.json": "hours",
    "python benchmarks/rival_encoders.py --scvi-python PYTHON --seeds 1 --work W --out R.json": (
        "hours"
    ),
    "make demo": "tests/workflow/test_workflow_demo.py runs what it calls",
    "m1pipe demo --out demo": "tests/workflow/test_workflow_demo.py runs what it calls",
    "make test": "the tests do not run themselves",
    "tensorboard --logdir runs": "serves until it is stopped",
    "export MLFLOW_TRACKING_URI=http://mlflow.example.org:5000": "no server",
    "m1pipe train cohort.h5ad --out runs/vae3 --latent 32 --log-to mlflow": "no server",
    "module load python/3.12": "a cluster's own command",
    "python3 -m venv venv && source venv/bin/activate": "makes an environment",
    "python3 -m venv .venv": "makes an environment",
    ".venv/bin/pip install ...": "installs; the line is to be filled in",
    "pip install torch": "installs",
    "pip install -c constraints.txt .": "installs",
    "pip install -c constraints.txt '.[snakemake]'": "installs",
    "snakemake -s jobs/snakemake/Snakefile --config study=study.toml --dry-run": "its tests run it",
    "snakemake -s jobs/snakemake/Snakefile --config study=study.toml --cores 4": "its tests run it",
    "snakemake -s jobs/snakemake/Snakefile --config study=study.toml "
    "--profile jobs/snakemake/slurm": "its tests run it",
    "torchrun --standalone --nproc-per-node=2 -m m1pipe train u.h5ad --out runs/vae1 "
    "--batch-size 512": "two processes: tests/training/test_training_distributed.py",
}
# What the examples of --help find there; each of them writes its own results anew.
TRAINED = """
prepare="--units counts --normalize total --target-sum 1e4 --log2p1"
m1pipe -q convert genes_unlabeled.tsv.gz u.h5ad $prepare --labels labels_unlabeled.tsv
m1pipe -q convert genes_unlabeled.tsv.gz u_counts.h5ad --units counts
m1pipe -q convert genes.tsv.gz x.h5ad $prepare --labels labels.tsv
m1pipe -q convert isoforms.tsv.gz y.h5ad $prepare --var tx2gene.tsv
for s in 1 2 3; do m1pipe -q train u.h5ad --out runs/vae$s --latent 8 --seed $s; done
m1pipe -q encode runs/vae1 x.h5ad --out z.h5ad
m1pipe -q map runs/vae1 x.h5ad --out atlas.h5ad
m1pipe -q map runs/vae1 new.h5ad --onto atlas.h5ad --out placed.h5ad
m1pipe -q fit --x x.h5ad --y y.h5ad --encoder runs/vae1 --conformal 0.2 --out runs/head
m1pipe -q fit --x x.h5ad --label tissue --encoder runs/vae1 --out runs/tissue
m1pipe -q crossval --x x.h5ad --y y.h5ad --encoder vae=runs/vae1 --models mean,ridge --out runs/cv
m1pipe -q train x.h5ad --out runs/cvae --latent 8 --condition cell_type
m1pipe -q split x.h5ad --out parts
cp parts/training.h5ad train.h5ad
cp u.h5ad u1.h5ad
cp x.h5ad u2.h5ad
cp parts/held_out.h5ad h.h5ad
m1pipe -q train train.h5ad --out runs/generator --latent 8 --condition tissue
m1pipe -q generate runs/generator -n 60 --out s.h5ad
cp changes.h5ad lfc.h5ad
cp changes.h5ad signatures.h5ad
m1pipe -q train lfc.h5ad --out runs/ae --latent 4 --beta 0
m1pipe -q enrich lfc.h5ad --gene-sets go.gmt --out go.h5ad
m1pipe -q sweep lfc.h5ad --neurons 1,3 --beta 0 --out sweep
"""
# Sizes that the examples ask for, and those that serve to see whether they run. UMAP is compiled
# for half a minute; its own tests are in tests/plots and notebooks/.
SMALLER = {
    "--size small": "--size tiny",
    "--size medium": "--size tiny",
    "simulate contrasts": "simulate contrasts --size tiny",
    "simulate expression": "simulate expression --n-training 100 --n-held-out 100 --n-genes 60",
    "-n 6000": "-n 60",
    "--repeats 3": "--repeats 1",
    "--neurons 50,200,1000": "--neurons 3",
    "--neurons 10,50": "--neurons 3",
    "--neurons 1,10,50,200,500,1000,2000 --layers 1,2,3,4,5,6,8,10": "--neurons 1,3 --layers 1,2",
    "--total 2000": "--total 20",
    "--method umap": "--method pca",
    "--trials 30": "--trials 3",
    "--train-sizes 30,60,120,300 --draws 10": "--train-sizes 10,15 --draws 2",
    "--train-sizes 12,24,60 --draws 5": "--train-sizes 12,24 --draws 2",
    "--train-sizes 8,16,32 --draws 4": "--train-sizes 8,16 --draws 2",
    "--train-sizes 20,50,100,300": "--train-sizes 20,50",
    "GSE101705": "Cheung",
    "sc.tl.umap(adata)\n": "",
}
# What a command needs beyond the test extra.
NEEDS = {
    "m1pipe contrasts": "inmoose",
    "--sampler optuna": "optuna",
    "--log-to tensorboard": "tensorboard",
    "import scanpy": "scanpy",
    "sc.tl.leiden": "igraph",
}
BLOCKS = [block for document in DOCUMENTS for block in markdown_blocks(document)]
HELP = [help_block(name, command) for name, command in commands()]
NOTEBOOKS = [b for path in sorted(ROOT.glob("notebooks/*.ipynb")) for b in notebook_blocks(path)]
SHELL = [block for block in [*BLOCKS, *HELP, *NOTEBOOKS] if block.language == "sh"]
STARTS = re.compile(r"(?m)^\s*(m1pipe|make|pip|python3?|torchrun|sbatch|bsub|import|from) ")
KNOWN = dict(commands())
# Documents whose sections begin anew, and sections that go on with the files of another one.
APART = "docs/results/"
AFTER = {
    "## Synthetic samples among the training samples": "## Cancer type",
    "## Synthetic samples, conditional by cancer": "## Cancer type",
    "### Loss against neurons and against layers": "## Compression: autoencoder",
    "## Synthetic samples, conditional by cell_type": "## Cell types",
    "## Own genes, and few labels": "## Isoform levels",
}
MAKES_FILES = re.compile(r"m1pipe (-q )?(convert|train|simulate) ")


def scenes() -> dict[str, list[Block]]:
    """What is followed from one beginning: a document, or a section of some."""
    found: dict[str, list[Block]] = {}
    for block in BLOCKS:
        document = block.where.split(":")[0]
        if document.startswith(APART):
            name = f"{document} {block.section}"
            found.setdefault(name, files_before(document, block.section)).append(block)
        else:
            found.setdefault(document, []).append(block)
    return found


def files_before(document: str, section: str) -> list[Block]:
    """What makes the files that a section goes on with, of the section that made them."""
    earlier = AFTER.get(section)
    if earlier is None:
        return []
    blocks = [b for b in BLOCKS if b.where.startswith(document) and b.section.startswith(earlier)]
    kept = [[line for line in logical_lines(b.text) if MAKES_FILES.search(line)] for b in blocks]
    return [replace(b, text="\n".join(k)) for b, k in zip(blocks, kept, strict=True)]


SCENES = scenes()


def test_blocks_are_of_known_languages_and_no_example_hides_among_text() -> None:
    assert len(BLOCKS) > 25 and len(HELP) > 30
    for block in BLOCKS:
        assert block.language in LANGUAGES, block.where
        if block.language == "text":
            assert not STARTS.search(block.text), f"{block.where}: an example, fenced as text"
        if block.language == "toml":
            assert tomllib.loads(block.text) and block.title, block.where


def test_every_command_shows_an_example() -> None:
    without = [block.section for block in HELP if not block.text]
    assert not without


def test_what_is_not_run_is_there_and_is_no_more_than_that() -> None:
    lines = {line for block in [*BLOCKS, *HELP] for line in logical_lines(block.text)}
    assert set(NOT_RUN) <= lines


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.where)
def test_shell_is_shell_and_commands_know_their_options(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    variables = dict(re.findall(r'(?m)^(\w+)="([^"]*)"$', block.text))
    for line in logical_lines(block.text):
        line = re.sub(r"\$(\w+)", lambda found: variables.get(found[1], "1"), line)
        for call in re.findall(r"m1pipe .*?(?=$|;|>)", line):
            _understand(shlex.split(call)[1:])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_within_text_know_their_options(document: str) -> None:
    text = re.sub(r"(?ms)^```.*?^```", "", (ROOT / document).read_text(encoding="utf-8"))
    for span in re.findall(r"`(m1pipe [a-z][^`]*)`", text):
        words = span.replace("\n", " ").replace("|", " ").split()[1:]
        name = next((n for n in (" ".join(words[:2]), words[0]) if n in KNOWN), None)
        assert name is not None, f"{document}: {span}"
        parts = [KNOWN[n] for n in KNOWN if n == name or n.startswith(f"{name} ")]
        known = {option for part in parts for param in part.params for option in param.opts}
        used = {word.strip("[]().,") for word in words if re.match(r"\[?--?[a-z]", word)}
        assert used <= known | {"--help"}, f"{document}: {span}"


def _understand(words: list[str]) -> None:
    """Parse a command's words by click, which refuses options and values that it does not know."""
    if words and words[0] in KNOWN and "..." not in words:
        command: click.Command = KNOWN[words[0]]
        context = click.Context(cli)
        while isinstance(command, click.Group):
            context, words = click.Context(command, info_name=words[0], parent=context), words[1:]
            command = command.commands[words[0]]
        command.make_context(words[0], words[1:], parent=context)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    make_sources(folder, ROOT / "jobs/study.toml")
    return folder


@pytest.fixture
def folder(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_queues(tmp_path / "queue")
    monkeypatch.setenv("PATH", f"{tmp_path}/queue:/usr/bin:/bin")
    return Path(shutil.copytree(sources, tmp_path / "here"))


@pytest.fixture(autouse=True, scope="module")
def _brief() -> Iterator[None]:
    """Whether an example runs does not depend on how long it trains and resamples.

    Nor on the pictures of its report, which other tests look at.
    """
    with pytest.MonkeyPatch.context() as patch:
        _at_most(patch, HeadConfig, epochs=3)
        _at_most(patch, QualityConfig, n_resamples=2, n_permutations=5, n_seeds=1, n_draws=1)
        _at_most(patch, QualityConfig, max_samples=40, max_genes=50)
        for name, n_draws in (("bootstrap_interval", 50), ("sign_flip", 99)):
            patch.setattr(compare, name, partial(getattr(compare, name), n_draws=n_draws))
        patch.setattr(style, "data_uri", lambda figure: "data:,")
        patch.setattr(plan, "resolve_epochs", lambda training, steps: 3)
        yield


def _at_most(patch: pytest.MonkeyPatch, config: type, **limits: int) -> None:
    """Have every setting of a class that is given here be that at most."""
    check = config.__post_init__

    def lower(self: Any) -> None:
        for name, limit in limits.items():
            object.__setattr__(self, name, min(getattr(self, name), limit))
        check(self)

    patch.setattr(config, "__post_init__", lower)


def smaller(text: str) -> str:
    """The same commands with the sizes of SMALLER."""
    return re.sub("|".join(map(re.escape, SMALLER)), lambda found: SMALLER[found[0]], text)


def skip_without_extras(text: str) -> None:
    """Skip a test whose commands need what is not installed."""
    for words, package in NEEDS.items():
        if words in text:
            pytest.importorskip(package, reason=f"{package} is not installed: {words} needs it")


def follow(blocks: list[Block], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what a reader does: type the shell, save the files, run the Python, in their order."""
    skip_without_extras("\n".join(block.text for block in blocks))
    for block in blocks:
        if block.language == "sh":
            lines = [line for line in logical_lines(block.text) if line not in NOT_RUN]
            run_shell(smaller("\n".join(lines)), folder, monkeypatch)
        elif block.language == "toml":
            with (folder / block.title).open("a", encoding="utf-8") as file:
                file.write(f"\n{block.text}\n")
        elif block.language == "python":
            monkeypatch.chdir(folder)
            exec(compile(smaller(block.text), block.where, "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_documents_can_be_followed(
    scene: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = SCENES[scene]
    if any("log_fold_change" in block.text for block in blocks):
        make_fold_changes(folder)
    follow(blocks, folder, monkeypatch)


@pytest.fixture(scope="module")
def trained(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, and what a user has of them after a while: files, runs, heads."""
    folder = tmp_path_factory.mktemp("trained") / "here"
    shutil.copytree(sources, folder)
    with pytest.MonkeyPatch.context() as patch:
        run_shell(TRAINED, folder, patch)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("block", HELP, ids=lambda block: block.section)
def test_examples_of_help_run(
    block: Block, sources: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_extras(block.text)
    start = sources if block.section in ("run", "jobs") else trained
    folder = Path(shutil.copytree(start, tmp_path / "here"))
    make_queues(tmp_path / "queue")
    monkeypatch.setenv("PATH", f"{tmp_path}/queue:/usr/bin:/bin")
    for line in logical_lines(block.text):
        if line not in NOT_RUN:
            without_results(folder, line)
            run_shell(smaller(line), folder, monkeypatch)
