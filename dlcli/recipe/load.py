"""A recipe's text becomes a `Recipe` with every default written out, or the list of all that is wrong."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dlcli.data import TEXT_KINDS
from dlcli.recipe.argument_models import argument_model, check_arguments
from dlcli.recipe.conflicts import conflicts, kind_of_data, share_settings
from dlcli.recipe.generative import with_generative_defaults
from dlcli.recipe.mistakes import Mistake, Place, RecipeError, RecipePath, shown
from dlcli.recipe.names import suggest
from dlcli.recipe.overrides import DATASET_KEYS, SPEC_SECTIONS, TWO_NETWORKS, apply_overrides, spec_kind
from dlcli.recipe.schema import NETWORKS, Dataset, Recipe, is_per_network
from dlcli.recipe.signatures import ELSEWHERE, arguments_of, canonical_name, known_names
from dlcli.recipe.version import without_version
from dlcli.recipe.wording import Specs, mistakes_of, place_of, recipe_schema
from dlcli.recipe.yaml_reader import FLOAT, Document, parse_scalar, read_yaml

__all__ = ["RecipeError", "dump_recipe", "find_recipe", "load_recipe", "resolve", "shipped_recipes"]


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads, changes and checks a recipe.

    Args:
        path_or_name: a file, or the name of a shipped recipe (`cifar10_cnn`).
        overrides: `key.path=value` each, see `overrides.apply_overrides`.

    Returns:
        The recipe with every default written out, those of its builders too.

    Raises:
        RecipeError: with every mistake of file and flags.
    """
    path = find_recipe(path_or_name)
    document = read_yaml(path, str(path))
    if isinstance(document.value, dict) and document.complete:
        apply_overrides(document, overrides)
    return _checked(document, str(path))


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with every default written out, checked as a file would be.

    Raises:
        RecipeError: with every mistake.
    """
    return _checked(Document(value=recipe.model_dump(mode="json")), "recipe")


def dump_recipe(recipe: Recipe) -> str:
    """YAML that loads back to an equal recipe."""
    return yaml.dump(
        recipe.model_dump(mode="json"),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=100,
    )


def find_recipe(path_or_name: str | Path) -> Path:
    """The file that a path or the name of a shipped recipe stands for.

    Raises:
        RecipeError: no such recipe; with the nearest name.
    """
    text = str(path_or_name)
    path = Path(text).expanduser() if text.startswith("~") else Path(text)
    has_form_of_file = any(mark in text for mark in "/\\") or path.suffix in (".yaml", ".yml")
    is_file = isinstance(path_or_name, Path) or has_form_of_file
    shipped = shipped_recipes()
    if not is_file and text in shipped:
        return shipped[text]
    if is_file and _is_there(path):
        inside = path / "recipe.yaml"
        if _is_file(inside):
            what = "is a directory, not a recipe file"
            raise RecipeError([Mistake(what, Place(text), suggestion=str(inside))])
        return path
    what = "no such file" if is_file else "no shipped recipe has this name, and a file's name ends in .yaml"
    suggestion = _nearest_file(path) if is_file else None
    suggestion = suggestion or suggest(path.stem or text, shipped)
    if not is_file and _is_there(path):
        suggestion = f"./{text}"
    allowed = None if is_file else ", ".join(shipped)
    raise RecipeError([Mistake(what, Place(text), suggestion=suggestion, allowed=allowed)])


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of the recipes that come with dlcli: inside the package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    folder = package / "recipes"
    if not folder.is_dir() and (package.parent / "pyproject.toml").is_file():
        folder = package.parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _is_there(path: Path) -> bool:
    try:
        return path.exists() or path.is_symlink()
    except (OSError, ValueError):  # too long, or with a NUL: reading it says so
        return True


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _nearest_file(path: Path) -> str | None:
    try:
        names = [other.name for other in path.parent.iterdir() if other.suffix in (".yaml", ".yml")]
    except OSError:
        return None
    near = suggest(path.name, names)
    return str(path.parent / near) if near else None


def _checked(document: Document, label: str) -> Recipe:
    """Checks everything that can be checked, then raises all mistakes or builds the recipe."""
    if not document.places:
        document.places[()] = Place(label)
    if not document.complete:
        raise RecipeError(document.mistakes)
    if not isinstance(document.value, dict):
        raise RecipeError([*document.mistakes, _not_a_mapping(document)])
    value, of_version = without_version(document.value, document)
    if of_version:  # whatever else seems wrong may be right in that version
        raise RecipeError([*document.mistakes, *of_version])
    value = with_generative_defaults(_with_text_defaults(value))
    specs, found = _named_specs(value, document)
    found += share_settings(value, specs, document)
    found += conflicts(value, specs, document)
    resolved = dict(value)
    for path, (kind, name, given) in specs.items():
        arguments, mistakes = _checked_arguments(kind, name, given, path, document)
        found += mistakes
        resolved = _with_spec(resolved, path, {"name": name, **arguments})
    recipe, mistakes = _checked_sections(resolved, document)
    found = [_with_owner(mistake, specs) for mistake in (*found, *mistakes)]
    found += _not_finite(value, document, found)
    broken = [mistake.path for mistake in document.mistakes if mistake.path]
    found = [mistake for mistake in found if not any(mistake.path[: len(path)] == path for path in broken)]
    # A value that two sections share is wrong once: the later mistake names the key that was written.
    found = list(
        {(str(mistake.place), mistake.what, mistake.path[-1:]): mistake for mistake in found}.values()
    )
    if recipe is None or found or document.mistakes:
        raise RecipeError([*document.mistakes, *found])
    return recipe


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with its files named from the root, so that a run can be evaluated and resumed from any folder.

    In a recipe file, relative paths start at the working directory, as in every command of a shell.
    """
    augmentation = tuple(
        spec.model_copy(update=_absolute(spec.arguments)) for spec in recipe.dataset.augmentation
    )
    dataset = recipe.dataset.model_copy(
        update={**_absolute(recipe.dataset.arguments), "augmentation": augmentation}
    )
    architecture = recipe.architecture.model_copy(update=_absolute_models(recipe.architecture.arguments))
    finetune = recipe.finetune and recipe.finetune.model_copy(
        update=_absolute_models({"source": recipe.finetune.source})
    )
    metrics = recipe.metrics.model_copy(update=_absolute_models({"features": recipe.metrics.features}))
    changes = {"dataset": dataset, "architecture": architecture, "finetune": finetune, "metrics": metrics}
    return recipe.model_copy(update=changes)


