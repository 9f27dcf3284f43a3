"""The public functions: one for each command of the program, of the same name and with the same options.

Each takes paths, URLs, Hub names or opened objects alike, in a module of its own that imports nothing heavy: what does
the work is imported inside.
"""
