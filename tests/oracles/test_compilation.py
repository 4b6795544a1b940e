"""Compiled loops, and what is wrong with the files that keep them."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SOURCE = """
from oracles.compilation import compiled

@compiled()
def shares(x):
    return x / x.sum()
"""


def load(folder):
    """The function, as another process would import it."""
    path = folder / "kept.py"
    if not path.exists():
        path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("kept", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["kept"] = module
    spec.loader.exec_module(module)
    return module.shares


@pytest.fixture(autouse=True)
def forget():
    yield
    sys.modules.pop("kept", None)


def files(folder, ending):
    return sorted(folder.glob(f"__pycache__/*.{ending}"))


def test_what_is_compiled_is_kept(tmp_path):
    numbers = np.array([1.0, 3.0])
    first, second = load(tmp_path), load(tmp_path)
    np.testing.assert_array_equal(first(numbers), [0.25, 0.75])
    assert len(files(tmp_path, "nbi")) == len(files(tmp_path, "nbc")) == 1
    np.testing.assert_array_equal(second(numbers), [0.25, 0.75])
    assert sum(second.stats.cache_hits.values()) == 1


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("content", [b"", b"\x80\x05K\x01.", b"nothing that was pickled"], ids=repr)
def test_damaged_files_are_compiled_anew(tmp_path, ending, content):
    numbers = np.array([1.0, 3.0])
    load(tmp_path)(numbers)
    (path,) = files(tmp_path, ending)
    path.write_bytes(content)
    np.testing.assert_array_equal(load(tmp_path)(numbers), [0.25, 0.75])
    third = load(tmp_path)
    np.testing.assert_array_equal(third(numbers), [0.25, 0.75])
    assert sum(third.stats.cache_hits.values()) == 1


def test_code_of_other_types_is_not_taken(tmp_path):
    """As when two processes write at once: an index of one, and what the other compiled."""
    load(tmp_path)(np.array([1.0, 3.0]))
    (path,) = files(tmp_path, "nbc")
    of_doubles = path.read_bytes()
    for file in tmp_path.glob("__pycache__/*"):
        file.unlink()
    singles = np.array([1.0, 3.0], np.float32)
    load(tmp_path)(singles)
    (path,) = files(tmp_path, "nbc")
    path.write_bytes(of_doubles)
    found = load(tmp_path)(singles)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([0.25, 0.75], np.float32))


def test_a_full_disk_costs_no_answer(tmp_path, monkeypatch):
    function = load(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    np.testing.assert_array_equal(function(np.array([1.0, 3.0])), [0.25, 0.75])
    assert files(tmp_path, "nbc") == []


def test_processes_that_compile_at_once_agree(tmp_path):
    (tmp_path / "kept.py").write_text(SOURCE)
    code = "import kept, numpy; print(kept.shares(numpy.array([1.0, 3.0])).tolist())"
    paths = os.pathsep.join([str(tmp_path), *(path for path in sys.path if path)])
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": paths},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    assert [process.communicate()[0].strip() for process in running] == ["[0.25, 0.75]"] * 3
