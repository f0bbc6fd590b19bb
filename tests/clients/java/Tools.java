import com.fasterxml.jackson.databind.JsonNode;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.common.utils.Exit;

/** {@code tool}: runs one of Kafka's command line tools in this process, and tells what it printed. */
final class Tools {
    private Tools() {}

    /** Instead of an exit status: the tool has not ended. */
    private static final int RUNNING = -1;

    /** Thrown where the tool would have ended the process. */
    private static final class Ended extends RuntimeException {
        Ended() {
            super("the tool has ended", null, false, false);
        }
    }

    static void run(JsonNode order) throws Exception {
        List<String> arguments = new ArrayList<>();
        order.get("args").forEach(argument -> arguments.add(argument.asText()));
        AtomicInteger status = new AtomicInteger(RUNNING);
        Exit.setExitProcedure((code, message) -> {
            // The first word counts: some tools catch what is thrown here and end once more.
            status.compareAndSet(RUNNING, code);
            if (message != null) {
                System.err.println(message);
            }
            throw new Ended();
        });
        Exit.setHaltProcedure((code, message) -> {
            status.compareAndSet(RUNNING, code);
            throw new Ended();
        });
        // A hook would run at the end of this process, which outlives the tool.
        Exit.setShutdownHookAdder((name, hook) -> {});
        PrintStream out = System.out;
        PrintStream err = System.err;
        InputStream in = System.in;
        ByteArrayOutputStream said = new ByteArrayOutputStream();
        PrintStream page = new PrintStream(said, true, StandardCharsets.UTF_8);
        try {
            System.setOut(page);
            System.setErr(page);
            System.setIn(new ByteArrayInputStream(order.path("stdin").asText().getBytes(StandardCharsets.UTF_8)));
            Class.forName(order.get("class").asText())
                    .getMethod("main", String[].class)
                    .invoke(null, (Object) arguments.toArray(String[]::new));
        } catch (InvocationTargetException error) {
            if (status.compareAndSet(RUNNING, 1)) {
                error.getCause().printStackTrace(page);
            }
        } finally {
            System.setOut(out);
            System.setErr(err);
            System.setIn(in);
            Exit.resetExitProcedure();
            Exit.resetHaltProcedure();
            Exit.resetShutdownHookAdder();
        }
        Driver.say("output", "status", Math.max(status.get(), 0), "text", said.toString(StandardCharsets.UTF_8));
    }
}
