"""What a plug-in does wrong fails its own evaluation, with the plug-in's name, and nothing else."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
from typing import Any

import pytest

from activelearning.campaign.tick import run, tick
from activelearning.errors import DeviceError, MachineError, is_broken_device, is_out_of_storage

# The second of the three evaluations of the initial design at `low` goes wrong.
TEMPLATE = """
import os, signal, sys, time
import numpy as np
from activelearning.measurement import Measurement, MeasuredValue
from oracles import Oracle


class Low(Oracle):
    n = 0

    def {method}(self, candidate{s}):
        {body}


class High(Oracle):
    def evaluate_one(self, candidate):
        return 0.5
"""

ONE = """Low.n += 1
        if Low.n == 2:
            {wrong}
        return 1.0"""
# A batch that fails is asked again one by one: what is wrong has to follow the candidate.
BATCH = """out = [Measurement.of("y", 1.0) for c in candidates]
        {wrong}
        return out"""


def _run(bench: Any, method: str, body: str, **changes: Any) -> list[Any]:
    s = "s" if method == "evaluate" else ""
    bench.write("oracle.py", TEMPLATE.format(method=method, s=s, body=body))
    values = {"initial_design": {"per_fidelity": {"low": 3, "high": 1}}, "stopping.max_rounds": 1, **changes}
    with bench.open(bench.config(values)) as engine:
        decision = run(engine)
        balance = engine.balance()
    assert decision.reason == "all 1 rounds are done"
    assert balance.reserved == pytest.approx(0.0, abs=1e-12)
    assert balance.spent <= 6.0 + 1e-9
    rows = bench.evaluations()
    assert all(row.state in ("succeeded", "failed") for row in rows)
    assert bench.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    assert bench.rows("PRAGMA foreign_key_check") == []
    low: list[Any] = [row for row in rows if row.round == 0 and row.fidelity == "low"]
    return low


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("raise ValueError('no such crystal')", "raised ValueError: no such crystal"),
        ("raise KeyError('x')", "raised KeyError: 'x'"),
        ("raise RuntimeError('two\\nlines')", "raised RuntimeError: two lines"),
        ("sys.exit(3)", "raised SystemExit: 3"),
        ("assert False", "raised AssertionError"),
        ("return float('nan')", "finite, not nan"),
        ("return float('inf')", "finite, not inf"),
        ("return np.float64('-inf')", "finite, not -inf"),
        ("return None", "raised TypeError"),
        ("return 'high'", "a measured value is a number, not 'high'"),
        ("return True", "a measured value is a number, not True"),
        ("return [1.0]", "raised TypeError"),
        ("return Measurement.of('z', 1.0)", "measured z, but this fidelity's property is 'y'"),
        ("return Measurement.of('y', 1.0, unit='meV')", "in 'meV', but the campaign states the unit 'eV'"),
        ("return Measurement.of('y', 1.0, std=-1.0)", "a standard error is finite and not negative"),
        ("return Measurement.of('y', 1.0, metadata={'a': object()})", "metadata that is no JSON"),
        ("return Measurement.of('y', 1.0, metadata={'a': float('nan')})", "metadata that is no JSON"),
        ("return Measurement.failed('it melted')", "it melted"),
    ],
)
def test_one_bad_evaluation_fails_alone(bench: Any, wrong: str, reason: str) -> None:
    low = _run(bench, "evaluate_one", ONE.format(wrong=wrong))
    assert [row.state for row in low] == ["succeeded", "failed", "succeeded"]
    assert reason in low[1].reason
    if "melted" not in reason:
        assert "'oracle.py:Low'" in low[1].reason
    assert low[1].cost_paid == 0.25  # a failure that states no cost is charged in full


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("return out[:-1]", "returned 2 values for 3 candidates"),
        ("return out + out", "returned 6 values for 3 candidates"),
        ("return None", "raised TypeError"),
        ("raise ValueError('no batch')", "raised ValueError: no batch"),
        ("out = [None for c in candidates]", "returned a NoneType; a number or a Measurement is wanted"),
        ("out = ['1' for c in candidates]", "returned a str"),
        ("out = [float('nan') for c in candidates]", "returned nan"),
    ],
)
def test_a_batch_that_breaks_the_contract_fails(bench: Any, wrong: str, reason: str) -> None:
    low = _run(bench, "evaluate", BATCH.format(wrong=wrong))
    assert [row.state for row in low] == ["failed"] * 3
    for row in low:
        assert reason in row.reason
        assert "'oracle.py:Low'" in row.reason


def test_one_bad_candidate_never_fails_its_batch(bench: Any) -> None:
    wrong = """Low.bad = getattr(Low, "bad", candidates[0].key)
        if any(c.key == Low.bad for c in candidates): raise ValueError("this one")"""
    low = _run(bench, "evaluate", BATCH.format(wrong=wrong))
    assert [row.state for row in low] == ["failed", "succeeded", "succeeded"]


def test_numbers_of_numpy_and_torch_are_numbers(bench: Any) -> None:
    body = "import torch; Low.n += 1; return [np.float32(0.5), torch.tensor(0.5), 1][Low.n % 3]"
    assert [row.state for row in _run(bench, "evaluate_one", body)] == ["succeeded"] * 3


def test_failures_charge_what_they_state(bench: Any) -> None:
    low = _run(
        bench,
        "evaluate_one",
        "Low.n += 1; return [Measurement.failed('a'), Measurement.failed('b', cost=0.1), "
        "Measurement.failed('c', cost=99.0)][(Low.n - 1) % 3]",
        **{"stopping.max_failed_rounds": 9},
    )
    assert [row.cost_paid for row in low] == [0.25, 0.1, 0.25]


def test_a_measured_charge_is_what_it_took_up_to_the_limit(bench: Any) -> None:
    low = _run(
        bench,
        "evaluate_one",
        "Low.n += 1; return Measurement.of('y', 1.0, cost=[0.2, 0.0, 7.0][(Low.n - 1) % 3])",
        **{"fidelities.0.charge": "measured"},
    )
    assert [row.cost_paid for row in low] == [0.2, 0.0, 0.25]


def test_a_fixed_charge_is_the_configured_cost(bench: Any) -> None:
    low = _run(bench, "evaluate_one", "return Measurement.of('y', 1.0, cost=0.01)")
    assert [row.cost_paid for row in low] == [0.25] * 3


def test_metadata_come_back_as_json(bench: Any) -> None:
    low = _run(bench, "evaluate_one", "return Measurement.of('y', 1.0, metadata={'a': (1, np.float64(2))})")
    assert low[0].details == {"a": [1, 2.0]}


def test_files_are_kept_with_their_checksums(bench: Any) -> None:
    body = """from pathlib import Path
        one, two = Path(bench) / "a" / "log.txt", Path(bench) / "b" / "log.txt"
        for i, path in enumerate((one, two)):
            path.parent.mkdir(exist_ok=True)
            path.write_text(str(i))
        files = (str(one), str(two), str(one), str(Path(bench) / "absent"))
        return Measurement.of('y', 1.0, artifacts=files)""".replace("bench)", f"{str(bench.folder)!r})")
    low = _run(bench, "evaluate_one", body)
    rows = bench.rows(f"SELECT path, sha256, size FROM artifacts WHERE evaluation_key = '{low[0].key}'")
    import hashlib

    found = {
        hashlib.sha256((bench.folder / "artifacts" / "small" / r["path"]).read_bytes()).hexdigest()
        for r in rows
    }
    assert found == {hashlib.sha256(b"0").hexdigest(), hashlib.sha256(b"1").hexdigest()}
    assert {row["sha256"] for row in rows} == found
    assert list(low[0].details["lost_artifacts"]) == [str(bench.folder / "absent")]


def test_a_campaign_without_a_single_success_ends(bench: Any) -> None:
    bench.write(
        "oracle.py",
        "from oracles import Oracle\n"
        "class Low(Oracle):\n"
        "    def evaluate_one(self, candidate): raise ValueError('never')\n"
        "High = type('High', (Low,), {})\n",
    )
    config = bench.config({"budget": {"total": 60.0, "per_round": 2.0}, "stopping.max_failed_rounds": 2})
    with bench.open(config) as engine:
        decision = run(engine)
        assert engine.round == 2
        assert engine.repository.state() == ("finished", decision.reason)
    assert decision.reason == "2 rounds in a row brought not a single success"


CRASH = """
import os, signal
from oracles import Oracle


