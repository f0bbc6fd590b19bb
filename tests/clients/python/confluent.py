"""The driver of confluent-kafka, which is librdkafka in Python's clothes."""

import time

from confluent_kafka import (
    OFFSET_BEGINNING, TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, Producer, TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType,
)

import driver
from driver import Refused, say

ADMIN_S = 30
QUICK = {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 250, "log_level": 3}


def produce(order, stopped):
    producer = Producer({
        **QUICK,
        "bootstrap.servers": order["bootstrap"],
        "acks": order["acks"],
        "enable.idempotence": order["idempotent"],
        "compression.type": order["codec"],
        "linger.ms": order["linger_ms"],
        "message.timeout.ms": 90_000,
        "request.timeout.ms": 10_000,
        "retry.backoff.ms": 50,
    })

    def delivered(seq):
        def on_delivery(error, message):
            if error is not None:
                driver.fail(seq, error)
            else:
                offset = message.offset()
                say("ack", s=seq, p=message.partition(), o=-1 if offset is None or offset < 0 else offset)
        return on_delivery

    pace = driver.Pace(order["per_second"])
    for seq in range(order["count"]):
        while True:
            try:
                producer.produce(
                    order["topic"],
                    key=driver.key_of(seq),
                    value=driver.value_of(order["producer"], seq, order["value_bytes"]),
                    headers=driver.headers_of(order["producer"], seq),
                    partition=seq % order["partitions"],
                    timestamp=order["timestamp_ms"] + seq,
                    on_delivery=delivered(seq),
                )
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
        pace.wait()
    left = producer.flush(100)
    if left:
        raise TimeoutError(f"{left} records are still waiting")


def told(message):
    driver.say_record(
        message.partition(), message.offset(), time_of(message), message.key(), message.value(), message.headers())


def time_of(message):
    kind, timestamp = message.timestamp()
    return -1 if kind == TIMESTAMP_NOT_AVAILABLE else timestamp


def read(order, stopped):
    consumer = Consumer({
        **QUICK,
        "bootstrap.servers": order["bootstrap"],
        "group.id": "unused-by-assigned-readers",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": False,
        "check.crcs": True,
        "fetch.wait.max.ms": 100,
    })
    topic = order["topic"]
    parts = [TopicPartition(topic, p) for p in range(order["partitions"])]
    ends, starts = {}, {}
    for part in parts:
        starts[part.partition], ends[part.partition] = consumer.get_watermark_offsets(part, timeout=30)
    if order["from"] == "time":
        asked = [TopicPartition(topic, p.partition, order["timestamp_ms"]) for p in parts]
        for found in consumer.offsets_for_times(asked, timeout=30):
            starts[found.partition] = ends[found.partition] if found.offset < 0 else found.offset
    elif order["from"] == "end":
        starts = dict(ends)
    for p in starts:
        say("range", p=p, first=starts[p], end=ends[p])
    consumer.assign([
        TopicPartition(topic, p, OFFSET_BEGINNING if order["from"] == "start" else first) for p, first in starts.items()
    ])
    say("ready")
    count, behind = 0, {p for p in starts if starts[p] < ends[p]}
    deadline = time.monotonic() + order["timeout_s"]
    while behind if order["from"] != "end" else count < order["count"]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count} records read, partitions {sorted(behind)} are not at their end")
        message = consumer.poll(0.2)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        told(message)
        count += 1
        if message.offset() + 1 >= ends[message.partition()]:
            behind.discard(message.partition())
    consumer.close()


