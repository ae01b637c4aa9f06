//! Two switches that decide how an error is shown. They are needed even if the arguments cannot be
//! parsed.

use std::ffi::OsString;

/// Whether answers and errors are wanted as JSON.
pub(crate) fn wants_json(arguments: &[OsString]) -> bool {
    is_switched_on(arguments, "--json", "KBACKUP_JSON")
}

/// Whether the exit codes of a monitoring plugin are wanted.
pub(crate) fn wants_plugin(arguments: &[OsString]) -> bool {
    let variable = "KBACKUP_MONITORING_PLUGIN";
    is_switched_on(arguments, "--monitoring-plugin", variable)
}

fn is_switched_on(arguments: &[OsString], flag: &str, variable: &str) -> bool {
    let mut options = arguments.iter().take_while(|argument| *argument != "--");
    if options.any(|argument| argument == flag) {
        return true;
    }

    let value = std::env::var(variable).unwrap_or_default();
    let words = ["1", "true", "yes", "on", "y", "t"];
    words.contains(&value.to_ascii_lowercase().as_str())
}
