"""Masks in live models. Needs torch and transformers (the extra ``maskhub[train]``)."""
