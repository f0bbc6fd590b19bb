//! Where log lines go: stderr, as text for people or JSON for machines.

use std::io::IsTerminal;

use ouzel_metadata::configs::broker::LogFormat;
use tracing_subscriber::EnvFilter;

use crate::config::UsageError;

/// Says what is logged: a level, or levels by module, as in `info,ouzel_storage=debug`.
pub(crate) const VARIABLE: &str = "OUZEL_LOG";
/// openraft tells each step of each group.
const DEFAULT_FILTER: &str = "info,openraft=error";

/// Sets up the process's log; once, before anything is logged.
pub(crate) fn start(format: LogFormat, wanted: Option<&str>) -> Result<(), UsageError> {
    let lines = tracing_subscriber::fmt().with_env_filter(filter(wanted)?).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}

fn filter(wanted: Option<&str>) -> Result<EnvFilter, UsageError> {
    let wanted = wanted.unwrap_or(DEFAULT_FILTER);
    EnvFilter::builder().parse(wanted).map_err(|_| {
        UsageError(format!(
            "{VARIABLE} cannot be '{wanted}': write a level (error, warn, info, debug, trace, off), or levels by \
             module as in info,ouzel_storage=debug"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_or_levels_by_module() {
        assert!(filter(None).is_ok());
        assert!(filter(Some("warn,ouzel_storage=debug")).is_ok());
        assert_eq!(
            filter(Some("info,ouzel_storage=loud")).unwrap_err().to_string(),
            "OUZEL_LOG cannot be 'info,ouzel_storage=loud': write a level (error, warn, info, debug, trace, off), or \
             levels by module as in info,ouzel_storage=debug"
        );
    }
}
