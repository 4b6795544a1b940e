"""What the benchmark of sampled crystals keeps, and takes up again."""

import sampled_crystals as benchmark


def test_files_are_named_by_what_crystals_and_answers_depend_on(monkeypatch):
    said = {"version": "1", "content": {"weights": "a"}}
    monkeypatch.setattr(benchmark, "oracle_of", lambda fidelity, folder: None)
    monkeypatch.setattr(benchmark, "identity_of", lambda oracle: dict(said))
    names = [benchmark.run_name(10, 0), benchmark.run_name(20, 0), benchmark.run_name(10, 1)]
    for key, value in (("version", "2"), ("content", {"weights": "b"})):
        said[key] = value
        names.append(benchmark.run_name(10, 0))
    monkeypatch.setitem(benchmark.SHORT, "bvse", {"relax_steps": 5})
    names.append(benchmark.run_name(10, 0))
    assert len(set(names)) == len(names)
    assert benchmark.run_name(10, 0) == names[-1]


def test_reasons_are_told_by_their_kind():
    said = "Cl2 Ge6 in space group 11 has no realisation in 1 trial on its cell of 1200 Å³: no places; more."
    assert benchmark._kind(said) == "no realisation, no places"
    assert benchmark._kind("unstable: 3042 K after 33 steps at 600 K") == "unstable"
