"""The command line: one module per command group.

This is the one layer that prints, reads the environment and knows of terminals. ``main`` defines
the group and its options, ``boundary`` turns errors into lines and exit codes, ``targets`` reads
SPECs, ``output`` writes tables, plain lines and JSON. Modules import what is heavy (the store,
rich, the mount) inside the commands, so that ``versionfs --help`` and ``versionfs ls`` start fast.
"""
