"""The subcommands of `gsemsplat`: each module adds its arguments to a parser and runs."""
