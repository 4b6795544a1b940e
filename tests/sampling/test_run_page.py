"""The run page: one file that needs nothing else, with what a person wants to know."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from activelearning.sampling.config import load_sample_config
from activelearning.sampling.run import Request, sample

Write = Callable[..., Path]
# Names of vocabularies that matplotlib's SVG states; nothing is loaded from them.
_NAMESPACES = r"http://(www\.w3\.org|purl\.org|creativecommons\.org|web\.resource\.org)/"


class Page(HTMLParser):
    """Heads, texts, references and the balance of tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.figures: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)
        for name, value in attrs:
            if name in ("href", "src", "xlink:href"):
                self.references.append(value or "")
            elif name == "id":
                self.ids.append(value or "")
            elif name == "aria-label":
                self.figures.append(value or "")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "h2":
            self.headings.append(data.strip())
            self._open.append("")


def page_of(config: Path, out: Path, **options: Any) -> tuple[str, dict[str, Any]]:
    summary = sample(
        load_sample_config(config),
        Request(n=30, out=out, **{"structures": 2, **options}),
        folder=config.parent,
    )
    return (out / "run.html").read_text(encoding="utf-8"), summary


def test_a_page_is_whole_and_needs_nothing_else(write_config: Write, tmp_path: Path) -> None:
    text, summary = page_of(write_config(lambda c: c.update(name="a-name")), tmp_path / "out")
    page = Page(text)
    assert page.headings == [
        *("Property", "Training", "Probability and reward", "Symmetry", "Composition", "Lattice"),
        *("Best crystals", "Config"),
    ]
    assert text.count("<svg") == len(page.figures) == 9
    assert not re.sub(_NAMESPACES, "", text).count("http")
    local = {reference for reference in page.references if not reference.startswith("#")}
    embedded = {reference for reference in local if reference.startswith("data:image/png;base64,")}
    files = local - embedded
    assert len(files) == summary["structures"] == 2
    assert all((tmp_path / "out" / file).is_file() for file in files)
    # References within pictures lead to ids of the same picture, each id being there once.
    assert len(page.ids) == len(set(page.ids))
    assert {reference[1:] for reference in page.references if reference.startswith("#")} <= set(page.ids)
    assert "<h1>a-name</h1>" in text
    assert "max(exp(2 x), 1e-08)" in text
    assert f"{summary['properties']['density']['samples']['median']:.4g}" in text
    assert f"Pearson {summary['correlation']['pearson']:.4f}" in text


def test_a_page_says_how_many_crystals_a_comparison_rests_on(write_config: Write, tmp_path: Path) -> None:
    page_of(write_config(), tmp_path / "whole", structures=0)
    (tmp_path / "known.csv").write_text(
        'space_group,composition,a,b,c,alpha,beta,gamma\n225,"{""Fe"": 4, ""O"": 4}",4.3,4.3,4.3,90,90,90\n'
    )
    config = write_config(
        lambda c: c.update(restrict={"space_groups": [225]}, validation="known.csv"), "part.yaml"
    )
    options = {"trained": tmp_path / "whole", "structures": 0}
    text, summary = page_of(config, tmp_path / "part", **options)
    assert summary["properties"]["density"]["validation"]["n"] == 1
    assert "(n = 1)" in text
    assert "<tr><th>known crystals</th><td>1</td>" in text
    assert "<tr><th>untrained, unrestricted</th><td>512</td>" in text
    assert f"among the best {summary['unique']}<" in text
    assert " seconds; each point" in text
    shown = re.sub(r"<svg.*?</svg>|<style.*?</style>|<pre>.*?</pre>", "", text, flags=re.DOTALL)
    assert not re.findall(r">[^<]*[ >]-\d[^<]*<", shown)  # minus signs, as on the axes


def test_equal_runs_give_equal_pages_but_for_the_time(write_config: Write, tmp_path: Path) -> None:
    first, _ = page_of(write_config(), tmp_path / "first")
    second, _ = page_of(write_config(), tmp_path / "second")
    minutes = re.compile(r"in [\d.]+ (minutes|seconds)")
    assert minutes.search(first)
    assert minutes.sub("", first) == minutes.sub("", second)


def test_texts_of_the_config_are_escaped(write_config: Write, tmp_path: Path) -> None:
    unit = "<script>alert(1)</script>"

    def hostile(config: dict[str, Any]) -> None:
        config["objective"] = {"property": "<b>n</b>", "unit": unit}
        config["fidelities"] = [{"oracle": "mine.py:Atoms"}]
        config["sampler"] = {"type": "random"}

    (tmp_path / "mine.py").write_text(
        "from oracles import Oracle\n\n\nclass Atoms(Oracle):\n"
        "    def evaluate_one(self, candidate):\n        return float(candidate.n_atoms)\n"
    )
    text, _ = page_of(write_config(hostile), tmp_path / "out", structures=0)
    assert "<script" not in text
    assert "<b>n" not in text
    assert "This sampler is not trained step by step" in text
    assert "Log-probabilities are not known" in text


@pytest.mark.parametrize("n", [1, 2])
def test_a_page_of_hardly_any_samples(write_config: Write, tmp_path: Path, n: int) -> None:
    config = load_sample_config(write_config())
    summary = sample(config, Request(n=n, out=tmp_path, structures=0), folder=tmp_path)
    assert summary["correlation"] == {"pearson": None, "spearman": None, "n": n, "left_out": 0}
    assert "One of them does not vary" in (tmp_path / "run.html").read_text(encoding="utf-8")
