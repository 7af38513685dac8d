//! The configuration file of a private Redis.

use super::{Listen, RedisOptions, SOCKET};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The configuration file. It, not the command line, carries the password, since arguments are visible to everyone.
pub(super) fn config_text(options: &RedisOptions, port: u16) -> String {
    let mut text = format!("bind 127.0.0.1\nport {port}\nsave \"\"\nappendfsync everysec\n");
    let append_only = if options.append_only { "yes" } else { "no" };
    let mut set = |name: &str, value: &str| {
        writeln!(text, "{name} {}", quoted(value)).expect("writing to a String cannot fail");
    };
    set("appendonly", append_only);
    if options.listen == Listen::Unix {
        set("unixsocket", SOCKET);
        set("unixsocketperm", "700");
    }
    if let Some(bytes) = options.max_memory {
        set("maxmemory", &bytes.to_string());
        set("maxmemory-policy", "noeviction");
    }
    if let Some(password) = &options.password {
        set("requirepass", password);
    }
    text
}

/// A value in the quotes of Redis's configuration files, every unusual byte escaped.
fn quoted(value: &str) -> String {
    let escaped = value.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => {
                write!(text, "\\x{byte:02x}").expect("writing to a String cannot fail");
            }
            plain => text.push(char::from(plain)),
        }
        text
    });
    format!("\"{escaped}\"")
}

/// Writes a file that only its owner can read.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_break_out_of_its_line() {
        assert_eq!(quoted("plain word"), "\"plain word\"");
        assert_eq!(quoted("a\"b\\c\nd"), r#""a\x22b\x5cc\x0ad""#);
    }

    #[test]
    fn the_configuration_follows_the_options() {
        let mut options = RedisOptions::new("unused");
        let plain = config_text(&options, 1234);
        assert!(plain.contains("port 1234\n") && plain.contains("appendonly \"no\"\n"));
        assert!(!plain.contains("requirepass") && !plain.contains("maxmemory"));
        options.append_only = true;
        options.max_memory = Some(1 << 20);
        options.password = Some("s3cret".to_owned());
        options.listen = Listen::Unix;
        let full = config_text(&options, 0);
        for line in [
            "port 0",
            "appendonly \"yes\"",
            "maxmemory \"1048576\"",
            "requirepass \"s3cret\"",
            "unixsocket \"redis.sock\"",
        ] {
            assert!(full.lines().any(|found| found == line), "{line} is missing");
        }
    }
}
