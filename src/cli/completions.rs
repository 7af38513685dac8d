//! `tidegate completions`: a script that completes commands and options in a shell.

use super::{Report, help};
use clap_complete::Shell;
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  tidegate completions bash > /etc/bash_completion.d/tidegate
  tidegate completions zsh > ~/.zfunc/_tidegate
  tidegate completions fish > ~/.config/fish/completions/tidegate.fish";

/// Flags of `tidegate completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Makes the script.
pub fn run(args: &Args) -> Report {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut help::command(), "tidegate", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    Report::new(
        json!({"shell": args.shell.to_string(), "script": script}),
        script,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::escape;
    use clap::ValueEnum;

    #[test]
    fn every_shell_gets_its_script_as_it_was_made() {
        for shell in Shell::value_variants() {
            let script = run(&Args { shell: *shell }).text;
            assert!(script.contains("quarantine"), "{shell}");
            let changed = script.lines().find(|line| escape(line) != *line);
            assert_eq!(changed, None, "{shell}: printed as it stands");
        }
    }
}