class Low(Oracle):
    def evaluate_one(self, candidate):
        if candidate.values[0] == {x}:
            {crash}
        return 1.0


class High(Oracle):
    def evaluate_one(self, candidate):
        return 0.5
"""


def test_an_oracle_that_takes_its_process_along_is_isolated_at_last(bench: Any) -> None:
    """Without a timeout it runs in the campaign's own process; the third one asks it where it harms nobody."""
    config = bench.config({"stopping.max_rounds": 1})
    with bench.open(config) as engine:
        engine.propose()
        assert engine._plan is not None
        bad = engine._plan.evaluations[1].candidate.values[0]
    bench.write("oracle.py", CRASH.format(x=repr(bad), crash="os.kill(os.getpid(), signal.SIGSEGV)"))
    from activelearning.contracts import registry

    for attempt in range(3):
        child = os.fork()
        if child == 0:
            import sys

            for name in [n for n in sys.modules if n.startswith("activelearning_plugin_")]:
                del sys.modules[name]
            assert registry is not None
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            with bench.open(config) as engine:
                run(engine)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSEGV
        assert died is (attempt < 2), f"attempt {attempt}: {status}"
    low = [row for row in bench.evaluations() if row.round == 0 and row.fidelity == "low"]
    assert [row.state for row in low] == ["succeeded", "failed"]
    assert "the process of the oracle 'oracle.py:Low' died: it was killed by signal 11" in low[1].reason
    assert "takeovers" not in json.dumps([row.details for row in bench.evaluations()])


