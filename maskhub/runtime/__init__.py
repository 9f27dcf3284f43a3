"""Masks in live models. Needs torch and transformers (the extra ``maskhub[train]``)."""

from maskhub.errors import library

for name in ("torch", "transformers"):
    library(name, "models", "'maskhub[train]'")
