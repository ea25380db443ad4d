"""The published schemas of the JSON files, and documents held against them."""

import functools
import json
from importlib import resources

import jsonschema


@functools.cache
def validator(name):
    """Of ``compare.json`` or ``track.json``, by "compare" or "track"."""
    text = (resources.files("hvp.report") / f"{name}.schema.json").read_text("utf-8")
    schema = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def validated(convert, name):
    """A function that returns a document, which then also holds it against its schema."""

    @functools.wraps(convert)
    def document(result):
        found = convert(result)
        validator(name).validate(json.loads(json.dumps(found)))
        return found

    return document
