"""Image classification: an image and its class. Input ``image``, encoded as it was found."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskhub.errors import ArgumentError, DataError, FormatError, MissingError, library, reason, same_kind
from maskhub.storage.regular import open_regular
from maskhub.tasks.examples import Examples, Inputs, Table
from maskhub.tasks.task import Answer, Array, Names
from maskhub.tasks.text_classification import TextClassification

IMAGE_COLUMNS = ("image", "img", "picture")


class ImageClassification(TextClassification):
    """An image's class."""

    name = "image-classification"
    type = "image-classification"
    model = "AutoModelForImageClassification"
    columns = "a folder of images with one folder for each class; or image and label"
    images = True

    def fits(self, table: Table) -> bool:
        column = table.find("text", IMAGE_COLUMNS)
        return column is not None and table.is_image(column)

    def inputs(self, table: Table) -> Inputs:
        column = table.column("text", IMAGE_COLUMNS)
        if not table.is_image(column):
            raise DataError(
                f"{table.source}: column {column!r} holds no images",
                hint="Name a folder of images that has one folder for each class.",
            )
        images = table.values(column)
        for row, image in enumerate(images, 1):
            _open(image, f"{table.source}: row {row}: image {image['path'] or ''}".rstrip())
        return {"image": images}

    def encode(self, examples: Examples, processor: Any, names: Names, max_length: int) -> Any:
        return Images(examples.inputs["image"], self.targets(examples, names), processor, examples.source)

    def collator(self, processor: Any) -> Any:
        from transformers import default_data_collator

        return default_data_collator

    def given(self, inputs: Sequence[Any]) -> Inputs:
        """Paths of images, and of folders of them."""
        cure = "The mask's task reads images: give paths of them, or of folders."
        paths: list[Path] = []
        for place in inputs:
            if not isinstance(place, str | Path):
                raise ArgumentError(f"{place!r} is no path", hint=cure)
            if not Path(place).exists():
                raise MissingError(f"{place}: no such image", hint=cure)
            paths += in_folder(Path(place)) if Path(place).is_dir() else [Path(place)]
        images = [{"path": str(path), "bytes": None} for path in paths]
        for image in images:
            _open(image, str(image["path"]))
        return {"image": images}

    def answer(self, asked: Answer, processor: Any, logits: Array, labels: Array, names: Names, top_k: int) -> Answer:
        return super().answer({"image": asked["image"]["path"]}, processor, logits, labels, names, top_k)


def in_folder(folder: Path) -> list[Path]:
    """The images in a folder and those in it, sorted by their paths. Raises DataError where there is none."""
    suffixes = library("PIL.Image", "images", "'maskhub[train]'").registered_extensions()
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if not found:
        raise DataError(f"{folder}: no images in it")
    return found


def _open(image: dict[str, Any], what: str) -> Any:
    """The image in RGB; DataError where it is damaged or none."""
    pillow = library("PIL.Image", "images", "'maskhub[train]'")
    try:
        content = image["bytes"]
        with open_regular(image["path"]) if content is None else io.BytesIO(content) as file:
            return pillow.open(file).convert("RGB")
    except FormatError:
        raise
    except Exception as error:  # each format's reader raises its own kinds
        raise same_kind(error, DataError)(f"{what}: cannot be read: {reason(error)}") from error


class Images:
    """Examples read anew each time, since pixels of many do not fit the memory."""

    def __init__(self, images: Sequence[Any], labels: list[int], processor: Any, source: str) -> None:
        self._images, self._labels, self._processor, self._source = images, labels, processor, source

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = _open(self._images[index], f"{self._source}: row {index + 1}")
        pixels = self._processor(image, return_tensors="np")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": self._labels[index]}
