"""The pages say what is true: links lead somewhere, configs are valid, shown code is the example's code."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import get_args

import click
import pytest
import typer
import yaml
from pydantic import BaseModel

from activelearning.campaign.config import CampaignConfig, parse_config
from activelearning.campaign.shipped import shipped_configs
from activelearning.cli.main import app
from activelearning.contracts.registry import load_plugin, plugin_names
from activelearning.sampling.config import BASE, SampleConfig, parse_sample_config
from activelearning.spaces.crystal import CrystalSpace

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    relative = [target for target in targets if "://" not in target]
    missing = [target for target in relative if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shown_campaigns_are_valid(page: Path) -> None:
    for block in blocks(page, "yaml"):
        value = yaml.safe_load(block)
        # Excerpts show single sections; what has a name is shown whole, a campaign by its budget.
        if "name" in value:
            parse = parse_config if "budget" in value else parse_sample_config
            parse(value, source=page.name)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_example_campaigns_are_valid_and_say_what_they_are(example: Path) -> None:
    text = example.read_text()
    assert text.startswith("# ")
    parse_config(yaml.safe_load(text), source=example.name)


def test_the_plugin_page_shows_the_oracle_that_runs() -> None:
    page = ROOT / "docs" / "plugins.md"
    source = ast.parse((EXAMPLES / "branin_oracle.py").read_text())
    without_docstring = ast.Module(body=source.body[1:], type_ignores=[])
    shown = [ast.parse(block) for block in blocks(page, "python")]
    assert ast.dump(without_docstring) in [ast.dump(module) for module in shown]
    campaign = yaml.safe_load((EXAMPLES / "plugin_campaign.yaml").read_text())
    assert campaign in [yaml.safe_load(block) for block in blocks(page, "yaml")]


def test_the_plugin_page_shows_the_sections_of_the_example_with_own_parts() -> None:
    campaign = yaml.safe_load((EXAMPLES / "own_parts_campaign.yaml").read_text())
    shown = [yaml.safe_load(block) for block in blocks(ROOT / "docs" / "plugins.md", "yaml")]
    parts = ("space", "sampler", "surrogate", "acquisition")
    assert {part: campaign[part] for part in parts} in shown


def test_the_command_line_page_names_every_command_and_no_other() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text()
    named = re.findall(r"^\| `activelearning ((?:lab|proxy|db)? ?[a-z-]+)", page, flags=re.MULTILINE)
    assert sorted(named) == sorted(commands(typer.main.get_command(app)))


def commands(command: click.Command, name: str = "") -> list[str]:
    """Full names of all commands below a command."""
    below = getattr(command, "commands", None)
    if below is None:
        return [name]
    return [full for part, inner in below.items() for full in commands(inner, f"{name} {part}".strip())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shown_commands_take_the_options_they_are_shown_with(page: Path) -> None:
    text = page.read_text()
    shown = re.findall(r"^\$ activelearning (.*?)(?:\s+#.*)?$", text, flags=re.MULTILINE)
    shown += re.findall(r"^\| `activelearning ([^`]*)`", text, flags=re.MULTILINE)
    for line in shown:
        command = typer.main.get_command(app)
        words = line.split()
        while words and words[0] in getattr(command, "commands", {}):
            command = getattr(command, "commands")[words.pop(0)]  # noqa: B009 (only groups have it)
        known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        options = {word for word in words if word.startswith("-")}
        assert options <= known, line


def test_the_configuration_page_names_every_key() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    named = set(re.findall(r"`([a-z_]+)`", page))
    assert keys(CampaignConfig) - named == set()
    assert set(inspect.signature(CrystalSpace).parameters) - named - RESERVED == set()


def test_the_sampling_page_names_every_key_and_every_shipped_config() -> None:
    page = (ROOT / "docs" / "sampling.md").read_text()
    named = set(re.findall(r"`([a-z_]+)`", page))
    of_sampling = {*SampleConfig.model_fields, BASE} - set(CampaignConfig.model_fields)
    assert of_sampling - named == set()
    rewards = {name: load_plugin("rewards", name) for name in plugin_names("rewards")}
    assert set(rewards) - named == set()
    for shaping in rewards.values():
        assert set(inspect.signature(shaping).parameters) - named - {"direction"} == set()
    assert set(inspect.signature(CrystalSpace.restricted).parameters) - named - {"self"} == set()
    for name, path in shipped_configs().items():
        if "budget" not in yaml.safe_load(path.read_text()):
            assert f"`{name}`" in page or re.fullmatch("formation-energy-[b-d]", name), name


# Keys of the crystal space that admit their default only.
RESERVED = {"order", "wyckoff"}


def keys(model: type[BaseModel]) -> set[str]:
    """Names of all keys of a model and of the models in it."""
    found = set(model.model_fields)
    for field in model.model_fields.values():
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found |= keys(inner)
    return found
