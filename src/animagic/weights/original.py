"""Published configuration files: what every field may hold, how it is set on the command line, whose file one is.

A system declares the sections of its files as `Section` classes (`systems/*/schema.py`) and reads them in
`systems/*/original.py`, which offers what `Original` asks for. A field has its effect, or none, or is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, cast

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ..errors import InputError
from ..wording import in_one_sentence, nearest, needs, spell

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


def field(
    does: str,
    default: Any = PydanticUndefined,
    *,
    only: tuple = (),
    because: str = "no other value is supported",
    **more: Any,
) -> Any:
    """A field of a section.

    Args:
        does: what is done with it, for the documentation.
        default: what holds where a file leaves it out; without one, the file must have it.
        only: the values that are honoured. because: why others are not.
        more: of `pydantic.Field`.
    """
    about: dict[str, Any] = {"only": list(only), "because": because}
    return Field(default, description=does, json_schema_extra=about, **more)


class Section(BaseModel):
    """The fields of a section of a published configuration.

    A validator of several fields raises ValueError with a sentence that begins with a field's name.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    null_is_absent: ClassVar[bool] = False
    """Whether null is as if a field were left out."""

    @classmethod
    def known(cls) -> dict[str, FieldInfo]:
        """Every field, by its name in the file."""
        return {about.alias or name: about for name, about in cls.model_fields.items()}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The values of the fields that a file may leave out."""
        return {name: about.get_default() for name, about in cls.known().items() if not about.is_required()}

    @classmethod
    def refuse_unknown(cls, names: Iterable[Any], where: str, section: str = "") -> None:
        """Raises InputError for a field that is not of this section. where, section: see `check`."""
        for name in names:
            if name not in cls.known():
                place = f" in {section}" if section else ""
                raise InputError(f"{where} has an unknown field {name!r}{place}{nearest(str(name), cls.known())}")

    @classmethod
    def check(cls, given: Mapping[str, Any], where: str, section: str = "") -> dict[str, Any]:
        """The values of all fields.

        Args:
            given: those that the file has.
            where: the file, or the part of it that has these fields.
            section: the section's name in the file if `--set SECTION.FIELD=VALUE` changes its fields.
        Raises: InputError that names the field, what is allowed and what to do.
        """
        cls.refuse_unknown(given, where, section)
        given = {name: value for name, value in given.items() if not (cls.null_is_absent and value is None)}
        label = f"{section}." if section else f"{where}: "
        for name, about in cls.known().items():
            if about.is_required() and name not in given:
                raise InputError(f"{where} lacks {f'{section}.' if section else ''}{name}; add it to the file.")
        try:
            made = cls.model_validate(given).model_dump(by_alias=True)
        except ValidationError as error:
            if not (first := error.errors()[0])["loc"]:
                raise InputError(f"{label}{first['ctx']['error']}") from error
            annotations = {name: about.annotation for name, about in cls.known().items()}
            raise in_one_sentence(error, annotations, given, lambda name: label + name) from error
        for name, about in cls.known().items():
            only, because = cast(dict[str, Any], about.json_schema_extra).values()
            if only and made[name] not in only:
                allowed = " or ".join(map(spell, only))
                remedy = f" (--set {section}.{name}={spell(only[0])})" if section else ""
                raise InputError(f"{label}{name} is {spell(made[name])}, but {because}; it can be {allowed}{remedy}.")
        return made


def read_file(file: str | Path) -> Any:
    """What a configuration file holds: JSON if it ends with .json, else YAML. Raises InputError."""
    is_json = Path(file).suffix == ".json"
    try:
        text = Path(file).read_text("utf-8")
        return json.loads(text) if is_json else yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"the configuration {file} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # not UTF-8, or another syntax
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"the configuration {file} is not {'JSON' if is_json else 'YAML'}: {reason}.") from error


def read_sections(content: Any, sections: Mapping[str, type[Section]], file: str | Path) -> dict[str, dict[str, Any]]:
    """The content of a file that maps sections to their fields; raises InputError for a section that is unknown."""
    fields = content if isinstance(content, Mapping) else {}
    empty = [f", which {name!r} lacks" for name, values in fields.items() if not isinstance(values, Mapping)]
    if empty or fields is not content:
        known = ", ".join(sections)
        raise InputError(
            f"the configuration {file} must hold the sections {known}, each with its fields{''.join(empty[:1])}."
        )
    for name in content:
        if name not in sections:
            raise InputError(f"{file} has an unknown section {name!r}{nearest(str(name), sections)}")
    return {name: dict(values) for name, values in fields.items()}


def split_setting(setting: str, places: str, form: str) -> tuple[str, str, str]:
    """ "PLACE.FIELD=VALUE" of the command line to its three parts.

    places: a regular expression of what stands before the field. form: how settings are written, for the error.
    """
    path, equals, text = setting.partition("=")
    place, _, name = path.strip().rpartition(".")
    if not equals or not re.fullmatch(places, place):
        raise InputError(f"{setting!r} is not understood; write {form}.")
    return place, name, text.strip()


def value_of(setting: str, name: str, text: str, section: type[Section], called: str = "") -> Any:
    """The value that a setting gives to a field: JSON or YAML, or a bare text where the field is one."""
    if name not in section.known():
        of = f" of {called}" if called else ""
        raise InputError(f"{setting!r} names an unknown field{of}{nearest(name, section.known())}")
    annotation = section.known()[name].annotation
    if annotation is str:
        return text.strip("\"'")
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{setting!r} is not understood; {needs(annotation)} is needed.") from error


class Original(Protocol):
    """The module `systems/X/original.py`: a system's published configuration files.

    A file that describes several models has an `entry` (from 0), which is an argument of `load_pipeline`, too.
    """

    def is_mine(self, content: Any) -> bool:
        """Whether what a file holds is most likely a configuration of this system, right or wrong."""

    def load_pipeline(
        self, file: str | Path, settings: Iterable[str] = (), *, device: str = "cpu", allow_pickle: bool = False
    ) -> Any:
        """The pipeline that a file describes, with its weights, on a device.

        Args:
            settings: the system's "...FIELD=VALUE" in place of what the file says.
            device: "cuda", "mps" or "cpu".
            allow_pickle: read weights from pickle files, too; no code in them is run.
        Raises: InputError, CheckpointError.
        """


def recognise(file: str | Path, originals: Mapping[str, Original]) -> str:
    """The name of the system whose configuration a file is, by what it holds.

    Raises: InputError for a file that cannot be read or that is nobody's.
    """
    content = read_file(file)
    for name, original in originals.items():
        if original.is_mine(content):
            return name
    raise InputError(f"{file} is no configuration that is known; known are those of {', '.join(originals)}.")
