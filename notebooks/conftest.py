"""The notebooks are slow tests, with the commands of this environment on the path."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

# What a notebook needs beyond the test extra.
NEEDS = {"03_encoder_downstream": "scanpy", "06_log_fold_changes_to_go_terms": "inmoose"}

os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them; `--nbmake` makes an item of each."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.slow)
            needed = NEEDS.get(item.path.stem)
            if needed and find_spec(needed) is None:
                item.add_marker(pytest.mark.skip(reason=f"{needed} is not installed"))
