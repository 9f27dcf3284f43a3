"""The commands, one module each: what comes of the library's function of that name, shown.

A docstring says what only the command line has; all else is said at the function.
"""