def group(order, stopped):
    config = {
        **QUICK,
        "bootstrap.servers": order["bootstrap"],
        "group.id": order["group"],
        "client.id": order["client"],
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "partition.assignment.strategy": "range",
        "session.timeout.ms": order["session_ms"],
        "heartbeat.interval.ms": 500,
        "max.poll.interval.ms": 30_000,
        "fetch.wait.max.ms": 100,
    }
    if order.get("instance"):
        config["group.instance.id"] = order["instance"]
    consumer = Consumer(config)
    following = {}

    def commit():
        offers = [TopicPartition(order["topic"], p, o, metadata=f"m{o}") for p, o in following.items()]
        if not offers:
            return
        try:
            done = consumer.commit(offsets=offers, asynchronous=False)
        except KafkaException as error:
            say("not-committed", e=str(error))
            return
        for part in done:
            if part.error is None:
                say("committed", p=part.partition, o=part.offset)
            else:
                say("not-committed", e=str(part.error))

    def on_assign(_, parts):
        following.clear()
        say("assigned", parts=sorted(p.partition for p in parts))

    def on_revoke(_, parts):
        commit()
        following.clear()
        say("revoked", parts=sorted(p.partition for p in parts))

    def on_lost(_, parts):
        following.clear()
        say("revoked", parts=sorted(p.partition for p in parts))

    consumer.subscribe([order["topic"]], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost)
    since_commit = 0
    while not stopped():
        message = consumer.poll(0.1)
        if message is None:
            continue
        if message.error():
            if message.error().fatal():
                raise KafkaException(message.error())
            say("note", e=str(message.error()))
            continue
        told(message)
        following[message.partition()] = message.offset() + 1
        since_commit += 1
        if since_commit >= order["commit_every"]:
            commit()
            since_commit = 0
    commit()
    consumer.close()


def commit(order, stopped):
    consumer = Consumer({**QUICK, "bootstrap.servers": order["bootstrap"], "group.id": order["group"]})
    offers = [
        TopicPartition(order["topic"], int(p), offset, metadata=metadata)
        for p, (offset, metadata) in order["offsets"].items()
    ]
    try:
        for part in consumer.commit(offsets=offers, asynchronous=False):
            if part.error is not None:
                raise Refused(part.error.code(), str(part.error))
    except KafkaException as error:
        raise Refused(error.args[0].code(), str(error)) from error
    consumer.close()


def committed(order, stopped):
    consumer = Consumer({**QUICK, "bootstrap.servers": order["bootstrap"], "group.id": order["group"]})
    parts = [TopicPartition(order["topic"], p) for p in range(order["partitions"])]
    for part in consumer.committed(parts, timeout=30):
        say("committed", p=part.partition, o=max(part.offset, -1), m=part.metadata or "")
    consumer.close()


def admin(order, stopped):
    client = AdminClient({**QUICK, "bootstrap.servers": order["bootstrap"]})
    topic = order["topic"]

    def wait(futures):
        try:
            return next(iter(futures.values())).result(timeout=ADMIN_S)
        except KafkaException as error:
            raise Refused(error.args[0].code(), str(error)) from error

    match order["op"]:
        case "create":
            new = NewTopic(
                topic, num_partitions=order["partitions"], replication_factor=order["replicas"], config=order["configs"])
            wait(client.create_topics([new], operation_timeout=ADMIN_S))
        case "delete":
            wait(client.delete_topics([topic], operation_timeout=ADMIN_S))
        case "describe":
            # All topics: to ask for one by name is to have it created.
            found = client.list_topics(timeout=ADMIN_S).topics.get(topic)
            if found is None:
                raise Refused(KafkaError.UNKNOWN_TOPIC_OR_PART, "not listed")
            say("topic", partitions=len(found.partitions), leaders=[p.leader for p in found.partitions.values()])
        case "configs":
            entries = wait(client.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]))
            say("configs", values={name: entry.value for name, entry in entries.items()})
        case "alter":
            entries = [
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in order["configs"].items()
            ]
            resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
            wait(client.incremental_alter_configs([resource]))
        case "groups":
            listed = client.list_consumer_groups(request_timeout=ADMIN_S).result(timeout=ADMIN_S)
            say("groups", names=sorted(g.group_id for g in listed.valid))
        case "delete_group":
            wait(client.delete_consumer_groups([order["group"]], request_timeout=ADMIN_S))


def transact(order, stopped):
    producer = Producer({
        **QUICK,
        "bootstrap.servers": order["bootstrap"],
        "transactional.id": order["transactional_id"],
        "transaction.timeout.ms": 10_000,
    })
    try:
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(order["topic"], value=b"in a transaction", partition=0)
        producer.commit_transaction(30)
    except KafkaException as error:
        error = error.args[0]
        raise Refused(error.code(), str(error), fatal=error.fatal()) from error


driver.serve({
    "produce": produce, "read": read, "group": group, "commit": commit, "committed": committed, "admin": admin,
    "transact": transact,
})
