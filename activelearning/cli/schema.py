"""The JSON schemas of configs, with every plug-in's own parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from activelearning.campaign.config import AcquisitionConfig, CampaignConfig, RewardSection
from activelearning.campaign.parts import N_GIVEN
from activelearning.campaign.sections import parameters_model
from activelearning.contracts.registry import load_plugin, plugin_names
from activelearning.errors import PluginError
from activelearning.sampling.config import BASE, SampleConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Keys of the config that name a plug-in by `type`, and the groups they choose from.
_SECTIONS = {
    "space": "spaces",
    "sampler": "samplers",
    "surrogate": "surrogates",
    "acquisition": "acquisitions",
}
_ONE_OR_SEVERAL = [{"required": ["objective"]}, {"required": ["objectives"]}]
# Short names have no colon; what has one names a class, whose parameters only its author knows.
_OWN_CLASS = {"type": "string", "pattern": ":"}


def config_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12); a section's keys depend on the plug-in it names."""
    schema = CampaignConfig.model_json_schema()
    schema["$schema"] = DIALECT
    definitions: dict[str, Any] = schema["$defs"]
    own = {"acquisition": AcquisitionConfig.model_json_schema()["properties"]}
    for key, group in _SECTIONS.items():
        _put_section(schema, key, group, own.get(key, {}))
    _put_oracles(definitions["FidelityConfig"], definitions)
    _put_oracles(definitions["PriorTerm"], definitions)
    _put_rewards(definitions)
    for unused in ("PluginSection", "AcquisitionConfig"):
        definitions.pop(unused, None)
    schema["oneOf"] = _ONE_OR_SEVERAL
    return schema


def sample_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a config for `activelearning sample`."""
    schema = SampleConfig.model_json_schema()
    schema["$schema"] = DIALECT
    definitions: dict[str, Any] = schema["$defs"]
    for key in ("space", "sampler"):
        _put_section(schema, key, _SECTIONS[key], {})
    _put_rewards(definitions)
    _put_oracles(definitions["OracleConfig"], definitions)
    definitions.pop("PluginSection", None)
    schema["properties"][BASE] = {
        "type": "string",
        "description": "path or shipped name of a config whose keys this one takes over where it states none",
    }
    required = schema.pop("required")
    schema["anyOf"] = [{"required": [BASE]}, {"required": required, "anyOf": _ONE_OR_SEVERAL}]
    return schema


def _put_section(schema: dict[str, Any], key: str, group: str, own: Mapping[str, Any]) -> None:
    """Describe a section that names a plug-in, where the model knows only that there is one."""
    definitions = schema["$defs"]
    name = f"{key.capitalize()}Section"
    definitions[name] = _section(group, own, definitions)
    property_schema: dict[str, Any] = {"$ref": f"#/$defs/{name}"}
    written = schema["properties"][key]
    if key == "sampler":
        property_schema = {"anyOf": [property_schema, {"type": "null"}]}
    kept = {k: v for k, v in written.items() if k in ("default", "description")}
    schema["properties"][key] = {**property_schema, **kept}


def _put_rewards(definitions: dict[str, Any]) -> None:
    """Describe the sections that name a shaping."""
    own = RewardSection.model_json_schema()["properties"]
    definitions["RewardSection"] = _section("rewards", own, definitions)


def _put_oracles(definition: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Describe an entry of `fidelities`: the oracles by name, and each one's parameters."""
    definition["allOf"] = [
        {
            "if": {"properties": {"oracle": {"const": name}}, "required": ["oracle"]},
            "then": {"properties": {"params": parameters}},
        }
        for name, parameters in _parameters("oracles", definitions).items()
    ]
    definition["properties"]["oracle"] = {"anyOf": [{"enum": list(plugin_names("oracles"))}, _OWN_CLASS]}


def _section(group: str, own: Mapping[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Schema of a section that names a plug-in by `type`; `own` are its keys whatever the plug-in."""
    choices: list[dict[str, Any]] = []
    default = own.get("type", {}).get("default")
    for name, parameters in _parameters(group, definitions).items():
        properties = {**own, **parameters["properties"], "type": {"const": name}}
        required = [*parameters.get("required", []), *([] if name == default else ["type"])]
        choices.append({**parameters, "properties": properties, "required": required})
    # A section without a type is of the default one; every other is told apart by it.
    choices.append({"type": "object", "properties": {**own, "type": _OWN_CLASS}, "required": ["type"]})
    return {"anyOf": choices}


def _parameters(group: str, definitions: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Schema of every plug-in's parameters by its short name; one that can't be imported takes any."""
    found = {}
    for name in plugin_names(group):
        try:
            cls = load_plugin(group, name)
        except PluginError:
            found[name] = {"type": "object", "properties": {}}
            continue
        parameters = parameters_model(cls, N_GIVEN.get(group, 0)).model_json_schema()
        definitions.update(parameters.pop("$defs", {}))
        parameters.setdefault("properties", {})
        found[name] = parameters
    return found
