"""Checkpoints that are damaged, or none, are said to be so before anything is drawn from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from activelearning.errors import InputError
from activelearning.sampling.checkpoint import FILE, read_checkpoint, write_checkpoint
from activelearning.sampling.training import Trainer, Training

FIELDS = Training.__dataclass_fields__
BROKEN = r"checkpoint\.pt can't be read: it is damaged or no checkpoint of activelearning"


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    training = Training({"seed": 0}, {}, step=3, sampler={"weights": torch.arange(5000.0)})
    write_checkpoint(tmp_path, training.to_state())
    return tmp_path / FILE


def test_a_checkpoint_is_read_back(whole: Path) -> None:
    state = read_checkpoint(whole.parent, FIELDS)
    assert state is not None
    assert Training.from_state(state).step == 3
    assert read_checkpoint(whole.parent / "nowhere", FIELDS) is None


def test_a_flipped_bit_of_a_weight_is_noticed(whole: Path) -> None:
    data = bytearray(whole.read_bytes())
    place = bytes(data).index(torch.arange(5000.0).numpy().tobytes()) + 8000
    data[place] ^= 1
    whole.write_bytes(data)
    with pytest.raises(InputError, match=BROKEN):
        read_checkpoint(whole.parent, FIELDS)


def no_mapping(path: Path) -> None:
    torch.save([1, 2], path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("a text\n"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\0" * 4096),
        lambda path: path.write_bytes(path.read_bytes()[:2000]),
        lambda path: torch.save({}, path),
        no_mapping,
    ],
)
def test_what_is_no_checkpoint_is_said_in_one_sentence(whole: Path, damage: Callable[[Path], Any]) -> None:
    damage(whole)
    with pytest.raises(InputError, match=BROKEN) as refused:
        read_checkpoint(whole.parent, FIELDS)
    assert "weights_only" not in str(refused.value)


def test_another_format_and_missing_fields_are_named(whole: Path) -> None:
    torch.save({"format": 7}, whole)
    with pytest.raises(InputError, match="has the format 7, and this version reads 1"):
        read_checkpoint(whole.parent, FIELDS)
    torch.save({"format": 1, "step": 2}, whole)
    with pytest.raises(InputError, match="lacks identity, fitted, ends"):
        read_checkpoint(whole.parent, FIELDS)


def test_steps_without_a_state_are_no_trained_sampler(tmp_path: Path) -> None:
    trainer = Trainer(
        object(),  # type: ignore[arg-type]
        lambda _candidates, _fidelities: torch.zeros(0),
        Training({}, {}, step=5, ends=[5]),
        tmp_path,
        seed=0,
        observe=lambda _event: None,
        must_stop=lambda: False,
    )
    with pytest.raises(InputError, match="5 steps holds no state of the sampler"):
        trainer.load()
