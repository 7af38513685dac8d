//! Examples for every command: a part of a command that has none of its own gets those of the whole that are about it.

use super::Cli;
use clap::{Command, CommandFactory};

/// The command line, with examples wherever `--help` is asked for.
pub(super) fn command() -> Command {
    let whole = Cli::command();
    let name = whole.get_name().to_owned();
    with_examples(whole, &name)
}

fn with_examples(command: Command, path: &str) -> Command {
    let known = command.get_after_help().map(ToString::to_string);
    let known = known.unwrap_or_default();
    command.mut_subcommands(|part| {
        let path = format!("{path} {}", part.get_name());
        let part = match part.get_after_help() {
            Some(_) => part,
            None => match examples(&known, &path) {
                lines if lines.is_empty() => part,
                lines => part.after_help(format!("Examples:\n{}", lines.join("\n"))),
            },
        };
        with_examples(part, &path)
    })
}

/// The lines that are examples of a command.
fn examples<'h>(help: &'h str, path: &str) -> Vec<&'h str> {
    let wanted = format!("{path} ");
    let of_it = |line: &&str| line.starts_with("  ") && format!("{line} ").contains(&wanted);
    help.lines().filter(of_it).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(command: &Command, path: &str, without: &mut Vec<String>) {
        for part in command.get_subcommands() {
            let path = format!("{path} {}", part.get_name());
            let help = part.get_after_help().map(ToString::to_string);
            if examples(&help.unwrap_or_default(), &path).is_empty() {
                without.push(path.clone());
            }
            look(part, &path, without);
        }
    }

    #[test]
    fn every_command_and_every_part_of_one_has_an_example() {
        command().debug_assert();
        let mut without = Vec::new();
        look(&command(), "tidegate", &mut without);
        assert_eq!(without, Vec::<String>::new());
    }
}
