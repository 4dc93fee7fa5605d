"""What can be wrong with a set-up, and how to mend it: settings, packages, machine, and what they refer to.

What belongs here: looking, never changing anything. Every check yields findings, and none raises for what it
finds.
"""