def test_what_came_one_by_one_is_not_asked_again(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of an oracle that works on single candidates are kept while the others are being made."""
    from activelearning.campaign import evaluation

    monkeypatch.setattr(evaluation, "KEEP_SECONDS", 0.0)
    asked = bench.folder / "asked"
    bench.write(
        "oracle.py",
        "from oracles import Oracle\n"
        "class Low(Oracle):\n"
        "    def evaluate_one(self, candidate):\n"
        f"        with open({str(asked)!r}, 'a') as file: file.write(candidate.key + '\\n')\n"
        f"        if len(open({str(asked)!r}).readlines()) == 3: raise KeyboardInterrupt\n"
        "        return 1.0\n"
        "class High(Low):\n"
        "    def evaluate_one(self, candidate): return 0.5\n",
    )
    config = bench.config(
        {"initial_design": {"per_fidelity": {"low": 4, "high": 1}}, "stopping.max_rounds": 1}
    )
    with pytest.raises(KeyboardInterrupt), bench.open(config) as engine:
        tick(engine)
    states = [row.state for row in bench.evaluations() if row.fidelity == "low"]
    assert states == ["succeeded", "succeeded", "running", "running"]
    assert all(row.claimed_by is None for row in bench.evaluations())
    with bench.open(config) as engine:
        run(engine)
    keys = asked.read_text().split()
    assert len(keys) == len(set(keys)) + 1  # the one at work when it was interrupted
    assert {row.state for row in bench.evaluations()} == {"succeeded"}


@pytest.mark.parametrize(
    ("error", "storage", "device"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True, False),
        (OSError(errno.ENOENT, "No such file"), False, False),
        (OSError("1024 requested and 0 written"), False, False),  # without a code it may be anything
        (RuntimeError("CUDA error: unspecified launch failure"), False, True),
        (RuntimeError("CUDA out of memory"), False, False),
        (MemoryError(), False, False),
    ],
)
def test_what_would_be_met_again_is_told_from_the_rest(error: Exception, storage: bool, device: bool) -> None:
    assert (is_out_of_storage(error), is_broken_device(error)) == (storage, device)
    raised_from, handled = ValueError("it"), ValueError("another")
    raised_from.__cause__ = error
    error.__cause__ = raised_from  # a circle has an end
    handled.__context__ = error
    assert is_out_of_storage(raised_from) == storage
    assert not is_out_of_storage(handled)
    error.__cause__ = None


def test_a_candidate_that_breaks_the_device_each_time_fails_alone_in_the_end(bench: Any) -> None:
    """As one that takes its process along: the third run asks it where it harms nobody."""
    name = bench.folder / "bad"
    body = f"""if repr(candidate.values[0]) == open({str(name)!r}).read():
            raise RuntimeError("CUDA error: device-side assert")
        return 1.0"""
    bench.write("oracle.py", TEMPLATE.format(method="evaluate_one", s="", body=body))
    config = bench.config({"stopping.max_rounds": 1})
    with bench.open(config) as engine:
        engine.propose()
        assert engine._plan is not None
        name.write_text(repr(engine._plan.evaluations[1].candidate.values[0]))
    said = "The machine fails the oracle 'oracle.py:Low': RuntimeError: CUDA error: device-side assert."
    for _ in range(2):
        with (
            bench.open(config) as engine,
            pytest.raises(DeviceError, match=f"{re.escape(said)} What was asked"),
        ):
            run(engine)
        assert not any(row.state == "failed" for row in bench.evaluations())
    with bench.open(config) as engine:
        assert run(engine).reason == "all 1 rounds are done"
    assert [row.reason for row in bench.evaluations() if row.state != "succeeded"] == [said]


@pytest.mark.parametrize("is_batched", [False, True])
def test_a_full_disk_stops_the_campaign_and_fails_no_evaluation(bench: Any, is_batched: bool) -> None:
    full = 'if Low.n == 3 and not os.path.exists("room"): raise OSError(28, "No space left on device")'
    one, batch = ONE, f"for c in candidates:\n            Low.n += 1\n            {full}\n        {BATCH}"
    body = batch.format(wrong="pass") if is_batched else one.replace("if Low.n == 2:", full).format(wrong="")
    method = "evaluate" if is_batched else "evaluate_one"
    source = TEMPLATE.format(method=method, s="s" if is_batched else "", body=body)
    bench.write("oracle.py", source.replace('"room"', repr(str(bench.folder / "room"))))
    config = bench.config(
        {"initial_design": {"per_fidelity": {"low": 3, "high": 1}}, "stopping.max_rounds": 1}
    )
    said = r"'oracle\.py:Low': OSError: \[Errno 28\] No space left on device\. What"
    with bench.open(config) as engine, pytest.raises(MachineError, match=said):
        run(engine)
    low = [row.state for row in bench.evaluations() if row.fidelity == "low"]
    assert bench.rows("SELECT SUM(spent) AS spent FROM ledger")[0]["spent"] < 1.6
    assert low == (["running"] * 3 if is_batched else ["succeeded", "succeeded", "running"])

    (bench.folder / "room").touch()
    with bench.open(config) as engine:
        assert run(engine).reason == "all 1 rounds are done"
    assert {row.state for row in bench.evaluations()} == {"succeeded"}
    assert all(row.details == {} for row in bench.evaluations())  # nobody took anything over
