"""The command line: thin commands over flows and store."""
