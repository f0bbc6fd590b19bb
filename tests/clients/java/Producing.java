import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** {@code produce} and {@code transact}. */
final class Producing {
    private Producing() {}

    private static KafkaProducer<byte[], byte[]> producer(Properties properties) {
        return new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static void produce(JsonNode order) throws Exception {
        Properties properties = Driver.quick(order);
        properties.put("acks", order.get("acks").asText());
        properties.put("enable.idempotence", order.get("idempotent").asText());
        properties.put("compression.type", order.get("codec").asText());
        properties.put("linger.ms", order.get("linger_ms").asText());
        properties.put("delivery.timeout.ms", "90000");
        properties.put("request.timeout.ms", "10000");
        properties.put("max.block.ms", "90000");
        String name = order.get("producer").asText();
        long perSecond = order.get("per_second").asLong();
        long begun = System.nanoTime();
        try (KafkaProducer<byte[], byte[]> producer = producer(properties)) {
            for (long seq = 0; seq < order.get("count").asLong(); seq++) {
                long number = seq;
                producer.send(
                        Records.record(
                                order.get("topic").asText(), (int) (seq % order.get("partitions").asInt()),
                                order.get("timestamp_ms").asLong() + seq, name, seq, order.get("value_bytes").asLong()),
                        (stored, error) -> {
                            if (error != null) {
                                Driver.say("fail", "s", number, "e", error.toString());
                            } else {
                                Driver.say("ack", "s", number, "p", stored.partition(),
                                        "o", stored.hasOffset() ? stored.offset() : -1);
                            }
                        });
                if (perSecond > 0) {
                    long ahead = begun + (seq + 1) * 1_000_000_000L / perSecond - System.nanoTime();
                    if (ahead > 0) {
                        Thread.sleep(ahead / 1_000_000, (int) (ahead % 1_000_000));
                    }
                }
            }
            producer.flush();
        }
    }

    static void transact(JsonNode order) throws Exception {
        Properties properties = Driver.quick(order);
        properties.put("transactional.id", order.get("transactional_id").asText());
        properties.put("transaction.timeout.ms", "10000");
        properties.put("max.block.ms", "30000");
        try (KafkaProducer<byte[], byte[]> producer = producer(properties)) {
            producer.initTransactions();
            producer.beginTransaction();
            byte[] value = "in a transaction".getBytes(StandardCharsets.UTF_8);
            producer.send(new ProducerRecord<>(order.get("topic").asText(), 0, null, value)).get();
            producer.commitTransaction();
        }
    }
}
