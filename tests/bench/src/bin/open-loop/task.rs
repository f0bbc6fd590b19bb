//! What the driver is to do, from its arguments.

use std::time::Duration;

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Task {
    pub(crate) port: u16,
    pub(crate) partitions: u32,
    /// Connections that produce; each to partitions of its own, if there are enough of them.
    pub(crate) producers: u32,
    /// Connections that fetch, each of them everything.
    pub(crate) consumers: u32,
    pub(crate) value_bytes: usize,
    /// Records of each batch.
    pub(crate) records: u32,
    pub(crate) keyed: bool,
    /// As in Produce: 0, 1, or -1 for all.
    pub(crate) acks: i16,
    /// Batches a second over all producers, due at even distances; none is as many as the broker takes.
    pub(crate) rate: Option<f64>,
    /// Consumers begin anew when they are at the end.
    pub(crate) again: bool,
    /// The window ends when all consumers have read to the end.
    pub(crate) to_the_end: bool,
    /// Latency is that from when a batch was due until a consumer has it. Nobody else may write to the topic.
    pub(crate) end_to_end: bool,
    /// Retention must keep up while the window is open; otherwise the run proves nothing of it.
    pub(crate) sheds: bool,
    pub(crate) warm: Duration,
    pub(crate) measured: Duration,
    /// Bytes of values after which a phase ends before its time: a page cache is finite.
    pub(crate) phase_bytes_max: u64,
}

impl Task {
    /// Reads `--name value` pairs.
    pub(crate) fn parse(arguments: &[String]) -> Result<Task, String> {
        let mut task = Task {
            port: 0,
            partitions: 1,
            producers: 0,
            consumers: 0,
            value_bytes: 1024,
            records: 1,
            keyed: false,
            acks: -1,
            rate: None,
            again: false,
            to_the_end: false,
            end_to_end: false,
            sheds: false,
            warm: Duration::ZERO,
            measured: Duration::from_secs(1),
            phase_bytes_max: u64::MAX,
        };
        let mut words = arguments.iter();
        while let Some(name) = words.next() {
            match name.as_str() {
                "--keyed" => task.keyed = true,
                "--again" => task.again = true,
                "--to-the-end" => task.to_the_end = true,
                "--end-to-end" => task.end_to_end = true,
                "--sheds" => task.sheds = true,
                name => {
                    let value = words.next().ok_or_else(|| format!("{name} wants a value"))?;
                    task.set(name, value).ok_or_else(|| format!("{name} {value} is not understood"))?;
                }
            }
        }
        match task {
            Task { port: 0, .. } => Err("--port is missing".to_owned()),
            Task { producers: 0, consumers: 0, .. } => Err("nobody produces and nobody consumes".to_owned()),
            Task { end_to_end: true, producers, partitions, consumers, rate, .. }
                if producers > partitions || consumers == 0 || rate.is_none() =>
            {
                Err("--end-to-end wants a rate, consumers, and one producer for each partition at most"
                    .to_owned())
            }
            task => Ok(task),
        }
    }

    /// Whether consumers fetch at the tail what is produced beside them, and nothing that was there before.
    pub(crate) fn fetches_the_tail(&self) -> bool {
        self.producers > 0 && !self.to_the_end
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        let seconds = |value: &str| Duration::try_from_secs_f64(value.parse().ok()?).ok();
        match name {
            "--port" => self.port = value.parse().ok()?,
            "--partitions" => self.partitions = value.parse().ok().filter(|count| *count > 0)?,
            "--producers" => self.producers = value.parse().ok()?,
            "--consumers" => self.consumers = value.parse().ok()?,
            "--value-bytes" => self.value_bytes = value.parse().ok()?,
            "--records" => self.records = value.parse().ok().filter(|count| *count > 0)?,
            "--acks" => self.acks = value.parse().ok().filter(|acks| [-1, 0, 1].contains(acks))?,
            "--rate" => self.rate = Some(value.parse().ok().filter(|rate| *rate > 0.0)?),
            "--warm-s" => self.warm = seconds(value)?,
            "--measured-s" => self.measured = seconds(value)?,
            "--phase-bytes-max" => self.phase_bytes_max = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Task, String> {
        Task::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_read_or_refused() {
        let task = parse("--port 9 --producers 2 --rate 10.5 --acks 0 --warm-s 0.5 --keyed").unwrap();
        assert_eq!(
            (task.port, task.producers, task.rate, task.acks, task.keyed),
            (9, 2, Some(10.5), 0, true)
        );
        assert_eq!(task.warm, Duration::from_millis(500));
        for wrong in [
            "",
            "--port 9",
            "--producers 1",
            "--port 9 --producers 1 --acks 2",
            "--port 9 --producers 1 --rate 0",
            "--port 9 --producers 1 --wat 1",
            "--port 9 --producers 1 --rate",
            "--port 9 --producers 2 --consumers 1 --rate 1 --end-to-end",
            "--port 9 --producers 1 --consumers 1 --end-to-end",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
