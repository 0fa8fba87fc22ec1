"""The fastest safe settings of a potential on one system: which inner step, and how many of them in an outer one."""
