"""The JSON schema of search-space files, made from the forms that read them; for editors."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from hpsearch.spec import cloud_ml_engine, own, vertex_ai
from hpsearch.spec.block import BlockForm
from hpsearch.spec.cloud_ml_engine import HyperparametersForm, JobForm, TrainingInputForm
from hpsearch.spec.form import Form
from hpsearch.spec.vertex_ai import TuningJobForm

Json = dict[str, Any]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
# What may stand at the top of a file; without its wrapper a training job is read, too.
_TOPS: dict[str, tuple[type[Form], ...]] = {
    cloud_ml_engine.NAME: (JobForm, TrainingInputForm, HyperparametersForm),
    vertex_ai.NAME: (TuningJobForm,),
    own.NAME: (),
}
# What the block cannot say beside a dialect that says it itself.
_ELSEWHERE = {
    cloud_ml_engine.NAME: {"args", "hyperparameters"},
    vertex_ai.NAME: {"args", "hyperparameters", "conditions"},
    own.NAME: set[str](),
}


def schema(dialect: str | None = None) -> Json:
    """The schema (draft 2020-12) of a whole file in a dialect, or in any of them; KeyError for another.

    It is stricter than the reader, which takes other spellings with a warning: an editor shall mark them.
    """
    dialects = list(_TOPS) if dialect is None else [dialect]
    tops = [form for each in dialects for form in _TOPS[each]]
    used: list[type[Form]] = [*tops, BlockForm]
    _, made = models_json_schema([(form, "validation") for form in used])
    forms = _tidy(made)["$defs"]
    files = [file for each in dialects for file in _files(each, forms)]
    return {"$schema": _DRAFT, "title": "A search space of hpsearch", "anyOf": files, "$defs": forms}


def _files(dialect: str, forms: Json) -> list[Json]:
    """The shapes of a file in one dialect; its form of the block joins the others."""
    name = f"BlockForm.{dialect}"
    said = forms["BlockForm"]["properties"].items()
    beside = {key: value for key, value in said if key not in _ELSEWHERE[dialect]}
    forms[name] = forms["BlockForm"] | {"properties": beside}
    block: Json = {"hpsearch": {"anyOf": [{"$ref": f"#/$defs/{name}"}, {"type": "null"}]}}
    if not _TOPS[dialect]:
        forms[name] |= {"required": ["hyperparameters"]}
        return [
            {"type": "object", "properties": block, "required": ["hpsearch"], "additionalProperties": False}
        ]
    known = forms[_TOPS[dialect][0].__name__]["properties"]
    return [
        forms[form.__name__]
        | {"properties": _outer(form, known) | forms[form.__name__]["properties"] | block}
        for form in _TOPS[dialect]
    ]


def _outer(form: type[Form], known: Json) -> Json:
    """The keys that stand around an inside that has lost its wrapper."""
    read = form.keys()
    return {key: value for key, value in known.items() if key not in read and value == {}}


def _tidy(made: Any) -> Any:
    """The schema without titles and null defaults, which say nothing."""
    if isinstance(made, dict):
        said = {key: value for key, value in made.items() if key != "default" or value is not None}
        return {key: _tidy(value) for key, value in said.items() if key != "title" or isinstance(value, dict)}
    return [_tidy(each) for each in made] if isinstance(made, list) else made
