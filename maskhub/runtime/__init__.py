"""Masks in live models. Needs torch and transformers (the extra ``maskhub[train]``)."""

import torch  # noqa: F401  (transformers can be imported without it, and then knows no model)
