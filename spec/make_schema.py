"""Print the JSON Schema of the manifest, as ``spec/manifest.schema.json`` holds it."""

from __future__ import annotations

import inspect
import json

import msgspec

from maskhub.container.manifest import VERSION, Manifest


def main() -> None:
    schema = msgspec.json.schema(Manifest)
    for definition in schema["$defs"].values():
        definition["description"] = inspect.cleandoc(definition["description"])
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Manifest of a MaskHub mask file, version {VERSION}",
        "description": "Keys that are not described here are allowed everywhere, and kept when a file is rewritten.",
    }
    print(json.dumps(head | schema, indent=2, sort_keys=True))


if __name__ == "__main__":
    main()
