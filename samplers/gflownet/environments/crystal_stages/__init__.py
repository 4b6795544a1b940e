"""The stages by which a crystal is built, each in a module of its own."""
