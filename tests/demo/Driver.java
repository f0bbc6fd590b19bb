import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * One end of the demo through Kafka's own Java clients.
 *
 * <pre>
 * usage: Driver produce BOOTSTRAP TOPIC INPUT CARRIERS RECORDS_PER_SECOND ACKS
 *        Driver consume BOOTSTRAP TOPIC GROUP SEEN
 * </pre>
 *
 * Speaks as driver.py beside it does: progress lines on stdout, and a consumer ends when its stdin closes.
 */
public final class Driver {
    private static final long REPORT_EVERY_MS = 50;
    private static final long COMMIT_EVERY_MS = 500;

    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "produce" -> produce(arguments);
            case "consume" -> consume(arguments);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    private static void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    private static void produce(String[] arguments) throws Exception {
        String topic = arguments[2];
        Set<String> own = new HashSet<>(Arrays.asList(arguments[4].split(",")));
        double recordsPerSecond = Double.parseDouble(arguments[5]);
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[1]);
        properties.put("key.serializer", StringSerializer.class.getName());
        properties.put("value.serializer", StringSerializer.class.getName());
        properties.put("enable.idempotence", "true");
        properties.put("acks", "all");
        properties.put("linger.ms", "5");
        properties.put("delivery.timeout.ms", "180000");
        properties.put("max.block.ms", "180000");
        properties.put("request.timeout.ms", "10000");
        properties.put("reconnect.backoff.max.ms", "500");
        properties.put("retry.backoff.max.ms", "500");

        AtomicLong acknowledged = new AtomicLong();
        AtomicLong failures = new AtomicLong();
        AtomicBoolean ended = new AtomicBoolean();
        Thread reporter = new Thread(() -> {
            while (!ended.get()) {
                say("progress " + acknowledged.get());
                pause(REPORT_EVERY_MS);
            }
        });
        reporter.setDaemon(true);
        try (BufferedReader lines = Files.newBufferedReader(Path.of(arguments[3]), StandardCharsets.UTF_8);
                BufferedWriter acks = Files.newBufferedWriter(Path.of(arguments[6]), StandardCharsets.US_ASCII);
                KafkaProducer<String, String> producer = new KafkaProducer<>(properties)) {
            reporter.start();
            long started = System.nanoTime();
            long sent = 0;
            long index = -1;
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                index++;
                String[] fields = line.split("\t", 3);
                if (!own.contains(fields[0])) {
                    continue;
                }
                long place = index;
                ProducerRecord<String, String> record =
                        new ProducerRecord<>(topic, null, Long.parseLong(fields[1]), fields[0], fields[2]);
                // Callbacks run on the producer's one thread, so the writer has one user at a time.
                producer.send(record, (metadata, failure) -> {
                    if (failure != null) {
                        failures.incrementAndGet();
                        System.err.println("record " + place + " was not stored: " + failure);
                        return;
                    }
                    write(acks, place + "\t" + metadata.partition() + "\t" + metadata.offset() + "\n");
                    acknowledged.incrementAndGet();
                });
                sent++;
                while (sent > (System.nanoTime() - started) / 1e9 * recordsPerSecond) {
                    pause(2);
                }
            }
            producer.flush();
        }
        ended.set(true);
        say("progress " + acknowledged.get());
        if (failures.get() > 0) {
            System.err.println(failures.get() + " records were not stored");
            System.exit(1);
        }
    }

    private static void consume(String[] arguments) throws Exception {
        AtomicBoolean stop = new AtomicBoolean();
        Thread listener = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {
                    // Whatever is said, only the end counts.
                }
            } catch (IOException broken) {
                // A broken pipe is an end as well.
            }
            stop.set(true);
        });
        listener.setDaemon(true);
        listener.start();
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[1]);
        properties.put("group.id", arguments[3]);
        properties.put("group.protocol", "classic");
        properties.put("key.deserializer", StringDeserializer.class.getName());
        properties.put("value.deserializer", StringDeserializer.class.getName());
        properties.put("auto.offset.reset", "earliest");
        properties.put("enable.auto.commit", "false");
        properties.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer.RangeAssignor");
        properties.put("session.timeout.ms", "10000");
        properties.put("heartbeat.interval.ms", "1000");
        properties.put("request.timeout.ms", "10000");
        properties.put("reconnect.backoff.max.ms", "500");
        properties.put("retry.backoff.max.ms", "500");
        long count = 0;
        long reportedAt = 0;
        long committedAt = System.currentTimeMillis();
        TreeMap<Integer, Long> following = new TreeMap<>();
        try (BufferedWriter seen = Files.newBufferedWriter(Path.of(arguments[4]), StandardCharsets.UTF_8);
                KafkaConsumer<String, String> consumer = new KafkaConsumer<>(properties)) {
            consumer.subscribe(Set.of(arguments[2]));
            while (!stop.get()) {
                var records = consumer.poll(Duration.ofMillis(50));
                long now = System.currentTimeMillis();
                for (ConsumerRecord<String, String> record : records) {
                    seen.write(now + "\t" + record.partition() + "\t" + record.offset() + "\t" + record.key()
                            + "\t" + record.timestamp() + "\t" + record.value() + "\n");
                    count++;
                    following.put(record.partition(), record.offset() + 1);
                }
                if (now - committedAt > COMMIT_EVERY_MS) {
                    // Seen first, committed second: a member killed between the two sees records again and misses none.
                    seen.flush();
                    commit(consumer);
                    committedAt = System.currentTimeMillis();
                }
                if (now - reportedAt > REPORT_EVERY_MS) {
                    reportedAt = now;
                    report(count, following);
                }
            }
            commit(consumer);
        }
        report(count, following);
    }

    private static void commit(KafkaConsumer<String, String> consumer) {
        try {
            consumer.commitSync(Duration.ofSeconds(5));
        } catch (KafkaException failure) {
            // The broker is away or the group is moving: what is not committed is delivered again, which is counted.
            System.err.println("commit: " + failure);
        }
    }

    private static void report(long count, Map<Integer, Long> following) {
        String places = following.entrySet().stream()
                .map(entry -> entry.getKey() + "=" + entry.getValue())
                .collect(Collectors.joining(","));
        say("progress " + count + " " + places);
    }

    private static void write(BufferedWriter writer, String line) {
        try {
            writer.write(line);
        } catch (IOException failure) {
            throw new IllegalStateException("write " + line, failure);
        }
    }

    private static void pause(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
