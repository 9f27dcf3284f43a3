"""The public functions: one for each command of the program, of the same name and with the same options."""
