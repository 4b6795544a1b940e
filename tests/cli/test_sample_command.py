"""`activelearning sample`: exit codes, JSON, what it says, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

SMALL: dict[str, Any] = {
    "name": "small",
    "space": {
        "type": "crystal",
        "elements": ["Li", "O", "Fe"],
        "space_groups": [12, 62, 166, 225],
        "n_elements": [2, 3],
        "max_atoms": 12,
    },
    "objective": {"property": "density", "unit": "g/cm3"},
    "reward": {"beta": 2.0},
    "sampler": {"type": "gflownet", "steps": 10, "batch_size": 16, "hidden": [32], "n_components": 4},
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


@pytest.fixture
def without_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activelearning.sampling.run.RunPage.write", lambda _page, _path: None)


def test_a_sample_is_trained_and_told(run: Callable[..., Any], config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("sample", config, "--n", 20, "--out", out, "--structures", 1)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert "training: step 10 of 10, loss" in ran.out
    assert "small: 20 crystals after 10 steps, 20 unique" in lines
    assert any(line.startswith("density: median ") and "g/cm3 (untrained " in line for line in lines)
    assert {path.name for path in out.iterdir()} == {
        *("checkpoint.pt", "samples.csv", "structures", "structures.json", "summary.json", "run.html"),
    }


@pytest.mark.usefixtures("without_page")
def test_json_is_the_summary_and_nothing_else(run: Callable[..., Any], config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--n", 20, "--out", out, "--structures", 0, "--json")
    ran = run("sample", config, *options, "--steps", 12, "--set", "seed=2")
    assert ran.code == 0, ran.err
    assert ran.json == json.loads((out / "summary.json").read_text())
    assert (ran.json["name"], ran.json["steps"], ran.json["n"]) == ("small", 12, 20)
    again = run("sample", config, *options, "--set", "seed=2")
    assert again.json == ran.json
    changed = run("sample", config, *options)
    assert changed.code == 2
    assert "'seed' was 2 and is now 0" in changed.err


@pytest.mark.usefixtures("without_page")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--restrict", "elements"),
            "--restrict elements: write KEY=VALUE, as in --restrict elements=[Fe,O]",
        ),
        (("--set", "sampler.steps"), "--set sampler.steps: write KEY=VALUE"),
        (("--restrict", "elemnts=[Fe]"), "unknown key 'restrict.elemnts'; did you mean 'elements'"),
        (("--restrict", "elements=Fe"), "'restrict.elements' is 'Fe': input should be a list, as in [Fe]."),
        (("--restrict", "lengths=10"), "'restrict.lengths' is 10: input should be a list, as in [5, 10]."),
        (("--restrict", "bogus=1"), "unknown key 'restrict.bogus'; known: angles, "),
        (("--restrict", "elements=[Fe"), "--restrict elements=[Fe: the value is not valid YAML"),
        (("--set", "reward.beta=abc"), "'reward.beta' is 'abc': input should be a valid number"),
        (("--set", "sampler={type: random}", "--steps", "5"), "--steps: the sampler 'random' is not trained"),
        (("--trained", "somewhere", "--steps", "3"), "--trained takes a sampler as it is"),
        (("--trained", "somewhere"), "holds no trained sampler"),
        (("--validation", "nowhere.csv"), "nowhere.csv can't be read"),
        (("--set", "reward.type=target"), "the key 'reward.target' is missing"),
        (("--set", "sampler={type: pool}"), "sampler 'pool' proposes the candidates of a list"),
    ],
)
def test_bad_input_is_one_paragraph(
    run: Callable[..., Any], config: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    ran = run("sample", config, "--n", 5, "--out", tmp_path / "out", *arguments)
    assert ran.code == 2
    assert ran.out.replace("reading the validation crystals\n", "") == ""
    assert ran.err.startswith("Error: ")
    assert len(ran.err.splitlines()) == 1
    assert said in ran.err
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_is_said(run: Callable[..., Any], config: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    ran = run("sample", config, "--n", 5, "--out", tmp_path / "out")
    assert ran.code == 2
    assert "out is a file; name a folder" in ran.err


@pytest.mark.usefixtures("without_page")
def test_a_tilde_is_the_home_folder(
    run: Callable[..., Any], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    asked = ("sample", config, "--n", 3, "--structures", 0, "--set", "sampler={type: random}")
    ran = run(*asked, "--out", "~/out")
    assert ran.code == 0, ran.err
    assert (tmp_path / "home" / "out" / "samples.csv").is_file()
    assert run(*asked, "--trained", "~/out", "--out", "~/other").code == 0
    assert not (tmp_path / "~").exists()


def test_a_damaged_checkpoint_is_said(run: Callable[..., Any], config: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    ran = run("sample", config, "--n", 5, "--out", tmp_path)
    assert ran.code == 2
    assert "checkpoint.pt can't be read" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_run_says_what_a_config_of_sampling_lacks(run: Callable[..., Any], config: Path) -> None:
    ran = run("run", config)
    assert ran.code == 2
    for part in ("'fidelities' is missing", "'budget' is missing", "`activelearning sample`"):
        assert part in ran.err
    shipped = run("run", "crystal-density")
    assert shipped.code == 2
    assert "`activelearning sample`" in shipped.err


def test_sample_says_what_it_needs_of_a_campaign(run: Callable[..., Any], tmp_path: Path) -> None:
    ran = run("sample", "branin", "--n", 5, "--out", tmp_path / "out")
    assert ran.code == 2
    assert "space.type" in ran.err
    assert "crystal" in ran.err
    assert not (tmp_path / "out").exists()


def test_ctrl_c_ends_a_training_with_a_checkpoint(
    run: Callable[..., Any], config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["sample", str(config), "--n", "10", "--out", str(out), "--structures", "0"]
    arguments += ["--set", "sampler.steps=600"]
    process = subprocess.Popen(
        [sys.executable, "-m", "activelearning.cli.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("training: step"):
            break
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=120)
    assert process.returncode == 130, said + complained
    assert "the same command goes on from there" in complained
    assert "Traceback" not in complained
    assert [path.name for path in out.iterdir()] == ["checkpoint.pt"]
    step = torch.load(out / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < step < 600
    # Taken as it is, in place of going on for the rest of the 600 steps.
    assert run(*arguments, "--steps", step, "--json").json["steps"] == step
