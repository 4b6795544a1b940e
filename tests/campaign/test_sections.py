"""A plug-in's section is checked against its own constructor, and every mistake names key and plug-in."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from activelearning.campaign.sections import construct
from activelearning.contracts import registry
from activelearning.errors import ConfigError, PluginError

PLUGINS = """
from pathlib import Path
from typing import Literal

from activelearning.errors import ConfigError


class Plain:
    pass


class Typed:
    def __init__(self, steps: int = 3, rate: float = 0.1, mode: Literal["a", "b"] = "a",
                 sizes: list[int] | None = None, table: Path | None = None,
                 tables: list[Path] = (), either: str | Path = "", space: str = "none", model: str = "m"):
        if steps < 0:
            raise ConfigError("steps must not be negative.")
        if rate > 1:
            raise RuntimeError("too fast")
        self.__dict__.update(locals())


class Needs:
    def __init__(self, file: Path):
        self.file = file


class Open:
    def __init__(self, first: int = 1, **params):
        self.first, self.params = first, params


class Given:
    def __init__(self, space, n_fidelities, steps: int = 3):
        self.given, self.steps = (space, n_fidelities), steps


class Unreadable:
    def __init__(self, value: "NoSuchType" = None):
        pass


function = print
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    (tmp_path / "plugins.py").write_text(PLUGINS)
    return tmp_path


def make(plugins: Path, name: str, *given: Any, **params: Any) -> Any:
    return construct(
        "oracles", f"plugins.py:{name}", params, *given, key="fidelities.md.params", folder=plugins
    )


def test_parameters_arrive_as_their_annotations_say(plugins: Path) -> None:
    made = make(plugins, "Typed", steps="4", rate=1, sizes=[1, 2], space="a parameter like any other")
    assert (made.steps, made.rate, made.sizes, made.mode) == (4, 1.0, [1, 2], "a")
    assert isinstance(made.rate, float)
    assert made.space == "a parameter like any other"


def test_unknown_parameter_names_the_nearest(plugins: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"unknown key 'fidelities\.md\.params\.stps'; did you mean 'steps'\?"
    ):
        make(plugins, "Typed", stps=3)
    with pytest.raises(ConfigError, match=r"'fidelities\.md\.params\.steps'; known: none"):
        make(plugins, "Plain", steps=3)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"steps": "many"}, r"'fidelities\.md\.params\.steps' is 'many': input should be a valid integer"),
        ({"steps": 1.5}, r"params\.steps' is 1\.5"),
        ({"mode": "c"}, r"params\.mode' is 'c': input should be 'a' or 'b'"),
        ({"sizes": [1, "x"]}, r"params\.sizes\.1' is 'x'"),
        ({"table": 3}, r"params\.table' is 3"),
        ({"steps": -1}, r"fidelities\.md\.params \(plugins\.py:Typed\): steps must not be negative"),
    ],
)
def test_wrong_values_are_named(plugins: Path, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(plugins, "Typed", **params)


def test_a_missing_parameter_is_named(plugins: Path) -> None:
    with pytest.raises(ConfigError, match=r"the key 'fidelities\.md\.params\.file' is missing"):
        make(plugins, "Needs")


def test_a_constructor_that_raises_is_named(plugins: Path) -> None:
    with pytest.raises(PluginError, match=r"'plugins\.py:Typed' can't be made .* RuntimeError: too fast"):
        make(plugins, "Typed", rate=2.0)


def test_paths_start_at_the_config_s_folder(plugins: Path, tmp_path_factory: Any) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "t.csv"
    made = make(plugins, "Typed", table="data/t.csv", tables=["a.csv", str(elsewhere)])
    assert made.table == plugins / "data" / "t.csv"
    assert made.tables == [plugins / "a.csv", elsewhere]
    assert make(plugins, "Typed", table=str(elsewhere)).table == elsewhere
    assert make(plugins, "Typed", table=None).table is None
    assert make(plugins, "Typed", either="t.csv").either == plugins / "t.csv"


def test_paths_may_name_the_environment(plugins: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("MEASURED", "/data/measured")
    assert make(plugins, "Typed", table="${MEASURED}/t.csv").table == Path("/data/measured/t.csv")
    monkeypatch.setenv("MEASURED", "measured")
    assert make(plugins, "Typed", table="${MEASURED}/t.csv").table == plugins / "measured" / "t.csv"
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("MEASURED")
        else:
            monkeypatch.setenv("MEASURED", value)
        with pytest.raises(ConfigError, match=r"md\.params\.table: .*variable MEASURED, which is not set"):
            make(plugins, "Typed", table="${MEASURED}/t.csv")


def test_a_constructor_may_take_anything(plugins: Path) -> None:
    made = make(plugins, "Open", first=2, second="x")
    assert (made.first, made.params) == (2, {"second": "x"})


def test_what_the_engine_hands_over_is_no_key(plugins: Path) -> None:
    made = make(plugins, "Given", "the space", 2, steps=4)
    assert (made.given, made.steps) == (("the space", 2), 4)
    with pytest.raises(ConfigError, match="unknown key"):
        make(plugins, "Given", "the space", 2, n_fidelities=3)


def test_a_signature_that_cannot_be_checked(plugins: Path) -> None:
    with pytest.raises(PluginError, match=r"Unreadable.__init__ has an annotation .*'NoSuchType'"):
        make(plugins, "Unreadable")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plugins.py:Absent", r"has no class 'Absent'"),
        ("plugins.py:function", r"names a builtin_function_or_method; the oracle must be a class"),
        ("absent.py:Thing", r"names a file that does not exist: .*absent\.py"),
        ("broken.py:Thing", r"fails on import: ZeroDivisionError"),
        ("no.such.module:Thing", r"can't be imported: ModuleNotFoundError.*PYTHONPATH"),
        ("json:JSONDecodr", r"json has no class 'JSONDecodr'"),
        ("functon", r"no oracle named 'functon'\. Did you mean 'function'\?"),
        ("zzz", r"no oracle named 'zzz'\. Known: .*density.*package\.module:Class"),
    ],
)
def test_classes_that_cannot_be_found(plugins: Path, name: str, message: str) -> None:
    (plugins / "broken.py").write_text("1 / 0")
    with pytest.raises(PluginError, match=message):
        construct("oracles", name, {}, key="fidelities.md.params", folder=plugins)


def test_a_class_by_module_and_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    from fractions import Fraction

    made = construct("oracles", "fractions:Fraction", {}, key="k", folder=None)
    assert isinstance(made, Fraction)
    points = [
        EntryPoint("fraction", "fractions:Fraction", "activelearning.oracles"),
        EntryPoint("broken", "no.such.module:Thing", "activelearning.oracles"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert isinstance(construct("oracles", "fraction", {}, key="k", folder=None), Fraction)
    with pytest.raises(PluginError, match=r"'broken' \(no\.such\.module:Thing\) can't be imported"):
        construct("oracles", "broken", {}, key="k", folder=None)


def test_a_section_s_own_keys_are_hinted_at(bench: Any) -> None:
    with pytest.raises(ConfigError, match=r"'acquisition\.batch_sise'; did you mean 'batch_size'\?"):
        bench.open(bench.config({"acquisition.batch_sise": 3}))
