"""What both Python drivers share: the line protocol, the deterministic records and their digest.

One JSON object per line comes in on stdin, events go out on stdout the same way; README.md beside this folder lists both.
A client library brings a table of commands, and `serve` runs them one after the other.
"""

import json
import queue
import sys
import threading
import time
import traceback
import zlib


def say(event, **fields):
    print(json.dumps({"t": event, **fields}), flush=True)


def fail(seq, error):
    say("fail", s=seq, e=str(error))


def key_of(seq):
    return None if seq % 13 == 5 and seq % 17 != 3 else b"k%d" % (seq % 97)


def value_of(producer, seq, value_bytes):
    if seq % 17 == 3:
        return None
    length = seq * 37 % value_bytes
    return f"{producer}|{seq}|".encode() + bytes((seq * 31 + i * 7) % 256 for i in range(length))


def headers_of(producer, seq, null=None):
    headers = [("who", f"{producer}|{seq}".encode())]
    if seq % 5 == 0:
        headers += [("h", bytes([255, 254, 1 + seq % 255])), ("n", null), ("h", b"")]
    return headers


def digest(key, value, headers):
    crc = 0

    def add(part):
        nonlocal crc
        crc = zlib.crc32(b"-1|" if part is None else b"%d|" % len(part) + part, crc)

    add(key)
    add(value)
    for name, content in headers or []:
        add(name.encode())
        add(content)
    return crc


def who_wrote(value, headers):
    for name, content in headers or []:
        if name == "who":
            return content.decode()
    return "|".join(value.decode("latin-1").split("|")[:2]) if value else None


def say_record(partition, offset, timestamp, key, value, headers):
    say("rec", p=partition, o=offset, ts=timestamp, who=who_wrote(value, headers), d=digest(key, value, headers))


class Pace:
    """Holds a producer to a number of records per second; 0 is as fast as it goes."""

    def __init__(self, per_second):
        self.per_second, self.begun, self.count = per_second, time.monotonic(), 0

    def wait(self):
        self.count += 1
        if self.per_second:
            ahead = self.begun + self.count / self.per_second - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)


class Refused(Exception):
    """The broker said no, with a Kafka error code."""

    def __init__(self, code, message, fatal=False):
        super().__init__(message)
        self.code, self.fatal = code, fatal


def serve(commands):
    """Runs commands until stdin ends. `commands` maps a name to a function of (arguments, stopped)."""
    lines = queue.Queue()
    stop = threading.Event()

    def listen():
        for line in sys.stdin:
            command = json.loads(line)
            if command["cmd"] == "stop":
                stop.set()
            else:
                lines.put(command)
        stop.set()
        lines.put(None)

    threading.Thread(target=listen, daemon=True).start()
    while (command := lines.get()) is not None:
        stop.clear()
        try:
            commands[command["cmd"]](command, stop.is_set)
            say("done")
        except Refused as refused:
            say("refused", code=refused.code, fatal=refused.fatal, e=str(refused))
        except Exception as error:  # whatever it is, the orchestrator is to read it
            traceback.print_exc()
            say("error", e=f"{type(error).__name__}: {error}")
