"""One end of the demo through confluent-kafka (librdkafka).

usage: driver.py create  BOOTSTRAP TOPIC PARTITIONS
       driver.py produce BOOTSTRAP TOPIC INPUT CARRIERS RECORDS_PER_SECOND ACKS
       driver.py consume BOOTSTRAP TOPIC GROUP SEEN

Progress goes to stdout, one line at a time: `progress COUNT` from a producer, `progress COUNT P=NEXT,P=NEXT,...` from a
consumer, where NEXT is the offset behind the last record seen. A consumer ends when its stdin closes.
"""

import sys
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

REPORT_EVERY_S = 0.05
COMMIT_EVERY_S = 0.5


def say(line):
    print(line, flush=True)


def create(bootstrap, topic, partitions):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    new = NewTopic(topic, num_partitions=int(partitions), replication_factor=1, config={"retention.ms": "-1"})
    admin.create_topics([new], operation_timeout=30)[topic].result(timeout=60)


def produce(bootstrap, topic, path, carriers, records_per_second, acks_path):
    own, rate = set(carriers.split(",")), float(records_per_second)
    producer = Producer({
        "bootstrap.servers": bootstrap,
        "enable.idempotence": True,
        "acks": "all",
        # Java's default partitioner, so that one key lands in one partition whoever sends it.
        "partitioner": "murmur2_random",
        "linger.ms": 5,
        "message.timeout.ms": 180_000,
        "reconnect.backoff.max.ms": 500,
        "retry.backoff.max.ms": 500,
    })
    acknowledged, failures, reported_at = 0, 0, 0.0
    with open(path, encoding="utf-8", newline="\n") as lines, open(acks_path, "w", encoding="ascii") as acks:

        def report(at_end=False):
            nonlocal reported_at
            now = time.monotonic()
            if at_end or now - reported_at > REPORT_EVERY_S:
                reported_at = now
                say(f"progress {acknowledged}")

        def delivered(index):
            def on_delivery(error, message):
                nonlocal acknowledged, failures
                if error is not None:
                    failures += 1
                    print(f"record {index} was not stored: {error}", file=sys.stderr, flush=True)
                    return
                acknowledged += 1
                acks.write(f"{index}\t{message.partition()}\t{message.offset()}\n")
            return on_delivery

        sent, started = 0, time.monotonic()
        for index, line in enumerate(lines):
            key, timestamp_ms, value = line.rstrip("\n").split("\t", 2)
            if key not in own:
                continue
            while True:
                try:
                    producer.produce(topic, value, key, timestamp=int(timestamp_ms), on_delivery=delivered(index))
                    break
                except BufferError:
                    # The queue is full while the broker is away; what is delivered makes room.
                    producer.poll(0.1)
                    report()
            sent += 1
            producer.poll(0)
            report()
            while sent > (time.monotonic() - started) * rate:
                producer.poll(0.01)
                report()
        while producer.flush(0.1) > 0:
            report()
        report(at_end=True)
    if failures:
        sys.exit(f"{failures} records were not stored")


def consume(bootstrap, topic, group, seen_path):
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        # The assignor that both languages of the group have.
        "partition.assignment.strategy": "range",
        "session.timeout.ms": 10_000,
        "heartbeat.interval.ms": 1_000,
        "reconnect.backoff.max.ms": 500,
    })
    consumer.subscribe([topic])
    count, following, reported_at, committed_at = 0, {}, 0.0, time.monotonic()

    def commit():
        try:
            consumer.commit(asynchronous=False)
        except KafkaException as error:
            # The broker is away or the group is moving: what is not committed is delivered again, which is counted.
            if error.args[0].code() != KafkaError._NO_OFFSET:
                print(f"commit: {error}", file=sys.stderr, flush=True)

    with open(seen_path, "w", encoding="utf-8", newline="\n") as seen:
        while not stop.is_set():
            now_ms = None
            for message in consumer.consume(1000, timeout=0.05):
                if message.error():
                    print(f"consume: {message.error()}", file=sys.stderr, flush=True)
                    continue
                now_ms = now_ms or int(time.time() * 1000)
                partition, offset = message.partition(), message.offset()
                key, value = message.key().decode(), message.value().decode()
                seen.write(f"{now_ms}\t{partition}\t{offset}\t{key}\t{message.timestamp()[1]}\t{value}\n")
                count += 1
                following[partition] = offset + 1
            now = time.monotonic()
            if now - committed_at > COMMIT_EVERY_S:
                # Seen first, committed second: a member killed between the two sees records again and misses none.
                seen.flush()
                commit()
                committed_at = time.monotonic()
            if now - reported_at > REPORT_EVERY_S:
                reported_at = now
                say(f"progress {count} " + ",".join(f"{p}={o}" for p, o in sorted(following.items())))
        commit()
    consumer.close()
    say(f"progress {count} " + ",".join(f"{p}={o}" for p, o in sorted(following.items())))


if __name__ == "__main__":
    {"create": create, "produce": produce, "consume": consume}[sys.argv[1]](*sys.argv[2:])
