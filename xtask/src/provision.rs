//! What the real clients need before they can run: Kafka's jars, a Python environment, compiled Java. Everything
//! lands under `target/provision`, is made once, and is found again by a mark written last; a provisioning that was cut off is
//! simply done again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The Apache Kafka whose broker, clients and tools are the yardstick.
pub(crate) const KAFKA_VERSION: &str = "4.3.0";

/// librdkafka comes inside this wheel.
pub(crate) const CONFLUENT_KAFKA: &str = "confluent-kafka==2.16.1";

/// The folder for all that is provisioned.
pub(crate) fn folder(root: &Path) -> PathBuf {
    root.join("target/provision")
}

/// The class path of Kafka's broker, its Java clients and its tools.
pub(crate) fn kafka_class_path(root: &Path) -> Result<String, String> {
    let place = folder(root).join(format!("kafka-{KAFKA_VERSION}"));
    once(&place, |place| {
        let dependency = |group: &str, artifact: &str, version: &str| {
            format!(
                "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
            )
        };
        let pom = format!(
            "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
             <groupId>ouzel</groupId><artifactId>provision</artifactId><version>1</version><dependencies>{}{}{}</dependencies></project>\n",
            dependency("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
            dependency("org.apache.kafka", "kafka-tools", KAFKA_VERSION),
            // Without a backend the clients' warnings would go nowhere.
            dependency("org.slf4j", "slf4j-simple", "1.7.36"),
        );
        write(&place.join("pom.xml"), &pom)?;
        let mut maven = Command::new("mvn");
        maven.args(["-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=libs"]).current_dir(place);
        run_quietly("fetch Kafka's jars", &mut maven)
    })?;
    Ok(format!("{}/libs/*", place.display()))
}

/// The interpreter of a virtual environment that holds exactly these requirements (`name==version`).
pub(crate) fn python(root: &Path, requirements: &[&str]) -> Result<PathBuf, String> {
    let name =
        if requirements.is_empty() { "bare".to_owned() } else { requirements.join("+").replace("==", "-") };
    let place = folder(root).join(format!("python-{name}"));
    let interpreter = place.join("bin/python");
    once(&place, |place| {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(place);
        run_quietly("make a Python environment", &mut venv)?;
        if requirements.is_empty() {
            return Ok(());
        }
        let mut pip = Command::new(&interpreter);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]);
        pip.args(requirements);
        run_quietly(&format!("install {}", requirements.join(", ")), &mut pip)
    })?;
    Ok(interpreter)
}

/// A source distribution from the Python registry, without its dependencies; the path of the archive.
pub(crate) fn python_sdist(root: &Path, name: &str, version: &str) -> Result<PathBuf, String> {
    let place = folder(root).join(format!("sdist-{name}-{version}"));
    let pip = python(root, &[])?;
    once(&place, |place| {
        let mut download = Command::new(&pip);
        download.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
        download.args(["--no-binary", ":all:"]).arg(format!("{name}=={version}"));
        download.current_dir(place);
        run_quietly(&format!("download {name} {version}"), &mut download)
    })?;
    let archive = place.join(format!("{name}-{version}.tar.gz"));
    match archive.is_file() {
        true => Ok(archive),
        false => Err(format!("download {name} {version}: the archive is not at {}", archive.display())),
    }
}

/// Compiles Java sources; the class path to run them with, `class_path` included. Done anew when a source changed.
pub(crate) fn java_classes(
    root: &Path,
    name: &str,
    sources: &[PathBuf],
    class_path: &str,
) -> Result<String, String> {
    let place = folder(root).join(format!("classes-{name}"));
    let mut text = String::new();
    for source in sources {
        text.push_str(&fs::read_to_string(source).map_err(|e| format!("read {}: {e}", source.display()))?);
    }
    // The mark holds the sources' text: equal text, equal classes.
    let seen = place.join("compiled-from");
    if fs::read_to_string(&seen).is_ok_and(|before| before == text) {
        return Ok(format!("{}:{class_path}", place.display()));
    }
    remove_dir(&place)?;
    create_dir(&place)?;
    let mut javac = Command::new("javac");
    javac.args(["-nowarn", "-Xlint:none", "-cp", class_path, "-d"]).arg(&place).args(sources);
    run_quietly(&format!("compile {name}"), &mut javac)?;
    write(&seen, &text)?;
    Ok(format!("{}:{class_path}", place.display()))
}

/// The broker's release binary, built if a source changed; `OUZEL_BINARY` names another that is there already.
pub(crate) fn ouzel_release(root: &Path) -> Result<PathBuf, String> {
    if let Some(binary) = std::env::var_os("OUZEL_BINARY") {
        return Ok(binary.into());
    }
    binary(root, "ouzel", "ouzel", true)
}

/// A binary of the workspace, built if a source changed. Cargo itself says where it is, wherever its target directory
/// may be.
pub(crate) fn binary(root: &Path, package: &str, name: &str, release: bool) -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--package", package, "--message-format", "json-render-diagnostics"]);
    if release {
        build.arg("--release");
    }
    // What it says to people stays to be seen: a build takes minutes, and its progress is the only sign of life.
    let output = build
        .current_dir(root)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("run cargo build: {e}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let binary = said
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    match binary {
        Some(binary) if output.status.success() => Ok(binary),
        _ => Err(format!("cargo build --package {package} failed")),
    }
}

/// Makes `place` unless its mark says that it is whole already.
fn once(place: &Path, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
    let mark = place.join(".whole");
    if mark.is_file() {
        return Ok(());
    }
    remove_dir(place)?;
    create_dir(place)?;
    make(place)?;
    write(&mark, "")
}

/// Runs a helper without a word; what it said is told only if it failed.
pub(crate) fn run_quietly(what: &str, command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{what}: start {:?}: {e}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    let tail = lines[lines.len().saturating_sub(30)..].join("\n");
    Err(format!("{what}: {} ({})\n{tail}", command.get_program().display(), output.status))
}

pub(crate) fn create_dir(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|e| format!("create {}: {e}", path.display()))
}

pub(crate) fn remove_dir(path: &Path) -> Result<(), String> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("remove {}: {e}", path.display())),
        _ => Ok(()),
    }
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("write {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provisioning_that_was_cut_off_is_done_again() {
        let place = std::env::temp_dir().join(format!("ouzel-xtask-once-{}", std::process::id()));
        let mut made = 0;
        let cut_off = once(&place, |place| {
            made += 1;
            write(&place.join("half"), "")?;
            Err("cut off".to_owned())
        });
        assert_eq!(cut_off, Err("cut off".to_owned()));
        for _ in 0..2 {
            once(&place, |place| {
                made += 1;
                assert!(!place.join("half").exists(), "what was half made is gone");
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(made, 2);
        remove_dir(&place).unwrap();
    }

    #[test]
    fn a_failing_helper_is_quoted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo the reason >&2; exit 3"]);
        let message = run_quietly("try it", &mut command).unwrap_err();
        assert!(message.contains("try it") && message.contains("the reason"), "{message}");
    }
}
