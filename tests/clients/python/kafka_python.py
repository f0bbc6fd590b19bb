"""The driver of kafka-python, the client that is Python all the way down."""

import time

from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import KafkaError, for_code
from kafka.structs import OffsetAndMetadata

import driver
from driver import Refused, say

QUICK = {"reconnect_backoff_ms": 50, "reconnect_backoff_max_ms": 250, "retry_backoff_ms": 50}


def produce(order, stopped):
    producer = KafkaProducer(
        **QUICK,
        bootstrap_servers=order["bootstrap"],
        acks=order["acks"] if order["acks"] == "all" else int(order["acks"]),
        enable_idempotence=order["idempotent"],
        compression_type=None if order["codec"] == "none" else order["codec"],
        linger_ms=order["linger_ms"],
        request_timeout_ms=10_000,
        delivery_timeout_ms=90_000,
        max_block_ms=90_000,
    )

    def delivered(seq):
        return lambda found: say("ack", s=seq, p=found.partition, o=found.offset)

    def not_delivered(seq):
        return lambda error: driver.fail(seq, repr(error))

    pace = driver.Pace(order["per_second"])
    for seq in range(order["count"]):
        future = producer.send(
            order["topic"],
            key=driver.key_of(seq),
            value=driver.value_of(order["producer"], seq, order["value_bytes"]),
            # The library sends no null as a header's value.
            headers=driver.headers_of(order["producer"], seq, null=b""),
            partition=seq % order["partitions"],
            timestamp_ms=order["timestamp_ms"] + seq,
        )
        future.add_callback(delivered(seq))
        future.add_errback(not_delivered(seq))
        pace.wait()
    producer.flush(timeout=100)
    producer.close()


def told(record):
    driver.say_record(record.partition, record.offset, record.timestamp, record.key, record.value, record.headers)


def read(order, stopped):
    consumer = KafkaConsumer(
        **QUICK, bootstrap_servers=order["bootstrap"], enable_auto_commit=False, check_crcs=True, fetch_max_wait_ms=100)
    parts = [TopicPartition(order["topic"], p) for p in range(order["partitions"])]
    consumer.assign(parts)
    ends = consumer.end_offsets(parts)
    starts = consumer.beginning_offsets(parts)
    if order["from"] == "time":
        found = consumer.offsets_for_times({part: order["timestamp_ms"] for part in parts})
        starts = {part: ends[part] if at is None else at.offset for part, at in found.items()}
    elif order["from"] == "end":
        starts = dict(ends)
    for part in parts:
        say("range", p=part.partition, first=starts[part], end=ends[part])
        if order["from"] == "start":
            consumer.seek_to_beginning(part)
        else:
            consumer.seek(part, starts[part])
    say("ready")
    count, behind = 0, {part for part in parts if starts[part] < ends[part]}
    deadline = time.monotonic() + order["timeout_s"]
    while behind if order["from"] != "end" else count < order["count"]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count} records read, partitions {sorted(p.partition for p in behind)} are not at their end")
        for part, records in consumer.poll(timeout_ms=200).items():
            for record in records:
                told(record)
            count += len(records)
            if records[-1].offset + 1 >= ends[part]:
                behind.discard(part)
    consumer.close()


def group(order, stopped):
    extra = {"group_instance_id": order["instance"]} if order.get("instance") else {}
    consumer = KafkaConsumer(
        **QUICK,
        **extra,
        bootstrap_servers=order["bootstrap"],
        group_id=order["group"],
        client_id=order["client"],
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=order["session_ms"],
        heartbeat_interval_ms=500,
        max_poll_interval_ms=30_000,
        request_timeout_ms=35_000,
        fetch_max_wait_ms=100,
        max_poll_records=100,
    )
    following = {}

    def commit():
        if not following:
            return
        try:
            consumer.commit({
                TopicPartition(order["topic"], p): OffsetAndMetadata(o, f"m{o}", -1) for p, o in following.items()
            })
        except KafkaError as error:
            say("not-committed", e=repr(error))
            return
        for p, o in following.items():
            say("committed", p=p, o=o)

    class Listener(ConsumerRebalanceListener):
        def on_partitions_assigned(self, assigned):
            following.clear()
            say("assigned", parts=sorted(part.partition for part in assigned))

        def on_partitions_revoked(self, revoked):
            # No commit: the library calls this where nothing may wait for an answer.
            following.clear()
            say("revoked", parts=sorted(part.partition for part in revoked))

        def on_partitions_lost(self, lost):
            following.clear()
            say("revoked", parts=sorted(part.partition for part in lost))

    consumer.subscribe([order["topic"]], listener=Listener())
    since_commit = 0
    while not stopped():
        for part, records in consumer.poll(timeout_ms=100).items():
            for record in records:
                told(record)
            following[part.partition] = records[-1].offset + 1
            since_commit += len(records)
        if since_commit >= order["commit_every"]:
            commit()
            since_commit = 0
    commit()
    consumer.close()


def simple_consumer(order):
    return KafkaConsumer(
        **QUICK, bootstrap_servers=order["bootstrap"], group_id=order["group"], enable_auto_commit=False)


def refused(error):
    return Refused(getattr(error, "errno", -1), repr(error))


def commit(order, stopped):
    consumer = simple_consumer(order)
    offers = {
        TopicPartition(order["topic"], int(p)): OffsetAndMetadata(offset, metadata, -1)
        for p, (offset, metadata) in order["offsets"].items()
    }
    consumer.assign(list(offers))
    try:
        consumer.commit(offers)
    except KafkaError as error:
        raise refused(error) from error
    finally:
        consumer.close()


def committed(order, stopped):
    consumer = simple_consumer(order)
    for p in range(order["partitions"]):
        found = consumer.committed(TopicPartition(order["topic"], p), metadata=True)
        say("committed", p=p, o=-1 if found is None else found.offset, m="" if found is None else found.metadata)
    consumer.close()


def admin(order, stopped):
    client = KafkaAdminClient(bootstrap_servers=order["bootstrap"], request_timeout_ms=30_000)
    topic = order["topic"]
    try:
        match order["op"]:
            case "create":
                wanted = NewTopic(topic, order["partitions"], order["replicas"], topic_configs=order["configs"])
                client.create_topics([wanted])
            case "delete":
                client.delete_topics([topic])
            case "describe":
                [found] = client.describe_topics([topic])
                if found["error_code"]:
                    raise for_code(found["error_code"])()
                partitions = found["partitions"]
                say("topic", partitions=len(partitions), leaders=[p["leader_id"] for p in partitions])
            case "configs":
                resource = ConfigResource(ConfigResourceType.TOPIC, topic)
                found = client.describe_configs([resource], config_filter="all")["topic"][topic]
                say("configs", values={name: entry["value"] for name, entry in found.items()})
            case "alter":
                client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, order["configs"])])
            case "groups":
                say("groups", names=sorted(group["group_id"] for group in client.list_groups()))
            case "delete_group":
                for _, error in client.delete_groups([order["group"]]).items():
                    if error != "OK":
                        raise Refused(-1, str(error))
    except KafkaError as error:
        raise refused(error) from error
    finally:
        client.close()


driver.serve({
    "produce": produce, "read": read, "group": group, "commit": commit, "committed": committed, "admin": admin,
})
