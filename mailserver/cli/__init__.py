"""The command line: one file for each group of commands, thin; `pillarbox` enters in main.py."""