def _absolute(given: dict[str, Any]) -> dict[str, str]:
    return {name: str(Path(given[name]).expanduser().absolute()) for name in PATHS if given.get(name)}


def _absolute_models(given: dict[str, Any]) -> dict[str, str]:
    """Models that are files or folders; `imagenet` and `hub:PRESET` stay as they are."""
    paths = {
        name: Path(given[name]).expanduser() for name in ("source", "weights", "features") if given.get(name)
    }
    return {name: str(path.absolute()) for name, path in paths.items() if path.exists()}


PATHS = ("path", "test_path", "validation_path", "labels", "synonyms")
"""Arguments of sources and augmentations that name files."""


def _not_a_mapping(document: Document) -> Mistake:
    required = ", ".join(name for name, field in Recipe.model_fields.items() if field.is_required())
    what = "empty" if document.value is None else "a recipe is a mapping of sections"
    received = None if document.value is None else shown(document.value)
    allowed = f"{', '.join(Recipe.model_fields)} (required: {required})"
    return Mistake(what, place_of(document, ()), allowed=allowed, received=received)


def _named_specs(value: dict[str, Any], document: Document) -> tuple[Specs, list[Mistake]]:
    """The Specs whose names are in their tables, and a mistake for each of the others."""
    specs: Specs = {}
    found = []
    for path, spec in _spec_values(value):
        kind = str(spec_kind(path))
        bare = isinstance(spec, str)
        name = spec if bare else spec.get("name") if isinstance(spec, dict) else None
        if not isinstance(name, str):
            continue  # the sections' own check says so
        known = canonical_name(kind, name)
        if known is None:
            where = path if bare else (*path, "name")
            allowed, suggestion = ", ".join(known_names(kind)), suggest(name, known_names(kind))
            found.append(
                Mistake(f"unknown {kind}", place_of(document, where), where, suggestion, allowed, shown(name))
            )
            continue
        skipped = ("name", *DATASET_KEYS) if kind == "dataset" else ("name",)
        given = {} if bare else {key: argument for key, argument in spec.items() if key not in skipped}
        specs[path] = (kind, known, given)
    return specs, found


def _with_text_defaults(value: dict[str, Any]) -> dict[str, Any]:
    """A data set of texts has a tokenizer and a length, also when the recipe does not name them."""
    dataset = value.get("dataset")
    dataset = {"name": dataset} if isinstance(dataset, str) else dataset
    if not isinstance(dataset, dict) or not isinstance(dataset.get("name"), str):
        return value
    if kind_of_data(canonical_name("dataset", dataset["name"])) not in TEXT_KINDS:
        return value
    given = {key: setting for key, setting in dataset.items() if setting is not None}
    return value | {"dataset": {"tokenizer": "word", "max_length": DEFAULT_MAX_LENGTH} | given}


DEFAULT_MAX_LENGTH = 256
"""Tokens; half of all film reviews and nearly every other short text fit in."""


def _spec_values(value: dict[str, Any]) -> Iterator[tuple[RecipePath, Any]]:
    for section in SPEC_SECTIONS:
        if section in TWO_NETWORKS and is_per_network(value.get(section)):
            yield from (((section, network), value[section].get(network)) for network in NETWORKS)
        elif section in value:
            yield (section,), value[section]
        elif not Recipe.model_fields[section].is_required():
            yield (section,), Recipe.model_fields[section].default.model_dump()
    dataset = value.get("dataset")
    if isinstance(dataset, dict) and dataset.get("tokenizer") is not None:
        yield ("dataset", "tokenizer"), dataset["tokenizer"]
    items = dataset.get("augmentation") if isinstance(dataset, dict) else None
    for index, item in enumerate(items if isinstance(items, list) else ()):
        yield ("dataset", "augmentation", index), item


