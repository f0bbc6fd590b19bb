import com.fasterxml.jackson.databind.JsonNode;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.TimeoutException;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** {@code read}, {@code group}, {@code commit} and {@code committed}. */
final class Consuming {
    private Consuming() {}

    private static KafkaConsumer<byte[], byte[]> consumer(Properties properties) {
        properties.put("enable.auto.commit", "false");
        properties.put("fetch.max.wait.ms", "100");
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static List<TopicPartition> partitions(JsonNode order) {
        return IntStream.range(0, order.get("partitions").asInt())
                .mapToObj(p -> new TopicPartition(order.get("topic").asText(), p))
                .toList();
    }

    static void read(JsonNode order) throws Exception {
        String from = order.get("from").asText();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Driver.quick(order))) {
            List<TopicPartition> parts = partitions(order);
            consumer.assign(parts);
            Map<TopicPartition, Long> ends = consumer.endOffsets(parts);
            Map<TopicPartition, Long> starts = new HashMap<>(from.equals("end") ? ends : consumer.beginningOffsets(parts));
            if (from.equals("time")) {
                long timestamp = order.get("timestamp_ms").asLong();
                consumer.offsetsForTimes(parts.stream().collect(Collectors.toMap(p -> p, p -> timestamp)))
                        .forEach((part, found) -> starts.put(part, found == null ? ends.get(part) : found.offset()));
            }
            Set<TopicPartition> behind = new HashSet<>();
            for (TopicPartition part : parts) {
                Driver.say("range", "p", part.partition(), "first", starts.get(part), "end", ends.get(part));
                if (from.equals("start")) {
                    consumer.seekToBeginning(List.of(part));
                } else {
                    consumer.seek(part, starts.get(part));
                }
                if (starts.get(part) < ends.get(part)) {
                    behind.add(part);
                }
            }
            Driver.say("ready");
            long count = 0;
            long deadline = System.nanoTime() + order.get("timeout_s").asLong() * 1_000_000_000L;
            while (from.equals("end") ? count < order.get("count").asLong() : !behind.isEmpty()) {
                if (System.nanoTime() > deadline) {
                    throw new TimeoutException(count + " records read, partitions " + behind + " are not at their end");
                }
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    Records.say(record);
                    count++;
                    TopicPartition part = new TopicPartition(record.topic(), record.partition());
                    if (record.offset() + 1 >= ends.get(part)) {
                        behind.remove(part);
                    }
                }
            }
        }
    }

    static void group(JsonNode order) {
        Properties properties = Driver.quick(order);
        properties.put("group.id", order.get("group").asText());
        properties.put("client.id", order.get("client").asText());
        properties.put("auto.offset.reset", "earliest");
        properties.put("partition.assignment.strategy", RangeAssignor.class.getName());
        properties.put("session.timeout.ms", order.get("session_ms").asText());
        properties.put("heartbeat.interval.ms", "500");
        properties.put("max.poll.interval.ms", "30000");
        properties.put("max.poll.records", "100");
        if (!order.path("instance").asText().isEmpty()) {
            properties.put("group.instance.id", order.get("instance").asText());
        }
        String topic = order.get("topic").asText();
        Map<Integer, Long> following = new TreeMap<>();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(properties)) {
            consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> parts) {
                    following.clear();
                    Driver.say("assigned", "parts", numbers(parts));
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> parts) {
                    commit(consumer, topic, following);
                    following.clear();
                    Driver.say("revoked", "parts", numbers(parts));
                }

                @Override
                public void onPartitionsLost(Collection<TopicPartition> parts) {
                    following.clear();
                    Driver.say("revoked", "parts", numbers(parts));
                }
            });
            long sinceCommit = 0;
            while (!Driver.stopped()) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                    Records.say(record);
                    following.put(record.partition(), record.offset() + 1);
                    sinceCommit++;
                }
                if (sinceCommit >= order.get("commit_every").asLong()) {
                    commit(consumer, topic, following);
                    sinceCommit = 0;
                }
            }
            commit(consumer, topic, following);
            following.clear();
        }
    }

    private static List<Integer> numbers(Collection<TopicPartition> parts) {
        return parts.stream().map(TopicPartition::partition).sorted().toList();
    }

    private static void commit(KafkaConsumer<byte[], byte[]> consumer, String topic, Map<Integer, Long> following) {
        if (following.isEmpty()) {
            return;
        }
        Map<TopicPartition, OffsetAndMetadata> offers = new HashMap<>();
        following.forEach((p, o) -> offers.put(new TopicPartition(topic, p), new OffsetAndMetadata(o, "m" + o)));
        try {
            consumer.commitSync(offers);
        } catch (KafkaException error) {
            Driver.say("not-committed", "e", error.toString());
            return;
        }
        following.forEach((p, o) -> Driver.say("committed", "p", p, "o", o));
    }

    private static KafkaConsumer<byte[], byte[]> simple(JsonNode order) {
        Properties properties = Driver.quick(order);
        properties.put("group.id", order.get("group").asText());
        return consumer(properties);
    }

    static void commit(JsonNode order) {
        Map<TopicPartition, OffsetAndMetadata> offers = new HashMap<>();
        order.get("offsets").fields().forEachRemaining(offer -> offers.put(
                new TopicPartition(order.get("topic").asText(), Integer.parseInt(offer.getKey())),
                new OffsetAndMetadata(offer.getValue().get(0).asLong(), offer.getValue().get(1).asText())));
        try (KafkaConsumer<byte[], byte[]> consumer = simple(order)) {
            consumer.assign(offers.keySet());
            consumer.commitSync(offers);
        }
    }

    static void committed(JsonNode order) {
        List<TopicPartition> parts = partitions(order);
        try (KafkaConsumer<byte[], byte[]> consumer = simple(order)) {
            Map<TopicPartition, OffsetAndMetadata> found = consumer.committed(new HashSet<>(parts));
            for (TopicPartition part : parts) {
                OffsetAndMetadata at = found.get(part);
                Driver.say("committed", "p", part.partition(), "o", at == null ? -1 : at.offset(),
                        "m", at == null ? "" : at.metadata());
            }
        }
    }
}
