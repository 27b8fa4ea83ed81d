"""Executors run trials and scorings. Each one is a module of its own, named in `harness.config.executors`.

Nothing is imported here: a command starts the fork server of this folder before its own slow imports, and the server
ignores signals before it imports anything else.
"""
