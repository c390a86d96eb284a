"""Run folders, studies, queue jobs, and the commands that compose evaluation and reports."""
