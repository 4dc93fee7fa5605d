"""What stands below the help of every command: examples, and the exit codes that scripts can rely on."""

FAILED = "1: it failed, and says why"
WRONG_USE = "2: wrong options or settings"


def epilog(*examples: tuple[str, str], done: str = "done", failed: str = FAILED, more: str = "") -> str:
    """Examples and exit codes as Markdown.

    Args:
        examples: Command lines, and what each is for.
        done: What exit code 0 means.
        failed: What exit code 1 means, with the code.
        more: Further codes.
    """
    lines = [f"- `{command}`: {purpose}" for command, purpose in examples]
    codes = "; ".join(part for part in (f"0: {done}", failed, WRONG_USE, more) if part)
    return "\n\n".join(["**Examples**", *lines, f"**Exit codes** {codes}."])
