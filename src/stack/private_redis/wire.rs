//! The few words that are spoken with a Redis before any client is there: does it answer, and is it ours.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// The most that is read of an answer, in bytes; `INFO server` takes about one thousand.
const ANSWER_MAX: u64 = 64 * 1024;

pub(super) fn connect_tcp(port: u16) -> io::Result<TcpStream> {
    let stream =
        TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    Ok(stream)
}

pub(super) fn connect_unix(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    Ok(stream)
}

/// Sends PING and INFO in one go and returns all that comes back until the server, told to, closes the connection, or
/// says no more.
pub(super) fn ask(mut stream: impl Read + Write, password: Option<&str>) -> io::Result<String> {
    let mut request = Vec::new();
    if let Some(password) = password {
        request.extend(command(&["AUTH", password]));
    }
    for words in [&["PING"][..], &["INFO", "server"], &["QUIT"]] {
        request.extend(command(words));
    }
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    match stream.take(ANSWER_MAX).read_to_end(&mut answer) {
        Ok(_) => {}
        // A Sentinel knows no QUIT: it has answered, and waits for more.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock && !answer.is_empty() => {}
        Err(e) => return Err(e),
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A command in Redis's wire format: an array of byte strings, each with its length.
fn command(words: &[&str]) -> Vec<u8> {
    let parts = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), parts.collect::<String>()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_lengths_and_bytes() {
        assert_eq!(
            command(&["INFO", "server"]),
            b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n"
        );
        assert_eq!(command(&["é"]), "*1\r\n$2\r\né\r\n".as_bytes());
    }
}