def _checked_arguments(
    kind: str, name: str, given: dict[str, Any], path: RecipePath, document: Document
) -> tuple[dict[str, Any], list[Mistake]]:
    """All arguments of a Spec with their defaults, or those given with what is wrong with them."""
    model = argument_model(kind, name)
    elsewhere = [key for key in given if kind == "optimizer" and key in ELSEWHERE]
    kept = {key: value for key, value in given.items() if key not in elsewhere}
    found = [
        Mistake(f"belongs to {ELSEWHERE[key]}", place_of(document, (*path, key), key=True), (*path, key))
        for key in elsewhere
    ]
    try:
        return check_arguments(model, kept), found
    except ValidationError as error:
        schema = model.model_json_schema(by_alias=True)
        if kind == "dataset":  # so that a misspelled `augmentation` finds its key
            schema["properties"] |= recipe_schema()["$defs"]["Dataset"]["properties"]
        return given, found + mistakes_of(error, kept, schema, path, document)


def _with_spec(value: dict[str, Any], path: RecipePath, spec: dict[str, Any]) -> dict[str, Any]:
    """A copy of the recipe's values with one Spec replaced."""
    value = dict(value)
    if len(path) == 1:
        old = value.get(str(path[0]))
        if path[0] == "dataset" and isinstance(old, dict):
            spec = spec | {key: old[key] for key in DATASET_KEYS if key in old}
        value[str(path[0])] = spec
        return value
    if len(path) == 2:  # dataset.tokenizer, or a network's optimizer or schedule
        section, part = str(path[0]), str(path[1])
        return value | {section: value[section] | {part: spec}}
    items = list(value["dataset"]["augmentation"])
    items[int(path[2])] = spec
    value["dataset"] = value["dataset"] | {"augmentation": items}
    return value


def _checked_sections(value: dict[str, Any], document: Document) -> tuple[Recipe | None, list[Mistake]]:
    try:
        return Recipe.model_validate_json(json.dumps(value), strict=True), []
    except ValidationError as error:
        return None, mistakes_of(error, value, recipe_schema(), (), document)


def _with_owner(mistake: Mistake, specs: Specs) -> Mistake:
    """An unknown key of a section may be known in another one: says where."""
    if mistake.what != "unknown key" or "augmentation" in mistake.path:
        return mistake
    owners = _owners(tuple((kind, name) for kind, name, _ in specs.values() if kind != "augmentation"))
    key = str(mistake.path[-1])
    owner = owners.get(key) or ELSEWHERE.get(key)
    if owner is not None:
        mistake.what, mistake.suggestion = f"unknown key; belongs to {owner}", None
    elif mistake.suggestion is None and (near := suggest(key, owners, cutoff=0.85)) is not None:
        mistake.suggestion = f"{owners[near]}.{near}"
    return mistake


@functools.cache
def _owners(specs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Key -> the section that it belongs to."""
    owners = {"learning_rate": "optimizer"}
    for kind, name in specs:
        for key in arguments_of(kind, name):
            owners.setdefault(key, kind)
    for key in set(Dataset.model_fields) - {"name"}:
        owners.setdefault(key, "dataset")
    definitions = recipe_schema()["$defs"]
    for section in ("regularization", "training", "distribution", "metrics"):
        for key, fragment in definitions[section.capitalize()]["properties"].items():
            owners[key] = section
            for branch in fragment.get("anyOf", []):
                inner = definitions.get(branch.get("$ref", "").rsplit("/", 1)[-1], {})
                for name in inner.get("properties", {}):
                    owners.setdefault(name, f"{section}.{key}")
    return owners


def _not_finite(value: Any, document: Document, found: list[Mistake]) -> list[Mistake]:
    """NaN and infinity are never a setting, also where an argument takes any value."""
    reported = {mistake.path for mistake in found}
    wrong = [
        path for path, number in _numbers(value, ()) if not math.isfinite(number) and path not in reported
    ]
    return [
        Mistake("not a finite number", place, path, received=place.raw)
        for path in wrong
        for place in [place_of(document, path)]
    ]


def _numbers(value: Any, path: RecipePath) -> Iterator[tuple[RecipePath, float]]:
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _numbers(inner, (*path, index))


class _Dumper(yaml.SafeDumper):
    """Quotes every text that the strict reader would not read as the same text."""

    def ignore_aliases(self, data: Any) -> bool:
        """The reader refuses aliases."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        plain = parse_scalar(text) == text and isinstance(parse_scalar(text), str) and text.isprintable()
    except ValueError:
        plain = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


def _represent_list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.SequenceNode:
    on_one_line = not any(isinstance(value, dict | list) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=on_one_line)


def _represent_float(dumper: yaml.SafeDumper, number: float) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:float", repr(number))


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(float, _represent_float)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))  # 1e-07 without a dot
