"""The commands, one module each. They import the library inside their functions, so that help stays fast."""
