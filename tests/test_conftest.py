"""What the tests say of themselves: what was skipped, and data drawn by other seeds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def _run(folder: Path, code: str, returncode: int = 0, **variables: str) -> list[str]:
    """Lines of pytest on a file beside a copy of our conftest."""
    shutil.copy(HERE / "conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-s", str(folder)]
    given = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "M1PIPE_TEST_SEED": "0", **variables}
    env = {name: value for name, value in os.environ.items() if name != "M1PIPE_TEST_SKIPS"} | given
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)
    assert done.returncode == returncode, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_a_line_says_what_was_skipped_for_want_of_what(tmp_path: Path) -> None:
    code = (
        "import pytest\n"
        "@pytest.mark.parametrize('k', range(2))\n"
        "def test_real(k, test_data): pass\n"
        "def test_optional(): pytest.importorskip('gseapy_is_not_here')\n"
        "@pytest.mark.skip(reason='the moon is down')\n"
        "def test_other(): pass\n"
        "def test_runs(): pass\n"
    )
    lines = _run(tmp_path, code, M1PIPE_TEST_DATA="")
    assert "1 passed, 4 skipped" in lines[-1]
    assert lines[-2] == (
        "skipped: 2 for want of the real data sets (M1PIPE_TEST_DATA=FOLDER make test); "
        '1 for want of gseapy (.venv/bin/pip install -c constraints.txt -e ".[gsea]"); '
        "1: the moon is down"
    )


def test_nothing_is_said_where_nothing_was_skipped(tmp_path: Path) -> None:
    lines = _run(tmp_path, "def test_runs(): pass\n")
    assert "1 passed" in lines[-1] and not any("skipped" in line for line in lines)


def test_a_skip_that_is_not_expected_fails_the_run(tmp_path: Path) -> None:
    code = (
        "import pytest\n"
        "def test_optional(): pytest.importorskip('gseapy_is_not_here')\n"
        "@pytest.mark.skip(reason='the moon is down')\n"
        "def test_other(): pass\n"
        "def test_runs(): pass\n"
    )
    both = "gseapy|the moon"
    assert "1 passed, 2 skipped" in _run(tmp_path, code, M1PIPE_TEST_SKIPS=both)[-1]
    lines = _run(tmp_path, code, 1, M1PIPE_TEST_SKIPS="gseapy")
    assert "1 passed, 2 skipped" in lines[-1]
    assert lines[-2] == "FAILED: M1PIPE_TEST_SKIPS does not list the skip: the moon is down"


def test_another_seed_is_for_the_data_of_tests_alone(tmp_path: Path) -> None:
    package = tmp_path / "lib"
    package.mkdir()
    (package / "drawing.py").write_text(
        "import numpy as np\ndef draw(): return np.random.default_rng(3).random()\n"
    )
    tests = tmp_path / "tests"
    tests.mkdir()
    code = (
        "import numpy as np, drawing\n"
        "def test_it():\n"
        "    own = [np.random.default_rng(s).random() for s in (3, [3, 1])]\n"
        "    print('\\ndrawn', *own, drawing.draw())\n"
    )
    path = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
    drawn = []
    for shift in ("0", "1", "2"):
        lines = _run(tests, code, PYTHONPATH=path, M1PIPE_TEST_SEED=shift)
        drawn.append(next(line.split()[1:] for line in lines if line.startswith("drawn")))
    plain, one, two = drawn
    assert plain[0] == plain[2]  # 0 leaves them as they are
    assert len({plain[0], one[0], two[0]}) == 3 and len({plain[1], one[1], two[1]}) == 3
    assert plain[2] == one[2] == two[2]
