"""The ``.msk`` container: a safetensors file with a manifest. The normative text is ``spec/format.md``."""
