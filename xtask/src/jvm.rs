//! Kafka's programs, as commands: how the Java machine that runs them is set.

/// How it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Jvm {
    /// For tests: a broker that lives for a minute is mostly start-up, and is to be found dead soon.
    SoonReady,
    /// For measurements: what Kafka's own scripts give it, and not one setting that Kafka does not ship with.
    AsShipped,
}

impl Jvm {
    fn options(self) -> &'static [&'static str] {
        match self {
            // The quick compiler alone.
            Jvm::SoonReady => &["-XX:TieredStopAtLevel=1"],
            // KAFKA_JVM_PERFORMANCE_OPTS of `kafka-run-class.sh` of 4.3.
            Jvm::AsShipped => &[
                "-server",
                "-XX:+UseG1GC",
                "-XX:MaxGCPauseMillis=20",
                "-XX:InitiatingHeapOccupancyPercent=35",
                "-XX:+ExplicitGCInvokesConcurrent",
                "-XX:MaxInlineLevel=15",
                "-Djava.awt.headless=true",
            ],
        }
    }
}

/// The command of one of Kafka's programs, without its own arguments.
pub(crate) fn command(class: &str, class_path: &str, jvm: Jvm, heap_max: &str) -> Vec<String> {
    let heap_max = format!("-Xmx{heap_max}");
    let rest = [&heap_max, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", class_path, class];
    [&["java"], jvm.options(), &rest].concat().into_iter().map(str::to_owned).collect()
}

/// The command of a broker. It has its smallest heap from the start, as `kafka-server-start.sh` says.
pub(crate) fn broker(class_path: &str, jvm: Jvm, heap_max: &str) -> Vec<String> {
    let heap_min = match jvm {
        Jvm::SoonReady => "-Xms256m",
        Jvm::AsShipped => "-Xms1g",
    };
    let mut command = command("kafka.Kafka", class_path, jvm, heap_max);
    command.insert(1, heap_min.to_owned());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the compiler of the tests Kafka's measured broker spent far more on each byte than anyone's Kafka does.
    #[test]
    fn a_measured_kafka_has_the_whole_compiler_and_its_own_heap() {
        let command = broker("libs/*", Jvm::AsShipped, "1g").join(" ");
        assert!(!command.contains("TieredStopAtLevel"), "{command}");
        for due in ["-Xmx1g", "-Xms1g", "-XX:+UseG1GC", "-cp libs/* kafka.Kafka"] {
            assert!(command.contains(due), "{due}: {command}");
        }
    }
}
