//! The client families, and how each one's driver comes to be. A family whose toolchain is missing is skipped, visibly.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::provision;

/// One client library, in its own language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    /// confluent-kafka for Python, on librdkafka.
    Confluent,
    /// kafka-python: no librdkafka in it.
    KafkaPython,
    /// franz-go.
    Franz,
    /// Kafka's own Java clients and tools.
    Java,
    /// The rdkafka crate, on librdkafka.
    Rdkafka,
    /// kcat from Debian, on an old librdkafka; it has no driver and is run as it is.
    Kcat,
    /// Our own admin tool, run as it is.
    Ouk,
}

impl Family {
    /// Those with a driver.
    pub(super) const DRIVEN: [Family; 5] =
        [Family::Confluent, Family::KafkaPython, Family::Franz, Family::Java, Family::Rdkafka];

    const ALL: [Family; 7] = [
        Family::Confluent,
        Family::KafkaPython,
        Family::Franz,
        Family::Java,
        Family::Rdkafka,
        Family::Kcat,
        Family::Ouk,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Family::Confluent => "confluent",
            Family::KafkaPython => "kafka-python",
            Family::Franz => "franz-go",
            Family::Java => "java",
            Family::Rdkafka => "rdkafka",
            Family::Kcat => "kcat",
            Family::Ouk => "ouk",
        }
    }

    /// The command that starts this family's driver, made ready where it must be.
    fn provide(self, root: &Path) -> Result<Vec<String>, String> {
        let clients = root.join("tests/clients");
        let python = |requirements: &[&str], script: &str| {
            let interpreter = provision::python(root, requirements)?;
            Ok(vec![
                interpreter.display().to_string(),
                "-B".to_owned(),
                clients.join("python").join(script).display().to_string(),
            ])
        };
        match self {
            Family::Confluent => python(&[provision::CONFLUENT_KAFKA], "confluent.py"),
            Family::KafkaPython => python(KAFKA_PYTHON, "kafka_python.py"),
            Family::Franz => {
                let binary = provision::folder(root).join("franz-go-driver");
                let mut go = Command::new("go");
                go.args(["build", "-o"]).arg(&binary).arg(".").current_dir(clients.join("go"));
                provision::run_quietly("build the franz-go driver", &mut go)?;
                Ok(vec![binary.display().to_string()])
            }
            Family::Java => {
                let class_path = provision::kafka_class_path(root)?;
                let class_path =
                    provision::java_classes(root, "clients", &java_sources(&clients)?, &class_path)?;
                let words = [JAVA, &["-cp", &class_path, "Driver"]].concat();
                Ok(words.into_iter().map(str::to_owned).collect())
            }
            Family::Rdkafka => {
                let target = provision::folder(root).join("rdkafka");
                let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
                let mut build = Command::new(cargo);
                build.args(["build", "--quiet", "--locked", "--target-dir"]).arg(&target);
                build.current_dir(clients.join("rdkafka"));
                provision::run_quietly("build the rdkafka driver", &mut build)?;
                Ok(vec![target.join("debug/clients-rdkafka").display().to_string()])
            }
            Family::Kcat => {
                let mut version = Command::new("kcat");
                provision::run_quietly("ask kcat for its version", version.arg("-V"))?;
                Ok(vec!["kcat".to_owned()])
            }
            Family::Ouk => {
                Ok(vec![provision::binary(root, "ouzel-tools", "ouk", false)?.display().to_string()])
            }
        }
    }
}

/// kafka-python is maintained again since 2.1; the codecs beside gzip are libraries of their own.
const KAFKA_PYTHON: &[&str] =
    &["kafka-python==3.0.12", "crc32c==2.9.post0", "lz4==4.4.5", "python-snappy==0.7.3", "zstandard==0.25.0"];

/// A driver lives for seconds: little memory and the quick compiler alone.
const JAVA: &[&str] = &[
    "java",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
];

fn java_sources(clients: &Path) -> Result<Vec<PathBuf>, String> {
    let folder = clients.join("java");
    let entries = fs::read_dir(&folder).map_err(|e| format!("list {}: {e}", folder.display()))?;
    let mut sources: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "java"))
        .collect();
    sources.sort();
    Ok(sources)
}

/// The drivers at hand, and why the others are not.
#[derive(Debug)]
pub(super) struct Toolbox {
    commands: Vec<(Family, Result<Vec<String>, String>)>,
}

impl Toolbox {
    /// Makes every wanted driver ready, side by side.
    pub(super) fn provide(root: &Path, wanted: &[Family]) -> Toolbox {
        let commands = std::thread::scope(|scope| {
            let making: Vec<_> = Family::ALL
                .into_iter()
                .filter(|family| wanted.contains(family))
                .map(|family| (family, scope.spawn(move || family.provide(root))))
                .collect();
            making
                .into_iter()
                .map(|(family, making)| {
                    let made = making.join().unwrap_or_else(|_| Err("its provisioning panicked".to_owned()));
                    (family, made)
                })
                .collect()
        });
        Toolbox { commands }
    }

    /// The command of a family's driver, or why there is none.
    pub(super) fn command(&self, family: Family) -> Result<&[String], String> {
        match self.commands.iter().find(|(known, _)| *known == family) {
            Some((_, Ok(command))) => Ok(command),
            Some((_, Err(reason))) => Err(reason.clone()),
            None => Err(format!("{} was not asked for", family.name())),
        }
    }
}
