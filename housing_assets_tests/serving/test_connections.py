"""What leaves a connection: as few pieces as there can be, whole and in order."""

import asyncio

from housing_serving.connections import _OneWrite


class RecordingTransport:
    """A fake of asyncio's transport: how often the system is asked to send cannot be seen from outside."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.ends: list[str] = []

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.ends.append("close")

    def abort(self) -> None:
        self.ends.append("abort")

    def is_closing(self) -> bool:
        return bool(self.ends)


def opened() -> tuple[_OneWrite, RecordingTransport]:
    transport = RecordingTransport()
    return _OneWrite(transport, asyncio.get_running_loop()), transport  # type: ignore[arg-type]


def test_head_and_body_leave_together_at_the_end_of_the_answer() -> None:
    async def answer() -> list[bytes]:
        connection, transport = opened()
        connection.write(b"head ")
        connection.write(b"body")
        assert transport.sent == []
        connection.flush()
        connection.flush()
        return transport.sent

    assert asyncio.run(answer()) == [b"head body"]


def test_what_no_answer_completes_leaves_with_the_turn_of_the_loop() -> None:
    async def answer() -> list[bytes]:
        connection, transport = opened()
        connection.write(b"100 continue")
        await asyncio.sleep(0)
        return transport.sent

    assert asyncio.run(answer()) == [b"100 continue"]


def test_closing_sends_what_is_kept_and_aborting_does_not() -> None:
    async def end(how: str) -> tuple[list[bytes], list[str], bool]:
        connection, transport = opened()
        connection.write(b"answer")
        getattr(connection, how)()
        await asyncio.sleep(0)
        return transport.sent, transport.ends, connection.is_closing()

    assert asyncio.run(end("close")) == ([b"answer"], ["close"], True)
    assert asyncio.run(end("abort")) == ([], ["abort"], True)
