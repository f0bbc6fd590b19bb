import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.zip.CRC32;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;

/** The records that every driver sends for a producer's name and a sequence number, and their digest. */
final class Records {
    private Records() {}

    static ProducerRecord<byte[], byte[]> record(
            String topic, int partition, long timestamp, String producer, long seq, long valueBytes) {
        var record = new ProducerRecord<>(topic, partition, timestamp, key(seq), value(producer, seq, valueBytes));
        var headers = record.headers();
        headers.add("who", (producer + "|" + seq).getBytes(StandardCharsets.UTF_8));
        if (seq % 5 == 0) {
            headers.add("h", new byte[] {(byte) 255, (byte) 254, (byte) (1 + seq % 255)});
            headers.add("n", null);
            headers.add("h", new byte[0]);
        }
        return record;
    }

    private static byte[] key(long seq) {
        return seq % 13 == 5 && seq % 17 != 3 ? null : ("k" + seq % 97).getBytes(StandardCharsets.UTF_8);
    }

    private static byte[] value(String producer, long seq, long valueBytes) {
        if (seq % 17 == 3) {
            return null;
        }
        ByteArrayOutputStream value = new ByteArrayOutputStream();
        value.writeBytes((producer + "|" + seq + "|").getBytes(StandardCharsets.UTF_8));
        for (long i = 0; i < seq * 37 % valueBytes; i++) {
            value.write((int) ((seq * 31 + i * 7) % 256));
        }
        return value.toByteArray();
    }

    /** Tells a record that was read: where it lay, who says to have sent it, and a digest of all its bytes. */
    static void say(ConsumerRecord<byte[], byte[]> record) {
        CRC32 digest = new CRC32();
        add(digest, record.key());
        add(digest, record.value());
        String who = null;
        for (Header header : record.headers()) {
            add(digest, header.key().getBytes(StandardCharsets.UTF_8));
            add(digest, header.value());
            if (header.key().equals("who")) {
                who = new String(header.value(), StandardCharsets.UTF_8);
            }
        }
        if (who == null && record.value() != null) {
            String[] words = new String(record.value(), StandardCharsets.ISO_8859_1).split("\\|");
            who = words.length > 1 ? words[0] + "|" + words[1] : null;
        }
        Driver.say("rec", "p", record.partition(), "o", record.offset(), "ts", record.timestamp(), "who", who,
                "d", digest.getValue());
    }

    private static void add(CRC32 digest, byte[] part) {
        if (part == null) {
            digest.update("-1|".getBytes(StandardCharsets.US_ASCII));
            return;
        }
        digest.update((part.length + "|").getBytes(StandardCharsets.US_ASCII));
        digest.update(part);
    }
}
