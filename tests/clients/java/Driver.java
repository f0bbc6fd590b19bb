import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.protocol.Errors;

/**
 * The driver of Kafka's own Java clients and command line tools. README.md one folder up lists the commands; each is
 * one JSON object on a line of stdin, and what happens is told in JSON lines on stdout.
 */
public final class Driver {
    /** The real stdout: a tool run in this process gets another one to print on. */
    private static final PrintStream OUT = new PrintStream(new FileOutputStream(FileDescriptor.out), false);
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String END = "{\"cmd\":\"end\"}";

    private static volatile boolean stopped;

    static boolean stopped() {
        return stopped;
    }

    /** Tells an event: its kind, then names and values in turn. */
    static void say(String kind, Object... fields) {
        Map<String, Object> event = new LinkedHashMap<>();
        event.put("t", kind);
        for (int i = 0; i < fields.length; i += 2) {
            event.put((String) fields[i], fields[i + 1]);
        }
        synchronized (OUT) {
            try {
                OUT.println(JSON.writeValueAsString(event));
            } catch (Exception error) {
                throw new IllegalStateException(error);
            }
            OUT.flush();
        }
    }

    /** Settings of every client: it finds a restarted broker soon. */
    static Properties quick(JsonNode order) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", order.get("bootstrap").asText());
        properties.put("reconnect.backoff.ms", "50");
        properties.put("reconnect.backoff.max.ms", "250");
        properties.put("retry.backoff.ms", "50");
        properties.put("retry.backoff.max.ms", "500");
        return properties;
    }

    public static void main(String[] arguments) throws Exception {
        LinkedBlockingQueue<JsonNode> orders = new LinkedBlockingQueue<>();
        Thread listener = new Thread(() -> {
            try (BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
                String line;
                while ((line = lines.readLine()) != null) {
                    JsonNode order = JSON.readTree(line);
                    if (order.get("cmd").asText().equals("stop")) {
                        stopped = true;
                    } else {
                        orders.add(order);
                    }
                }
                stopped = true;
                orders.add(JSON.readTree(END));
            } catch (Exception error) {
                throw new IllegalStateException(error);
            }
        });
        listener.setDaemon(true);
        listener.start();
        while (true) {
            JsonNode order = orders.take();
            if (order.get("cmd").asText().equals("end")) {
                // Not `exit`: a tool may have left a hook behind that waits for itself.
                Runtime.getRuntime().halt(0);
            }
            stopped = false;
            try {
                carryOut(order);
                say("done");
            } catch (Throwable error) {
                report(error);
            }
        }
    }

    private static void carryOut(JsonNode order) throws Exception {
        switch (order.get("cmd").asText()) {
            case "produce" -> Producing.produce(order);
            case "transact" -> Producing.transact(order);
            case "read" -> Consuming.read(order);
            case "group" -> Consuming.group(order);
            case "commit" -> Consuming.commit(order);
            case "committed" -> Consuming.committed(order);
            case "admin" -> Managing.admin(order);
            case "tool" -> Tools.run(order);
            default -> throw new IllegalArgumentException("there is no command " + order.get("cmd"));
        }
    }

    private static void report(Throwable error) {
        Throwable cause = error instanceof ExecutionException && error.getCause() != null ? error.getCause() : error;
        error.printStackTrace();
        if (cause instanceof ApiException) {
            say("refused", "code", Errors.forException(cause).code(), "fatal", true, "e", cause.toString());
        } else if (cause instanceof KafkaException) {
            say("refused", "code", -1, "fatal", true, "e", cause.toString());
        } else {
            say("error", "e", cause.toString());
        }
    }
}
