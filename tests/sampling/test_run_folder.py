"""The folder of a run: nothing of a stranger's is replaced, failures leave what was there, one process at a time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from activelearning.errors import InputError
from activelearning.sampling.config import load_sample_config
from activelearning.sampling.folder import LOCK, held
from activelearning.sampling.run import Request, sample

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activelearning.sampling.run.RunPage.write", lambda _page, _path: None)


def small(config: dict[str, Any]) -> None:
    config["sampler"] = {"type": "random"}


def run(config: Path, out: Path, structures: int = 1) -> dict[str, Any]:
    request = Request(n=5, out=out, structures=structures)
    return sample(load_sample_config(config), request, folder=config.parent)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["samples.csv", "structures.json", "run.html", "structures/precious.cif"])
def test_what_no_run_has_written_is_not_replaced(write_config: Write, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("precious")
    with pytest.raises(InputError, match=rf"holds {name.split('/')[0]}, but neither checkpoint\.pt nor"):
        run(write_config(small), out)
    assert contents(out) == {name: b"precious"}


def test_of_the_structures_only_a_runs_own_are_replaced(write_config: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(write_config(small), out, structures=2)
    (first, second) = sorted(path.name for path in (out / "structures").iterdir())
    (out / "structures" / "mine.cif").write_text("precious")
    run(write_config(small), out, structures=1)
    assert {path.name for path in (out / "structures").iterdir()} == {first, "mine.cif"}
    assert second not in (out / "structures.json").read_text()


def test_a_place_that_cant_be_written_is_said_before_the_work(write_config: Write, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    events: list[object] = []
    for out in (tmp_path / "file" / "sub", Path("/proc/nowhere")):
        with pytest.raises(InputError, match=rf"--out: {out} can't be written"):
            sample(
                load_sample_config(write_config(small)),
                Request(n=5, out=out),
                folder=tmp_path,
                observe=events.append,
            )
    assert not events


@pytest.mark.parametrize("name", ["samples.csv", "summary.json", "run.html", "checkpoint.pt"])
def test_a_folder_in_a_files_place_is_said_before_the_work(
    write_config: Write, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    (out / name).mkdir(parents=True)
    with pytest.raises(InputError, match=f"{name} is a folder"):
        run(write_config(small), out)
    assert [path.name for path in out.iterdir()] == [name]


def test_a_failure_while_writing_leaves_the_results_before(
    write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(write_config(small), out)
    before = contents(out)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("activelearning.sampling.run.RunPage.write", full)
    with pytest.raises(InputError, match="No space left"):
        run(write_config(lambda c: c.update(sampler={"type": "random"}, restrict={})), out, structures=0)
    assert contents(out) == before


def test_a_folder_is_one_processs_at_a_time(write_config: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import sys; from pathlib import Path; from activelearning.sampling.folder import held\n"
        "with held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(InputError, match="another process is using"):
        run(write_config(small), out)
    other.kill()
    other.communicate()
    assert (out / LOCK).exists()  # what a kill leaves behind is in nobody's way
    run(write_config(small), out)
    assert not (out / LOCK).exists()


def test_a_folder_that_stays_empty_is_removed(tmp_path: Path) -> None:
    with held(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()
