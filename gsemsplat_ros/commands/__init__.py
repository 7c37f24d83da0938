"""The subcommands of `gsemsplat`, one module each, with `add_arguments(parser)` and `run(args, console)`.

They read the command line, call one room of the package and present its result.
"""
