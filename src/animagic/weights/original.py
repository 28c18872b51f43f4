"""Published configuration files, JSON or YAML: read, changed by settings of the command line, and checked.

A system declares the sections of its files as `Section` classes (`systems/*/schema.py`) and reads them in
`systems/*/original.py`. A field has its effect, or none, or is refused by name.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..errors import InputError
from ..outside import parsed, read_text
from ..wording import annotations_of, in_one_sentence, nearest, needs, spell

S = TypeVar("S", bound="Section")

SUFFIXES = (".json", ".yaml", ".yml")


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
YamlNumber = Annotated[float, BeforeValidator(_number)]
"""1e-4 is a number in the published files, but a text in YAML 1.1."""


class Section(BaseModel):
    """The fields of a section of a published configuration.

    Allowed values are a `Literal`, in `Annotated` with a text that says why. A validator of several fields raises
    ValueError with a sentence that begins with a field's name.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The values of the fields that a file may leave out."""
        return {name: about.get_default() for name, about in cls.model_fields.items() if not about.is_required()}

    @classmethod
    def read(cls: type[S], given: Mapping[str, Any], where: str) -> S:
        """The section with these fields. Raises InputError that names the field and what is allowed, and begins with
        `where`."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise in_one_sentence(error, cls, given, where.__add__) from error

    @classmethod
    def check(cls, given: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The values of all fields; raises InputError as `read`."""
        return cls.read(given, where).model_dump(by_alias=True)


def read_file(file: str | Path) -> Any:
    """The content of a configuration file: JSON if it ends with .json, else YAML. Raises InputError."""
    return parsed(read_text(file, "configuration"), f"configuration {file}", Path(file).suffix == ".json")


def read_sections(content: Any, sections: Mapping[str, type[Section]], file: str | Path) -> dict[str, dict[str, Any]]:
    """The content of a file that maps sections to fields; raises InputError for one that is unknown."""
    if not isinstance(content, Mapping):
        raise InputError(f"the configuration {file} must hold the sections {', '.join(sections)}.")
    for name, values in content.items():
        if name not in sections:
            raise InputError(f"{file} has an unknown section {name!r}{nearest(str(name), sections)}")
        if not isinstance(values, Mapping):
            raise InputError(f"{file}: the section {name!r} is {spell(values)}; fields with their values are needed.")
        for field in values:
            if field not in (known := annotations_of(sections[name])):
                raise InputError(f"{file}: {name}.{field} is unknown{nearest(str(field), known)}")
    return {name: dict(values) for name, values in content.items()}


def split_setting(setting: str, places: str, form: str) -> tuple[str, str, str]:
    """ "PLACE.FIELD=VALUE" of the command line to its three parts.

    places: a regular expression of what stands before the field. form: how settings are written, for the error.
    """
    path, equals, text = setting.partition("=")
    place, _, name = path.strip().rpartition(".")
    if not equals or not re.fullmatch(places, place):
        raise InputError(f"{setting!r} is not understood; write {form}.")
    return place, name, text.strip()


def value_of(setting: str, name: str, text: str, section: type[Section]) -> Any:
    """The value that a setting gives to a field: JSON or YAML, or a bare text where the field is one."""
    known = annotations_of(section)
    if name not in known:
        raise InputError(f"{setting!r} names an unknown field{nearest(name, known)}")
    if known[name] is str:
        return text.strip("\"'")
    for as_json in (True, False):
        with contextlib.suppress(InputError):
            return parsed(text, "setting", as_json)
    raise InputError(f"{setting!r} is not understood; {needs(known[name])} is needed.")
