"""The command line: parses, calls the library, and hands data to one ``Output``."""
